"""One way to run any artifact: a `.tflite` file, or a directory with a Keras model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tfopt import inputs
from tfopt.export.interpreter import Interpreter
from tfopt.types import PathLike, shown

TFLITE = ".tflite"


class Runner(Protocol):
    """What computes logits from token ids.

    Attributes:
        outputs: C, logits of an example, or of a token.
    """

    @property
    def outputs(self) -> int:
        """C."""

    def run(self, ids: Sequence[int], first_length: int | None = None) -> np.ndarray:
        """One example: logits <float32>[C], or [T, C] of its tokens."""

    def logits(self, ids: Sequence[Sequence[int]],
               first_lengths: Sequence[int]) -> Any:
        """N examples, or none: logits <float32>[N, C], or N times [T, C]."""


class KerasRunner:
    """A Keras model as most people serve it: a `tf.function` of open length.

    Args:
        path: a directory that `tfopt.model.load` takes.
        pad_id: of the tokenizer; stands behind the shorter texts of a batch.

    Attributes:
        outputs: C, logits of an example, or of a token.

    Raises:
        ValueError: the directory holds no model that can be read.
    """

    def __init__(self, path: PathLike, pad_id: int = 0):
        from tfopt import model
        from tfopt.backend import tf
        from tfopt.model.anatomy import Anatomy

        self._model = model.load(path)
        self._names = self._model.input_names
        self._pad_id = pad_id
        self.outputs = int(self._model.output_shape[-1])
        # A GPU answers ids and positions that a table has not with zeros.
        self._config = (model.config_of(self._model) if Anatomy.known(self._model)
                        else None)
        self._refusals = (tf.errors.InvalidArgumentError, ValueError)
        self._serve = tf.function(
            lambda inputs: self._model(inputs, training=False),
            input_signature=[{name: tf.TensorSpec([None, None], tf.int32, name=name)
                              for name in self._names}])

    def run(self, ids: Sequence[int], first_length: int | None = None) -> np.ndarray:
        """Computes one example: logits <float32>[C], or [T, C] of its tokens.

        Raises:
            ValueError: as `logits`.
        """
        first = len(ids) if first_length is None else first_length
        return self._batch([ids], [first])[0]

    def logits(self, ids: Sequence[Sequence[int]],
               first_lengths: Sequence[int]) -> Any:
        """Computes N examples in batches of like length.

        Args:
            ids: token ids of each.
            first_lengths: how many of them are of the first segment.

        Returns:
            Logits <float32>[N, C]; N times <float32>[T, C] of a head that reads all
            tokens, without padding.

        Raises:
            ValueError: an example has no token, more than the model has positions, or
                an id outside of its vocabulary.
        """
        if not len(ids):
            return np.zeros([0, self.outputs], np.float32)
        order = np.argsort([len(i) for i in ids], kind="stable")
        results: list = [None] * len(ids)
        for part in np.array_split(order, max(1, len(order) // 32)):
            batch = self._batch([ids[i] for i in part],
                                [first_lengths[i] for i in part])
            for i, row in zip(part, batch, strict=True):
                results[i] = row
        return inputs.together(results)

    def _batch(self, ids, first_lengths) -> list[np.ndarray]:
        values = inputs.build(ids, first_lengths, self._names, pad_id=self._pad_id)
        longest = max(map(len, ids))
        least, most = min(map(min, ids)), max(map(max, ids))
        if self._config is not None and (
                longest > self._config.max_positions or least < 0
                or most >= self._config.vocab_size):
            raise ValueError(
                f"The model has {self._config.max_positions} positions and "
                f"{self._config.vocab_size} words. Received: {longest} tokens, ids "
                f"{least} to {most}")
        try:
            found = self._serve(values).numpy()
        except self._refusals as error:
            said = str(getattr(error, "message", error))
            raise ValueError(
                "The model refuses the input. Received: "
                f"{longest} tokens, ids {least} to {most}: {shown(said)}") from error
        return [row if row.ndim == 1 else row[:len(own)]
                for row, own in zip(found, ids, strict=True)]


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
