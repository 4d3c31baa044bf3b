"""One way to run any artifact: a `.tflite` file, or a directory with a Keras model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from tfopt.export.interpreter import Interpreter
from tfopt.types import INPUT_NAMES, PathLike

TFLITE = ".tflite"


class Runner(Protocol):
    """What computes logits from token ids."""

    def run(self, ids: Sequence[int], first_length: int | None = None) -> np.ndarray:
        """One example: logits <float32>[C]."""

    def logits(self, ids: Sequence[Sequence[int]],
               first_lengths: Sequence[int]) -> np.ndarray:
        """N examples: logits <float32>[N, C]."""


class KerasRunner:
    """A Keras model as most people serve it: a `tf.function` of open length.

    Args:
        path: a directory that `tfopt.model.load` takes.
    """

    def __init__(self, path: PathLike):
        from tfopt import model
        from tfopt.backend import tf

        self._model = model.load(path)
        self._serve = tf.function(
            lambda inputs: self._model(inputs, training=False),
            input_signature=[{name: tf.TensorSpec([None, None], tf.int32, name=name)
                              for name in INPUT_NAMES}])

    def run(self, ids: Sequence[int], first_length: int | None = None) -> np.ndarray:
        """Computes one example: logits <float32>[C]."""
        first = len(ids) if first_length is None else first_length
        return self._serve(_inputs([ids], [first]))[0].numpy()

    def logits(self, ids: Sequence[Sequence[int]],
               first_lengths: Sequence[int]) -> np.ndarray:
        """Computes N examples in batches of like length: logits <float32>[N, C]."""
        order = np.argsort([len(i) for i in ids], kind="stable")
        results: list = [None] * len(ids)
        for part in np.array_split(order, max(1, len(order) // 32)):
            batch = self._serve(_inputs([ids[i] for i in part],
                                        [first_lengths[i] for i in part])).numpy()
            for i, row in zip(part, batch, strict=True):
                results[i] = row
        return np.stack(results)


def open_artifact(path: PathLike, num_threads: int | None = None) -> Runner:
    """Opens a `.tflite` file, or a directory with a Keras model, by its name.

    Args:
        path: of the artifact.
        num_threads: of a `.tflite`, for each request. TensorFlow's are fixed when its
            process starts, by TF_NUM_INTRAOP_THREADS.

    Returns:
        Its runner.

    Raises:
        ValueError: there is no such artifact, or it cannot be read.
    """
    if Path(path).suffix == TFLITE:
        return Interpreter(path, num_threads=num_threads)
    return KerasRunner(path)


def _inputs(ids, first_lengths) -> dict[str, np.ndarray]:
    length = max(map(len, ids))
    values = np.zeros([3, len(ids), length], np.int32)
    for row, (example, first) in enumerate(zip(ids, first_lengths, strict=True)):
        values[0, row, :len(example)] = example
        values[1, row, :len(example)] = 1
        values[2, row, first:len(example)] = 1
    return dict(zip(INPUT_NAMES, values, strict=True))
