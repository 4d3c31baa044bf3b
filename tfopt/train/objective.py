"""What training minimizes: outputs and targets -> loss and metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tfopt import checks
from tfopt.backend import keras, tf
from tfopt.train.distill import losses
from tfopt.types import BatchSource


@dataclasses.dataclass(frozen=True, kw_only=True)
class Objective:
    """A loss with the metrics shown beside it.

    Attributes:
        loss: makes the Keras loss of (targets <int32>[B, ...] or <float32>[B, ...],
            outputs <float>[B, C]); `ExampleLoss` is one of `hard_loss`.
        metrics: makes the list of Keras metrics of the same.
        monitor: name of the metric by which an epoch is the best, and whether "higher"
            or "lower" is better.
        hard_loss: (outputs, targets) -> that loss of each example <float>[B], 0 where
            there is no target (`types.is_labelled`).
        soft_loss: (outputs, teacher's outputs, temperature) -> how far a student is
            from its teacher <float>[B]; or [B, T], of which the mean over visible
            tokens is taken.
        logits: whether outputs are logits, of which softmax or, with a row of targets,
            a sigmoid is taken.
        target_rank: axes of one example's target: 0 of a number, 1 of a row of them.
    """

    loss: Callable[[], keras.losses.Loss]
    metrics: Callable[[], list]
    monitor: tuple[str, str] = ("accuracy", "higher")
    hard_loss: Callable[[Any, Any], Any] = losses.hard
    soft_loss: Callable[[Any, Any, float], Any] = losses.soft
    logits: bool = False
    target_rank: int = 0

    def check(self, model: keras.Model, what: str = "A model") -> None:
        """Checks that what a model gives is what the loss is of.

        Args:
            model: to be trained, or to teach.
            what: how an error calls it.

        Raises:
            ValueError: it has several outputs, or gives probabilities, or one number,
                where logits of classes are asked for.
        """
        if self.logits:
            checks.check_logits(model, what, several=not self.target_rank)
        else:
            checks.check_one_output(model, what)

    def check_batches(self, train: BatchSource, model: keras.Model) -> None:
        """Checks batches for what their shapes tell.

        Args:
            train: to learn from.
            model: to be trained.

        Raises:
            ValueError: they have no targets and must, or targets of another shape.
        """
        spec = getattr(train.dataset(), "element_spec", None)
        if spec is None:  # of a source of somebody's own nothing is known
            return
        targets = spec[1] if isinstance(spec, tuple) and len(spec) > 1 else None
        if isinstance(targets, tuple):  # beside the targets, a teacher's logits
            targets = targets[0]
        if targets is None:
            if self.needs_targets:
                raise ValueError("Batches to train on must be of (inputs, targets). "
                                 f"Received: {spec}")
            return
        shape = getattr(targets, "shape", tf.TensorShape(None))
        if self.target_rank:
            # Batches without any target have -1 for each example.
            if shape.rank not in (None, 1 + self.target_rank) and (
                    self.needs_targets or shape.rank != 1):
                raise ValueError(
                    f"The target of each example must have {self.target_rank} "
                    f"{'axis' if self.target_rank == 1 else 'axes'}. Received: targets "
                    f"of shape {tuple(shape)}")
            return
        if shape.rank and shape.rank >= len(model.output_shape) and shape[-1] != 1:
            raise ValueError(
                "Targets must be class numbers <int>[B] (of one-hot rows, "
                "`tf.argmax(targets, -1)`), or one number for each example. Received: "
                f"targets of shape {tuple(shape)}")

    @property
    def needs_targets(self) -> bool:
        """Whether every batch must have targets."""
        return True

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


class ExampleLoss(keras.losses.Loss):
    """The Keras loss that is the mean of the losses of examples.

    Args:
        hard_loss: as of `Objective`.
    """

    def __init__(self, hard_loss: Callable[[Any, Any], Any]):
        super().__init__(name="loss")
        self._hard_loss = hard_loss

    def call(self, y_true, y_pred):
        """<float>[B]."""
        return self._hard_loss(y_pred, y_true)


def cross_entropy() -> Objective:
    """Cross-entropy of the softmax of the logits, with accuracy."""
    return Objective(
        loss=lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=lambda: [keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        logits=True,
    )
