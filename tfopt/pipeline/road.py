"""A job whose files are read: what is left is work, stage by stage.

What each stage leaves is in the job's directory, so that a killed run goes on there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfopt import compress, model
from tfopt.backend import keras
from tfopt.pipeline import (
    costs,
    measuring,
    publishing,
    reference,
    run_dir,
    stages,
    timing,
    trials,
)
from tfopt.pipeline.checks import check_vocabulary
from tfopt.pipeline.dataset import Dataset
from tfopt.pipeline.result import Result
from tfopt.pipeline.teachers import LoadedTeacher

if TYPE_CHECKING:
    from tfopt.pipeline.job import Job

# The figures of an epoch, such as val_accuracy; what it raises ends the training.
Watch = Callable[[Mapping[str, float]], object]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """What a road has made, before it is measured and published.

    Attributes:
        job: as it was run, with what trials have found.
        recipe: as it was run.
        dataset: as the baseline reads it, and `own`: as the exports do.
        directory: of the baseline.
        before: the baseline.
        compressed: the model that was made of it.
        files: export -> its `.tflite`.
        notes: sentences on all that was done.
        met: whether the budget, if there is one, holds for each export.
    """

    job: Job
    recipe: compress.Recipe
    dataset: Dataset
    own: Dataset
    directory: Path
    before: keras.Model
    compressed: keras.Model
    files: dict[str, Path]
    notes: list[str]
    met: bool


@dataclasses.dataclass(frozen=True)
class Road:
    """A job whose files are read: what is left is work.

    Attributes:
        job: it, reading texts as its baseline does.
        recipe: with the job's targets.
        dataset: as the baseline reads it.
        identity: of the run.
        context: what the passes may use.
        table_notes: gets notes of latency tables.
        teacher: that is named, if one is.
    """

    job: Job
    recipe: compress.Recipe
    dataset: Dataset
    identity: dict[str, Any]
    context: compress.Context
    table_notes: list[str]
    teacher: LoadedTeacher | None

    def go(self, out: Path, tpu: Any = None) -> Result | None:
        """Goes from stage to stage, in a directory that is claimed.

        Args:
            out: the directory.
            tpu: whose SparseCore looks tokens up, too.
        """
        made = self.make(out)
        return None if made is None else self.finish(made, out, tpu)

    def make(self, out: Path, watch: Watch | None = None) -> Made | None:
        """Goes up to the exports; None to a worker that computes along.

        Args:
            out: the directory, which is claimed.
            watch: is told of each epoch of a pass that trains.
        """
        job, recipe, dataset = self.job, self.recipe, self.dataset
        baseline = self.baseline(out, self.identity)
        before = model.load(baseline)
        job.check_length(before)
        check_vocabulary(before, dataset.tokenizer)
        dataset = reference.completed(dataset, baseline)
        context = dataclasses.replace(self.context, task=dataset.task, watch=watch)
        teacher = self.teacher or LoadedTeacher(model=before)
        job, distils, dataset = trials.chosen(job, recipe.distillation, dataset,
                                              teacher, out / run_dir.STATE)
        recipe = dataclasses.replace(recipe, distillation=distils)
        context = job.with_teacher(context, dataset, distils, out / run_dir.STATE,
                                   teacher, compress.teaches_states(recipe))
        notes = stages.compress_model(job, recipe, dataset, context, before, out,
                                      self.identity, self.table_notes)
        if run_dir.is_helper():
            return None
        compressed = model.load(out / "keras")
        dataset.task.check_outputs(compressed.output_shape)
        own = stages.as_read_by(job, out / "keras", dataset)
        files, said, met = stages.export(job, recipe, own, compressed, out,
                                         job.targets.max_accuracy_drop)
        return Made(job=job, recipe=recipe, dataset=dataset, own=own,
                    directory=baseline, before=before, compressed=compressed,
                    files=files, notes=[*notes, *said], met=met)

    def finish(self, made: Made, out: Path, tpu: Any = None) -> Result:
        """Measures and publishes what was made.

        Args:
            made: of `make`, in the same directory.
            out: the directory.
            tpu: as of `go`.
        """
        job, recipe, own = made.job, made.recipe, made.own
        served, of_served = stages.serve(recipe, made.compressed, out)
        whole = stages.unpruned(job, recipe, made.dataset, made.before,
                                made.compressed, out)
        measured = measuring.measure(job, made.dataset, own, made.directory,
                                     made.before, served, whole, made.files)
        rows = measured.rows
        if tpu:
            rows += measuring.on_sparse_core(tpu, job, made.dataset, made.directory)
        sentence, aim_met = costs.verdict(recipe, rows, list(whole), recipe.exports[-1],
                                          job.tables)
        missed, reached = ([], sentence) if aim_met else (sentence, [])
        if job.targets.max_accuracy_drop is not None:
            budget = f"--max_accuracy_drop={job.targets.max_accuracy_drop:g} was"
            where = f"{out / publishing.REPORT} says what was reached."
            if made.met:
                reached = [f"{budget} met; {where}", *reached]
            else:
                missed = [f"{budget} not met; {where}", *missed]
        notes = [*own.notes, *publishing.on_the_epoch(job, made.dataset, out),
                 *made.notes, *of_served, *sentence, *timing.on_the_spread(rows)]
        publishing.publish(out, recipe, own, measured, notes, made.files, self.identity,
                           job.measuring.num_threads)
        run_dir.finish(out)
        return Result(out_dir=out, rows=rows, notes=notes, missed=missed,
                      reached=reached, scheme=recipe.exports[-1])

    def baseline(self, out: Path, identity: dict[str, Any]) -> Path:
        """Directory of the baseline that is named, or that is fine-tuned now.

        Args:
            out: directory of the run.
            identity: of the run.
        """
        own = self.job.baseline
        if own is not None and (self.dataset.task.learns_from_labels or (
                model.directory(own) / model.KERAS_FILE).is_file()):
            return model.directory(own)
        directory = out / "baseline"
        self.job.fill(directory, self.dataset, identity, {
            "state_dir": out / run_dir.STATE / "baseline", "log_dir": out / "logs"})
        return directory
