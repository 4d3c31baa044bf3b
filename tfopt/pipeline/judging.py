"""How right an artifact is on a split: a Keras model, or the bytes of a `.tflite`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tfopt import model, tasks
from tfopt.backend import keras
from tfopt.measure import runners
from tfopt.pipeline.splits import Split


def outputs_of(artifact: keras.Model | bytes, part: Split, num_threads: int = 2
               ) -> np.ndarray:
    """What an artifact gives for a split: <float32>[N, outputs]."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        if isinstance(artifact, bytes):
            path /= "model.tflite"
            path.write_bytes(artifact)
        else:
            model.save(artifact, path)
        runner = runners.open_artifact(path, num_threads, part.encoded.pad_id,
                                       known=True)
        return runner.logits(part.encoded.ids, part.encoded.first_lengths)


def value_of(artifact: keras.Model | bytes, task: tasks.Task, part: Split,
             num_threads: int = 2) -> float:
    """The task's monitored metric of an artifact on a split.

    Where the task has a threshold, it is this artifact's, chosen by folds.
    """
    return task.value(task.fitted_quality(outputs_of(artifact, part, num_threads),
                                          part.targets))


def fitted(task: tasks.Task, artifact: keras.Model | bytes, part: Split) -> tasks.Task:
    """The task with what an artifact's answers on a split choose, such as a threshold.

    Args:
        task: of the artifact.
        artifact: a Keras model, or the bytes of a `.tflite`.
        part: examples that it did not learn from.

    Returns:
        It; itself, and the artifact is not run, where there is nothing to choose.
    """
    if not task.fitted_fields:
        return task
    return task.fitted(outputs_of(artifact, part), part.targets)


def judge_on(task: tasks.Task, part: Split, num_threads: int = 2
             ) -> Callable[[bytes], float]:
    """What tells the monitored value of a `.tflite`'s bytes on a split."""
    return lambda contents: value_of(contents, task, part, num_threads)
