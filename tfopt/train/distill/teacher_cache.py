"""A teacher's logits of a whole transfer set, computed once and kept on disk.

(teacher, batches) -> batches that carry its logits: a step then costs what one without
a teacher does, and the teacher may read the texts by a tokenizer of its own. For
outputs alone: hidden states would fill a disk.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from absl import logging

from tfopt import checks
from tfopt.backend import keras, tf
from tfopt.train.distill import answers
from tfopt.train.distill.logits_file import MOST, LogitsFile
from tfopt.types import INPUT_NAMES, BatchSource, PathLike

_NOTED_S = 10.0  # seconds between two notes of how far the teacher is


@runtime_checkable
class Examples(BatchSource, Protocol):
    """Batches whose examples can be distinguished (`data.Batches` is one)."""

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, <int>[N]."""

    def __len__(self) -> int:
        """N."""

    def fingerprint(self) -> str:
        """A hash of all examples."""

    def each_once(self, first: int = 0) -> Iterator[tuple[np.ndarray, Any]]:
        """Each example once, in an order that stays: its number <int>[B], and inputs.

        Args:
            first: examples to leave out at the beginning.
        """

    def with_teacher_logits(self, logits: Any) -> Examples:
        """The same batches, with logits beside the targets.

        Args:
            logits: <float>[N, C]; or of all tokens of all examples, <float>[tokens, C].
        """


def with_cached_logits(batches: BatchSource, teacher: keras.Model, directory: PathLike,
                       *, read_as: BatchSource | None = None,
                       classes: bool = True) -> Examples:
    """Adds a teacher's logits to batches, from a file where they are known.

    The file's name is a hash of the teacher, by its weights, and the examples, by the
    token ids that it reads; so that a directory may serve many runs. It is written
    little by little, and a run that was killed goes on with it.

    Args:
        batches: what to learn from.
        teacher: from the inputs that it reads to logits <float>[N, C], or [N, T, C].
        directory: of the files.
        read_as: the same examples in the same order, as the teacher reads them; None
            where it reads those of `batches`.
        classes: whether outputs are of classes, so that the logarithm is taken where
            they are probabilities.

    Returns:
        The same batches; they carry the logits.

    Raises:
        ValueError: the batches do not distinguish their examples, or are not as many as
            those that the teacher reads; or it gives what is no finite number, or none
            that float16 can hold.
    """
    read = batches if read_as is None else read_as
    for source in (batches, read):
        if not isinstance(source, Examples):
            raise ValueError("Logits are kept of `data.Batches`, which distinguishes "
                             f"its examples. Received: {type(source).__name__}")
    assert isinstance(batches, Examples) and isinstance(read, Examples)  # for mypy
    per_token = len(teacher.output_shape) > 2
    if len(read) != len(batches) or per_token and read is not batches:
        raise ValueError(
            "A teacher that reads by a tokenizer of its own must read the same examples"
            f", and give an output for each. Received: {len(read)} examples for "
            f"{len(batches)}, outputs of shape {teacher.output_shape}")
    file = LogitsFile(
        directory, {"teacher": hash_of(teacher), "texts": read.fingerprint(),
                    "classes": classes},
        read.lengths if per_token else np.ones(len(read), np.int64),
        teacher.output_shape[-1])
    logits = file.whole()
    if logits is None:
        _fill(file, teacher, read, classes)
        logits = file.whole()
    return batches.with_teacher_logits(logits)


def hash_of(teacher: keras.Model) -> str:
    """A hash of a model's weights."""
    digest = hashlib.sha256()
    for weight in teacher.get_weights():
        digest.update(str(weight.shape).encode())
        digest.update(np.ascontiguousarray(weight).data)
    return digest.hexdigest()


def _fill(file: LogitsFile, teacher: keras.Model, examples: Examples, classes: bool
          ) -> None:
    """Has the teacher read what it has not read yet."""
    answer = tf.function(lambda inputs: teacher(inputs, training=False),
                         reduce_retracing=True)
    with file.open() as (stream, done):
        if done:
            logging.info("The teacher has read %d of %d examples before", done,
                         len(examples))
        logging.info("The teacher reads %d examples, once", len(examples) - done)
        noted = begun = time.monotonic()
        before = done
        for index, inputs in examples.each_once(done):
            outputs = _as_logits(answer(inputs).numpy(), teacher.name, file, classes)
            counts = ([1] * len(index) if outputs.ndim == 2 else
                      tf.reduce_sum(inputs[INPUT_NAMES[1]], axis=1).numpy())
            for example, rows, count in zip(index, outputs, counts, strict=True):
                file.write(stream, example, rows if rows.ndim == 1 else rows[:count])
            done += len(index)
            now = time.monotonic()
            if now - noted > _NOTED_S:
                file.note(stream, done)
                left = (now - begun) / (done - before) * (len(examples) - done)
                logging.info("The teacher has read %d of %d examples, %.0f s left",
                             done, len(examples), left)
                noted = now
        file.note(stream, done)


def _as_logits(outputs: np.ndarray, name: str, file: LogitsFile, classes: bool
               ) -> np.ndarray:
    """Outputs of a batch as they are kept; the first batch tells what they are."""
    outputs = np.asarray(outputs, np.float32)
    answers.check_finite(outputs, name)
    if file.logarithms is None:
        file.logarithms = classes and checks.are_probabilities(outputs)
        if file.logarithms:
            answers.say_so(name)
    if file.logarithms:
        if not checks.are_probabilities(outputs):
            raise ValueError(
                "A teacher must give probabilities for all texts or for none. Received:"
                f" {name!r}, which gave them for the first ones, and then "
                f"{outputs.reshape([-1, outputs.shape[-1]])[0, :4].tolist()}")
        outputs = np.log(np.maximum(outputs, answers.LEAST))
    largest = float(np.abs(outputs).max())
    if largest > MOST:
        raise ValueError("Logits that are kept must be numbers that float16 holds, up "
                         f"to {MOST:g}. Received: {name!r}, which gives {largest:g}")
    return outputs
