"""One way to run any artifact: a `.tflite` file, or a directory with a Keras model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from tfopt import inputs
from tfopt.export.interpreter import Interpreter
from tfopt.types import PathLike

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
        pad_id: of the tokenizer; stands behind the shorter texts of a batch.
    """

    def __init__(self, path: PathLike, pad_id: int = 0):
        from tfopt import model
        from tfopt.backend import tf

        self._model = model.load(path)
        self._names = self._model.input_names
        self._pad_id = pad_id
        self._serve = tf.function(
            lambda inputs: self._model(inputs, training=False),
            input_signature=[{name: tf.TensorSpec([None, None], tf.int32, name=name)
                              for name in self._names}])

    def run(self, ids: Sequence[int], first_length: int | None = None) -> np.ndarray:
        """Computes one example: logits <float32>[C]."""
        first = len(ids) if first_length is None else first_length
        return self._batch([ids], [first])[0]

    def logits(self, ids: Sequence[Sequence[int]],
               first_lengths: Sequence[int]) -> np.ndarray:
        """Computes N examples in batches of like length: logits <float32>[N, C]."""
        order = np.argsort([len(i) for i in ids], kind="stable")
        results: list = [None] * len(ids)
        for part in np.array_split(order, max(1, len(order) // 32)):
            batch = self._batch([ids[i] for i in part],
                                [first_lengths[i] for i in part])
            for i, row in zip(part, batch, strict=True):
                results[i] = row
        return np.stack(results)

    def _batch(self, ids, first_lengths) -> np.ndarray:
        return self._serve(inputs.build(ids, first_lengths, self._names,
                                        pad_id=self._pad_id)).numpy()


def open_artifact(path: PathLike, num_threads: int | None = None,
                  pad_id: int = 0, known: bool = False) -> Runner:
    """Opens a `.tflite` file, or a directory with a Keras model, by its name.

    Args:
        path: of the artifact.
        num_threads: of a `.tflite`, for each request. TensorFlow's are fixed when its
            process starts, by TF_NUM_INTRAOP_THREADS.
        pad_id: of the tokenizer.
        known: whether it is known where a `.tflite` comes from, or this process may
            end with it (`export.interpreter.Interpreter`).

    Returns:
        Its runner.

    Raises:
        ValueError: there is no such artifact, or it cannot be read.
    """
    if Path(path).suffix == TFLITE:
        return Interpreter(path, num_threads=num_threads, pad_id=pad_id, known=known)
    return KerasRunner(path, pad_id)
