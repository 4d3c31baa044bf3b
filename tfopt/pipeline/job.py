"""A whole run: fine-tune, compress by a recipe, export, measure, report.

    job = tfopt.Job(model="bert_dir", train="train.tsv", dev="dev.tsv", recipe="int8",
                    out_dir="runs/mine")
    result = job.run()
    result.bundle.predict(["where is my parcel?"])

The same job goes on where it was stopped. Its directory is a bundle (`tfopt.serve`).
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

from tfopt import compress, data, model, report
from tfopt.backend import keras
from tfopt.data import tokenizer as tokenizers
from tfopt.measure.structures import StructureTimer
from tfopt.pipeline import (
    costs,
    measuring,
    publishing,
    recipes,
    run_dir,
    stages,
    timing,
)
from tfopt.pipeline import identity as identities
from tfopt.pipeline import text_side as text_sides
from tfopt.pipeline.checks import (
    check_calibrated,
    check_trained_for,
    check_vocabulary,
)
from tfopt.pipeline.dataset import Dataset
from tfopt.pipeline.fine_tuning import FineTuning, of_checkpoint
from tfopt.pipeline.option import Options
from tfopt.pipeline.options import Tables, Targets
from tfopt.pipeline.run_options import RunOptions
from tfopt.serve.bundle import Bundle
from tfopt.sparse import embedding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a job has left.

    Attributes:
        out_dir: its directory, a bundle.
        rows: all figures of the report.
        notes: what a reader of them must know.
        missed: a sentence for each target that was missed.
        reached: a sentence for each that was met, and on the speed gained.
        scheme: the export that `model.tflite` is of.
    """

    out_dir: Path
    rows: list[report.Row]
    notes: list[str]
    missed: list[str]
    reached: list[str]
    scheme: str

    @property
    def met(self) -> bool:
        """Whether every target was met, or there was none."""
        return not self.missed

    @property
    def report(self) -> str:
        """The report, as Markdown."""
        return (self.out_dir / publishing.REPORT).read_text(encoding="utf-8")

    @functools.cached_property
    def bundle(self) -> Bundle:
        """The model with its tokenizer and labels, opened when it is asked for."""
        return Bundle.open(self.out_dir)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job(RunOptions, FineTuning):
    """What to make of which checkpoint and files, and what must be reached.

    Attributes:
        out_dir: directory for all results.
        recipe: the name of one that comes along, a file, or a `Recipe`.
        baseline: a fine-tuned model, as `finetune` leaves it; None fine-tunes first.
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
        tpu = embedding.connect() if self.measuring.sparse_core else None
        job, side = self._by_baseline()
        recipe = job._recipe()
        dataset = job.dataset(side.tokenizer, side.task.labels if side.task else None)
        dataset.log_notes()
        check_calibrated(recipe.exports, len(dataset.calibration), self.exports)
        if self.baseline is not None:
            check_trained_for(dataset.task, self.baseline, "--baseline_dir")
        context, table_notes = job._context(dataset, recipe)
        # The teacher, which may be the baseline, is there later.
        compress.check(dataclasses.replace(recipe, distillation=None), context)
        teacher = job.load_teacher(recipe.distillation)
        as_is = self.tables.latency_tables_as_is
        if as_is or compress.names_layers(recipe):  # mistakes are found before training
            start = model.load(self.baseline or self.model)
            compress.check_layers(recipe, start)
            if as_is:  # nothing is timed
                context.get("costs")(model.config_of(start))
        identity = job.identity() | {"recipe": json.loads(recipe.to_json())}
        with run_dir.claim(self.out_dir, identity) as out:
            return _Road(job, recipe, dataset, identity, out, tpu, table_notes,
                         teacher).go(context)

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
        return dataclasses.replace(
            recipe, distillation=self.teacher.distillation(recipe.distillation))

    def _by_baseline(self) -> tuple[Job, text_sides.TextSide]:
        """The job that reads texts as its baseline does, and what this brings for it.

        Raises:
            ValueError: tokenizer or length are given otherwise.
        """
        if self.baseline is None:
            return self, text_sides.TextSide()
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


@dataclasses.dataclass(frozen=True)
class _Road:
    """A job on its way, in a directory that it has claimed."""

    job: Job
    recipe: compress.Recipe
    dataset: Dataset
    identity: dict[str, Any]
    out: Path
    tpu: Any
    table_notes: list[str]
    teacher: keras.Model | None

    def go(self, context: compress.Context) -> Result | None:
        """Goes from stage to stage."""
        job, recipe, dataset, out = self.job, self.recipe, self.dataset, self.out
        baseline = self._baseline()
        before = model.load(baseline)
        job.check_length(before)
        check_vocabulary(before, dataset.tokenizer)
        context = job.with_teacher(context, dataset, recipe.distillation,
                                   out / run_dir.STATE, self.teacher or before)
        notes = stages.compress_model(job, recipe, dataset, context, before, out,
                                      self.identity, self.table_notes)
        if run_dir.is_helper():
            return None
        compressed = model.load(out / "keras")
        own = stages.as_read_by(job, out / "keras", dataset)
        files, said, met = stages.export(job, recipe, own, compressed, out,
                                         job.targets.max_accuracy_drop)
        served, of_served = stages.serve(recipe, compressed, out)
        whole = stages.unpruned(job, recipe, dataset, before, compressed, out)
        rows, by_class = measuring.measure(job, dataset, own, baseline, before, served,
                                           whole, files)
        if self.tpu:
            rows += measuring.on_sparse_core(self.tpu, job, dataset, baseline)
        sentence, aim_met = costs.verdict(recipe, rows, list(whole), recipe.exports[-1],
                                          job.tables)
        missed, reached = ([], sentence) if aim_met else (sentence, [])
        if job.targets.max_accuracy_drop is not None:
            budget = f"--max_accuracy_drop={job.targets.max_accuracy_drop:g} was"
            where = f"{out / publishing.REPORT} says what was reached."
            if met:
                reached = [f"{budget} met; {where}", *reached]
            else:
                missed = [f"{budget} not met; {where}", *missed]
        notes = [*own.notes, *publishing.on_the_epoch(job, dataset, out), *notes,
                 *said, *of_served, *sentence, *timing.on_the_spread(rows)]
        publishing.publish(out, recipe, own, rows, by_class, notes, files,
                           self.identity, job.measuring.num_threads)
        run_dir.finish(out)
        return Result(out_dir=out, rows=rows, notes=notes, missed=missed,
                      reached=reached, scheme=recipe.exports[-1])

    def _baseline(self) -> Path:
        """Directory of the baseline that is named, or that is fine-tuned now."""
        if self.job.baseline is not None:
            return model.directory(self.job.baseline)
        directory = self.out / "baseline"
        self.job.fill(directory, self.dataset, self.identity, {
            "state_dir": self.out / run_dir.STATE / "baseline",
            "log_dir": self.out / "logs"})
        return directory
