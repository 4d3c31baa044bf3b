"""A teacher's logits of a whole train set, computed once and kept in a file.

(teacher, batches) -> batches that carry its logits: a step then costs what one without
a teacher does. For soft logits alone: hidden states would fill a disk.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from absl import logging

from tfopt.backend import keras, tf
from tfopt.files import read_arrays, write_whole
from tfopt.types import INPUT_NAMES, BatchSource, PathLike


@runtime_checkable
class Examples(BatchSource, Protocol):
    """Batches whose examples can be distinguished (`data.Batches` is one)."""

    def __len__(self) -> int:
        """N."""

    def fingerprint(self) -> str:
        """A hash of all examples."""

    def each_once(self) -> Iterator[tuple[np.ndarray, Any]]:
        """Each example once: its number <int>[B], and the inputs."""

    def with_teacher_logits(self, logits: np.ndarray) -> Examples:
        """The same batches, with logits beside the targets.

        Args:
            logits: <float>[N, C]; or of all tokens of all examples, <float>[tokens, C].
        """


def with_cached_logits(batches: BatchSource, teacher: keras.Model,
                       path: PathLike) -> Examples:
    """Adds a teacher's logits to batches, from a file where they are known.

    The file is of one teacher, by its weights, and one set of examples, by their token
    ids; of any other it is made anew, and the log says why.

    Args:
        batches: what to learn from.
        teacher: from their inputs to logits <float>[N, C], or [N, T, C].
        path: of the file, .npz; written whole or not at all.

    Returns:
        The same batches; they carry the logits.

    Raises:
        ValueError: the batches do not distinguish their examples.
    """
    if not isinstance(batches, Examples):
        raise ValueError("Logits are kept of `data.Batches`, which distinguishes its "
                         f"examples. Received: {type(batches).__name__}")
    path = Path(path)
    keys = {"teacher": _hash_of(teacher), "examples": batches.fingerprint()}
    logits = _read(path, keys)
    if logits is not None:
        return batches.with_teacher_logits(logits)
    logits = _compute(teacher, batches)
    carrying = batches.with_teacher_logits(logits)  # which looks at them
    contents = io.BytesIO()
    np.savez(contents, logits=logits, teacher=keys["teacher"],
             examples=keys["examples"])
    write_whole(path, contents.getvalue())
    return carrying


def _hash_of(teacher: keras.Model) -> str:
    digest = hashlib.sha256()
    for weight in teacher.get_weights():
        digest.update(str(weight.shape).encode())
        digest.update(np.ascontiguousarray(weight).data)
    return digest.hexdigest()


def _read(path: Path, keys: dict[str, str]) -> np.ndarray | None:
    """The logits of a file; None, and a line in the log, if they are not to be used."""
    if not path.exists():
        return None
    try:
        arrays = read_arrays(path)
        other = [f"{name} hash" for name, key in keys.items()
                 if str(arrays[name]) != key]
        if not other:
            return arrays["logits"]
        why = f"another {' and another '.join(other)} is asked for"
    except (OSError, ValueError, KeyError) as error:
        why = f"it cannot be read: {error}"
    logging.info("The teacher's logits are computed anew, since %s: %s", why, path)
    return None


def _compute(teacher: keras.Model, batches: Examples) -> np.ndarray:
    logging.info("The teacher reads %d examples, once", len(batches))
    answer = tf.function(lambda inputs: teacher(inputs, training=False),
                         reduce_retracing=True)
    if len(teacher.output_shape) == 2:
        logits = np.zeros([len(batches), teacher.output_shape[-1]], np.float32)
        for index, inputs in batches.each_once():
            logits[index] = answer(inputs)
        return logits
    rows: list = [None] * len(batches)
    for index, inputs in batches.each_once():
        counts = tf.reduce_sum(inputs[INPUT_NAMES[1]], axis=1).numpy()
        for place, row, count in zip(index, answer(inputs).numpy(), counts,
                                     strict=True):
            rows[place] = row[:count]
    return np.concatenate(rows)
