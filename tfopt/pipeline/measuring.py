"""Artifacts -> the rows of a report: quality on each split, sizes, times in turn."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from tfopt import data, model, report, tasks
from tfopt.backend import keras
from tfopt.measure import cost, runners
from tfopt.model.anatomy import Anatomy
from tfopt.pipeline import stages, timing
from tfopt.pipeline.dataset import Dataset
from tfopt.pipeline.fine_tuning import FineTuning
from tfopt.sparse import embedding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What was found of artifacts.

    Attributes:
        rows: of the report.
        by_class: figures of each class.
        outputs: artifact -> split -> what it gives, <float>[N, outputs].
        tasks: artifact -> the task as it is answered by, with the artifact's own
            threshold where it has one.
    """

    rows: list[report.Row] = dataclasses.field(default_factory=list)
    by_class: dict[str, Any] = dataclasses.field(default_factory=dict)
    outputs: dict[str, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)
    tasks: dict[str, tasks.Task] = dataclasses.field(default_factory=dict)

    def judge(self, name: str, runner: runners.Runner, dataset: Dataset) -> None:
        """Adds how right an artifact is on each split.

        What the task chooses by answers, such as a threshold, is chosen on the part
        held out of train, or on dev where none is; dev is then judged by folds.

        Args:
            name: of the artifact.
            runner: of it.
            dataset: as the artifact reads it.
        """
        outputs = {split: runner.logits(part.encoded.ids, part.encoded.first_lengths)
                   for split, part in dataset.report.items()}
        task, guard, classes = dataset.task, dataset.guard, {}
        by_dev = guard is dataset.report["dev"]
        if task.fitted_fields:
            task = task.fitted(outputs["dev"] if by_dev else runner.logits(
                guard.encoded.ids, guard.encoded.first_lengths), guard.targets)
        for split, part in dataset.report.items():
            judged = (task.fitted_quality if by_dev and split == "dev"
                      else task.quality)(outputs[split], part.targets)
            if report.BASELINE in self.outputs or name == report.BASELINE:
                first = self.outputs.get(report.BASELINE, outputs)
                judged |= task.agreement(outputs[split], first[split])
            self.rows.extend(report.rows(name, judged, split,
                                         (*task.metrics, *task.compared)))
            classes[split] = task.by_class(outputs[split], part.targets)
        self.outputs[name], self.tasks[name] = outputs, task
        if any(classes.values()):
            self.by_class[name] = classes


def measure(tuning: FineTuning, dataset: Dataset, own: Dataset, baseline: Path,
            before: keras.Model, served: dict[str, Path], whole: dict[str, Path],
            files: dict[str, Path]) -> Measured:
    """Measures accuracy, size and time.

    Args:
        tuning: how to time.
        dataset: as the baseline reads it.
        own: as the exports do.
        baseline: directory of the model before.
        before: that model.
        served: name of the compressed Keras model -> its directory, if it is served.
        whole: name of an export of the baseline -> its file.
        files: name of an export -> its file.

    Returns:
        The rows of the report, figures of each class, and what the artifacts give.
    """
    artifacts = {report.BASELINE: baseline, **served, **whole, **files}
    num_threads = tuning.measuring.num_threads
    found = Measured()
    for name, path in artifacts.items():
        reader = own if name in served | files else dataset
        runner = runners.open_artifact(path, num_threads, reader.tokenizer.pad_id,
                                       known=True)
        found.judge(name, runner, reader)

    counts = {report.BASELINE: cost.of_model(before)} | {
        name: stages.count(model.load(path)) for name, path in served.items()} | {
        name: cost.of_tflite(path) for name, path in (whole | files).items()}
    for name, counted in counts.items():
        path = artifacts[name]
        file = path / model.KERAS_FILE if path.is_dir() else path
        found.rows.extend(report.rows(name, cost.of_file(file) | counted | cost.ratios(
            counted, counts[report.BASELINE])))

    logging.info("Timing %d artifacts in turn", len(artifacts))
    taken = timing.times(artifacts, own.report["dev"].encoded, num_threads=num_threads,
                  max_tokens=tuning.exports.export_length
                  or model.config_of(before).max_positions,
                  smoke=tuning.measuring.smoke)
    for name, figures in taken.items():
        speedup = (taken[report.BASELINE]["latency_p50_ms"]
                   / figures["latency_p50_ms"])
        found.rows.extend(report.rows(name, figures | {"speedup": speedup}))
    return found


def on_sparse_core(tpu: Any, tuning: FineTuning, dataset: Dataset, baseline: Path
                   ) -> list[report.Row]:
    """Judges the baseline with its tokens looked up by the SparseCore of a TPU."""
    with tpu.scope():
        keras_model = model.load(baseline)
    table = Anatomy.of(keras_model).embeddings.token.name
    run = embedding.served(keras_model, table, tpu, tuning.batching.batch_size,
                           dataset.max_length)
    rows = []
    for split, part in dataset.report.items():
        (order, inputs), = data.Batches(
            part.encoded, batch_size=len(part.targets), pad_to=dataset.max_length
            ).each_once()
        rows += report.rows("keras_sparse_core", dataset.task.fitted_quality(
            run(inputs), [part.targets[i] for i in order]), split,
            dataset.task.metrics)
    return rows
