"""What training minimizes: logits and class ids -> loss and metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tfopt.backend import keras, tf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """A loss with the metrics shown beside it.

    Attributes:
        loss: makes the Keras loss of (class ids <int32>[B], logits <float>[B, C]).
        metrics: makes the list of Keras metrics of the same.
    """

    loss: Callable[[], keras.losses.Loss]
    metrics: Callable[[], list]

    @property
    def reads_layers(self) -> bool:
        """Whether it reads more than the logits, and so all tokens of all layers."""
        return False

    def prepare(self, model: keras.Model, precision: str = "float32") -> keras.Model:
        """Makes of a model the one to compile and fit; here, it is the same.

        Args:
            model: functional, to logits <float>[B, C].
            precision: the policy it computes by.

        Returns:
            A functional model of the same layers.
        """
        return model

    def learned(self, prepared: keras.Model) -> list[tf.Variable]:
        """The variables that the optimizer moves, in a model from `prepare`."""
        return prepared.trainable_variables


def cross_entropy() -> Objective:
    """Cross-entropy of the softmax of the logits, with accuracy."""
    return Objective(
        loss=lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=lambda: [keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
