"""What training minimizes: outputs and targets -> loss and metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tfopt.backend import keras, tf
from tfopt.train.distill import losses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """A loss with the metrics shown beside it.

    Attributes:
        loss: makes the Keras loss of (targets <int32>[B] or <float32>[B], outputs
            <float>[B, C]).
        metrics: makes the list of Keras metrics of the same.
        monitor: name of the metric by which an epoch is the best, and whether "higher"
            or "lower" is better.
        hard_loss: (outputs, targets) -> that loss of each example <float>[B], 0 where
            there is no target (`types.is_labelled`).
        soft_loss: (outputs, teacher's outputs, temperature) -> how far a student is
            from its teacher <float>[B].
    """

    loss: Callable[[], keras.losses.Loss]
    metrics: Callable[[], list]
    monitor: tuple[str, str] = ("accuracy", "higher")
    hard_loss: Callable[[Any, Any], Any] = losses.hard
    soft_loss: Callable[[Any, Any, float], Any] = losses.soft

    @property
    def reads_layers(self) -> bool:
        """Whether it reads more than the outputs, and so all tokens of all layers."""
        return False

    def prepare(self, model: keras.Model, precision: str = "float32") -> keras.Model:
        """Makes of a model the one to compile and fit; here, it is the same.

        Args:
            model: functional, to outputs <float>[B, C].
            precision: the policy it computes by.

        Returns:
            A functional model of the same layers.
        """
        return model

    def trained_variables(self, prepared: keras.Model) -> list[tf.Variable]:
        """The variables that the optimizer moves, in a model from `prepare`."""
        return prepared.trainable_variables


def cross_entropy() -> Objective:
    """Cross-entropy of the softmax of the logits, with accuracy."""
    return Objective(
        loss=lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=lambda: [keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
