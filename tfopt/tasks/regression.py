"""Regression: a text, or a pair, -> one number, such as how alike two sentences are.

Mean squared error; judged by its root, and by Pearson's and Spearman's correlations.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfopt.report import Metric
from tfopt.tasks import figures
from tfopt.tasks.base import Task, check_same_number

if TYPE_CHECKING:
    from tfopt.train.objective import Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regression(Task):
    """One number for each example, in the unit of the train set's labels."""

    monitor = ("rmse", "lower")
    label_form = "number"
    pipeline_tag = "text-classification"
    no_target = math.nan
    metrics = (Metric("rmse", "", "lower"), Metric("pearson", "", "higher"),
               Metric("spearman", "", "higher"))

    @classmethod
    def from_corpus(cls, corpus: Any, known_labels: Sequence[str] | None = None
                    ) -> Regression:
        """The task; it has no labels."""
        return cls()

    @property
    def outputs(self) -> int:
        """One."""
        return 1

    def targets(self, corpus: Any) -> list[float]:
        """The number of every example.

        Raises:
            ValueError: a label is no finite number; names file and line.
        """
        return figures.numbers_of(corpus, "a label")

    def objective(self) -> Objective:
        """Mean squared error."""
        from tfopt.backend import keras, tf
        from tfopt.train.objective import Objective
        from tfopt.types import is_labelled

        def hard_loss(outputs, targets):
            # Replaced before it is squared: a gradient of NaN would spoil the others'.
            known = is_labelled(targets)
            missing = tf.where(known, tf.cast(targets, outputs.dtype), outputs[:, 0])
            return (outputs[:, 0] - missing) ** 2

        return Objective(
            loss=keras.losses.MeanSquaredError,
            metrics=lambda: [keras.metrics.RootMeanSquaredError(name="rmse")],
            monitor=self.monitor, hard_loss=hard_loss,
            soft_loss=lambda outputs, teacher, temperature: (
                outputs[:, 0] - teacher[:, 0]) ** 2)

    def guess(self, outputs: Any) -> Any:
        """What the model gives, <float>[B]."""
        return outputs[:, 0]

    def example_loss(self, outputs: Any, targets: Any, visible: Any = None) -> Any:
        """The squared error of each example <float32>[B].

        Where there is no target, one is taken half a unit away from the output: of a
        Gaussian around this, the square of that loss's gradient is the Fisher
        information, while at the output itself it is 0.
        """
        from tfopt.backend import tf
        from tfopt.types import is_labelled

        found = tf.cast(outputs[:, 0], tf.float32)
        away = tf.stop_gradient(found) - 0.5
        return (found - tf.where(is_labelled(targets), tf.cast(targets, tf.float32),
                                 away)) ** 2

    def quality(self, outputs: np.ndarray, targets: Sequence[float]
                ) -> dict[str, float]:
        """Root of the mean squared error, and correlations.

        Args:
            outputs: <float>[N, 1].
            targets: N numbers.

        Returns:
            {rmse, in the unit of the targets; pearson, spearman in [-1, 1], 0 where
            one side has but one value}. Spearman's is Pearson's of ranks, of equal
            numbers their mean rank.

        Raises:
            ValueError: the numbers of examples differ, or there are none.
        """
        outputs = np.asarray(outputs, np.float64)
        wanted = np.asarray(targets, np.float64)
        check_same_number(outputs, wanted)
        found = outputs[:, 0]
        return {"rmse": float(np.sqrt(np.mean((found - wanted) ** 2))),
                "pearson": correlation(found, wanted),
                "spearman": correlation(ranks(found), ranks(wanted))}

    def decode(self, outputs: np.ndarray, encoded: Any = None) -> list[dict[str, Any]]:
        """{"score": the number} of each of <float>[N, 1]."""
        return [{"score": float(row[0])} for row in np.asarray(outputs)]


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's of <float>[N] and <float>[N]; 0 where one has but one value."""
    x, y = x - x.mean(), y - y.mean()
    size = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / size) if size else 0.0


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks <float>[N] from 0; of equal values, their mean."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts + 1) / 2)[places]
