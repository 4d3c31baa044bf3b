"""What a teacher answers, looked at before it teaches: finite, and logits.

A softmax at a teacher's end does no harm: the logarithm of a probability is its logit
but for a number that all of a row have in common, which softmax does not see.
"""

from __future__ import annotations

import numpy as np
from absl import logging

from tfopt import checks
from tfopt.backend import keras, tf
from tfopt.train.objective import Objective
from tfopt.types import BatchSource, shown

LEAST = float(np.finfo(np.float32).tiny)  # a probability of 0 has no logarithm


@keras.utils.register_keras_serializable(package="tfopt")
class Logarithm(keras.layers.Layer):
    """Probabilities <float>[..., C] -> their logarithms, in float32."""

    def call(self, probabilities):
        """The logarithms, of the same shape."""
        return tf.math.log(tf.maximum(tf.cast(probabilities, tf.float32), LEAST))


def takes_logarithms(of: Objective) -> bool:
    """Whether a teacher of an objective may give the probabilities of a softmax."""
    return of.logits and not of.target_rank


def to_logits(teacher: keras.Model, of: Objective,
              batches: BatchSource | None = None) -> keras.Model:
    """The teacher, or, where it ends in softmax, one that gives logarithms.

    Args:
        teacher: functional.
        of: the objective of the task, without a teacher.
        batches: of which it reads the first, for what its layers do not tell; None for
            what they tell.

    Returns:
        A model of the same layers.

    Raises:
        ValueError: it gives what is no number.
    """
    probabilities = takes_logarithms(of) and checks.ends_in_softmax(teacher)
    if batches is not None:
        first = next(iter(batches.dataset()))
        outputs = np.asarray(teacher(first[0] if isinstance(first, tuple) else first,
                                     training=False), np.float32)
        check_finite(outputs, teacher.name)
        probabilities = probabilities or (
            takes_logarithms(of) and checks.are_probabilities(outputs))
    if not probabilities:
        return teacher
    say_so(teacher.name)
    return keras.Model(teacher.inputs, Logarithm(dtype="float32")(teacher.outputs[0]),
                       name=teacher.name)


def say_so(name: str) -> None:
    """Says in the log that a teacher gives probabilities."""
    logging.info("The teacher %r gives probabilities: it teaches by their logarithms",
                 name)


def check_finite(outputs: np.ndarray, name: str) -> None:
    """Checks what a teacher gives for a batch.

    Args:
        outputs: <float>[B, ...].
        name: of the teacher, or its directory.

    Raises:
        ValueError: numbers are NaN or infinite.
    """
    finite = np.isfinite(outputs).reshape([len(outputs), -1]).all(axis=1)
    if not finite.all():
        raise ValueError(
            "A teacher must give finite numbers. Received: "
            f"{shown(name)}, which gives NaN or infinity for {np.sum(~finite)} of "
            f"{len(finite)} texts")
