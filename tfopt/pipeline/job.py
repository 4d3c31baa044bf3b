"""A whole run: fine-tune, compress by a recipe, export, measure, report.

    job = tfopt.Job(model="bert_dir", train="train.tsv", dev="dev.tsv", recipe="int8",
                    out_dir="runs/mine")
    result = job.run()
    result.bundle.predict(["where is my parcel?"])

The same job goes on where it was stopped. Its directory is a bundle (`tfopt.serve`).
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from tfopt import compress, data, model
from tfopt.data import tokenizer as tokenizers
from tfopt.measure.structures import StructureTimer
from tfopt.pipeline import costs, recipes, run_dir, timing
from tfopt.pipeline import identity as identities
from tfopt.pipeline import text_side as text_sides
from tfopt.pipeline.checks import check_exports, check_trained_for
from tfopt.pipeline.dataset import Dataset
from tfopt.pipeline.fine_tuning import FineTuning, of_checkpoint
from tfopt.pipeline.option import Options
from tfopt.pipeline.options import Tables, Targets
from tfopt.pipeline.result import Result
from tfopt.pipeline.road import Road
from tfopt.pipeline.run_options import RunOptions
from tfopt.sparse import embedding
from tfopt.types import PathLike


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job(RunOptions, FineTuning):
    """What to make of which checkpoint and files, and what must be reached.

    Attributes:
        out_dir: directory for all results.
        recipe: the name of one that comes along, a file, or a `Recipe`.
        baseline: a fine-tuned model, as `finetune` leaves it; None fine-tunes first.
        ladder: speedups, to make a bundle for each (`pipeline.laddering`).
        cascade_max_drop: of the monitor, in its own unit, for a ladder's cascade.
        targets: of speed and of the task's metric.
        tables: latency tables of the search for a structure.
        data, settings, batching, devices, teacher, exports, measuring: as of
            `FineTuning`.
    """

    targets: Targets = Targets()
    tables: Tables = Tables()

    def run(self) -> Result | None:
        """Goes the whole road, or the rest of it.

        Returns:
            What is in `out_dir`; None to a worker that computes along and writes
            nothing.

        Raises:
            ValueError: a file, an option or the recipe is wrong, or the directory holds
                another run.
        """
        if self.ladder:
            from tfopt.pipeline import laddering  # which runs jobs of its own

            return laddering.run(self)
        tpu = embedding.connect() if self.measuring.sparse_core else None
        road = self.prepared()
        with run_dir.claim(self.out_dir, road.identity) as out:
            return road.go(out, tpu)

    def prepared(self) -> Road:
        """Reads all that is named, and finds what is wrong before any work.

        Raises:
            ValueError: a file, an option or the recipe is wrong.
        """
        job, side = self._by_baseline()
        recipe = job._recipe()
        dataset = job.dataset(side.tokenizer, side.task.labels if side.task else None)
        dataset.log_notes()
        check_exports(recipe.exports, len(dataset.calibration), self.exports)
        if self.baseline is not None:
            check_trained_for(dataset.task, self.baseline, "--baseline_dir")
        context, table_notes = job._context(dataset, recipe)
        # The teacher, which may be the baseline, is there later.
        compress.check(dataclasses.replace(recipe, distillation=None), context)
        teacher = job.load_teacher(recipe.distillation, dataset,
                                   compress.teaches_states(recipe))
        as_is = self.tables.latency_tables_as_is
        if as_is or compress.names_layers(recipe):  # mistakes are found before training
            start = model.load(self.baseline or self.model)
            compress.check_layers(recipe, start)
            if as_is:  # nothing is timed
                context.get("costs")(model.config_of(start))
        return Road(job, recipe, dataset,
                    job.identity() | {"recipe": json.loads(recipe.to_json())},
                    context, table_notes, teacher)

    def identity(self) -> dict[str, Any]:
        """What the run is made of, but for its recipe.

        Raises:
            ValueError: a file cannot be read.
        """
        found = FineTuning.identity(self) | {
            "run": "compress", "baseline": of_checkpoint(self.baseline),
            **{name: value for record in (self.targets, self.tables)
               for name, value in _fields(record).items()}}
        if self.tables.latency_tables_as_is:  # else they are timed when they are needed
            found |= {f"latency_table_{number}": identities.of_file(path)
                      for number, path in enumerate(self.tables.latency_tables)}
        if self.baseline is not None and tokenizers.is_in(
                model.directory(self.baseline)):
            del found["model"]  # which nothing is taken from
        return found

    def _recipe(self) -> compress.Recipe:
        recipe = costs.aimed(recipes.load(self.recipe), self.targets)
        length = self.exports.export_length
        if length is not None and length < self.data.tokens:
            raise ValueError(
                "--export_length must hold texts of --max_length. Received: "
                f"--export_length={length}, --max_length={self.data.tokens}")
        return dataclasses.replace(recipe, distillation=self.distillation(
            recipe.distillation, compress.teaches_states(recipe)))

    @property
    def start(self) -> PathLike:
        """The checkpoint, or the baseline that was made of one."""
        return self.model if self.baseline is None else self.baseline

    def _by_baseline(self) -> tuple[Job, text_sides.TextSide]:
        """The job that reads texts as its baseline does, and what this brings for it.

        Raises:
            ValueError: tokenizer or length are given otherwise.
        """
        if self.baseline is None:
            return self.with_own_length(), text_sides.TextSide()
        side = text_sides.read(model.directory(self.baseline),
                               model.published_labels(self.baseline))
        own = self.data.max_length
        if side.max_length is not None:
            if own not in (None, side.max_length):
                raise ValueError(
                    "--max_length must be that of the texts the baseline was trained "
                    f"on, {side.max_length}. Received: --max_length={own}, "
                    f"--baseline_dir={self.baseline}")
            own = side.max_length
        default = type(self).__dataclass_fields__["model"].default
        if side.tokenizer is not None and self.model != default:
            other = data.tokenizer_from(model.directory(self.model))
            if not text_sides.same_ids(other, side.tokenizer):
                raise ValueError(
                    "The baseline's tokenizer must be the checkpoint's, if one is "
                    f"named. Received: --model_dir={self.model} of {other.vocab_size} "
                    f"entries, --baseline_dir={self.baseline} of other "
                    f"{side.tokenizer.vocab_size}")
        return dataclasses.replace(
            self, data=dataclasses.replace(self.data, max_length=own)), side

    def _context(self, dataset: Dataset, recipe: compress.Recipe
                 ) -> tuple[compress.Context, list[str]]:
        """What the passes may use, and a list that gets the notes of latency tables."""
        notes: list[str] = []
        lengths, as_is = dataset.report["dev"].lengths, self.tables.latency_tables_as_is
        timer = None if as_is else StructureTimer(
            lengths, scheme=recipe.exports[-1], length=self.exports.export_length,
            num_threads=self.measuring.num_threads, head=dataset.task.head(),
            **(timing.SMOKE if self.measuring.smoke else {}))
        costs_of = costs.costs(
            lengths, num_threads=self.measuring.num_threads, timer=timer,
            tables=self.tables.latency_tables, as_is=as_is, note=notes.append,
            head=dataset.task.head(),
            retimed=Path(self.out_dir) / run_dir.STATE / "retimed"
            if self.tables.retime else None)
        return compress.Context(
            task=dataset.task, train=dataset.train, dev=dataset.choose,
            settings=self.training_settings(), resources={
                "tokenizer": dataset.tokenizer, "costs": costs_of}), notes


def _fields(record: Options) -> dict[str, Any]:
    """The fields of a record as JSON has them, but for what a second run may change."""
    return {name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(record).items() if name != "retime"}
