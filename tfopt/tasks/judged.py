"""How good a task's answers are: figures, the one that decides, what service watches.

The half of a task that judges; `tasks.base` has the half that reads and trains.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np

from tfopt.report import Metric

Own = TypeVar("Own", bound="Judged")


class Signals(NamedTuple):
    """What a service watches of an answer; None where the task has no classes.

    Attributes:
        confidence: the probability of what is answered, in (0, 1].
        entropy: of the probabilities, in nats.
        label: that is answered; a tuple, maybe an empty one, of a task whose answers
            have several.
    """

    confidence: float | None = None
    entropy: float | None = None
    label: str | tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged(abc.ABC):
    """What judges answers.

    Some fields of a task may be chosen after training, by a model's answers on examples
    that it did not learn from: a threshold, say. `fitted_fields` names them, `fitted`
    chooses.

    Class attributes:
        monitor: name of the metric by which an epoch is the best and a budget holds,
            and whether "higher" or "lower" is better.
        metrics: what `quality` gives, in the order of a report; the monitor among them.
        fitted_fields: that are chosen by a trained model's answers.
        no_cascade: why a faster model cannot hand on what it is not sure of; "" where
            it can, by the highest probability of the softmax of the outputs.
    """

    monitor: ClassVar[tuple[str, str]]
    metrics: ClassVar[tuple[Metric, ...]]
    fitted_fields: ClassVar[tuple[str, ...]] = ()
    no_cascade: ClassVar[str] = "the task has no classes"

    @abc.abstractmethod
    def quality(self, outputs: np.ndarray, targets: Sequence) -> dict[str, float]:
        """How right answers are.

        Args:
            outputs: <float>[N, outputs].
            targets: N, as `targets` gives them.

        Returns:
            Name of a metric -> value, of all `metrics`.

        Raises:
            ValueError: the numbers of examples differ, or there are none.
        """

    def fitted(self: Own, outputs: np.ndarray, targets: Sequence) -> Own:
        """The task with its `fitted_fields` chosen.

        Args:
            outputs: a trained model's <float>[N, outputs], of examples that it did not
                learn from.
            targets: as of `quality`.

        Returns:
            Itself where there is nothing to choose.
        """
        return self

    def fitted_quality(self, outputs: np.ndarray, targets: Sequence
                       ) -> dict[str, float]:
        """How right answers are on the examples that `fitted` chooses by.

        By folds: no example is judged by a choice that it had a part in.

        Args:
            outputs: as of `fitted`.
            targets: the same.

        Returns:
            As of `quality`, which it is where there is nothing to choose.
        """
        return self.quality(outputs, targets)

    @property
    def unfitted(self: Own) -> Own:
        """The task as it was before its `fitted_fields` were chosen."""
        return dataclasses.replace(self, **{
            field.name: field.default for field in dataclasses.fields(self)
            if field.name in self.fitted_fields})

    def signals(self, outputs: np.ndarray) -> list[Signals]:
        """What a service watches of answers.

        Args:
            outputs: <float>[N, outputs].

        Returns:
            N times `Signals()`, of a task without classes.
        """
        return [Signals()] * len(outputs)

    def by_class(self, outputs: np.ndarray, targets: Sequence
                 ) -> dict[str, dict[str, float]]:
        """How right answers are of each class, for a task that has classes.

        Args:
            outputs: as of `quality`.
            targets: the same.

        Returns:
            Label -> name of a figure -> value; empty where there are no classes.
        """
        return {}

    def value(self, quality: Mapping[str, float]) -> float:
        """The monitored metric of a quality."""
        return quality[self.monitor[0]]

    def better(self, value: float, than: float) -> bool:
        """Whether a value of the monitor is better than another."""
        return value > than if self.monitor[1] == "higher" else value < than

    def drop(self, before: float, after: float) -> float:
        """By how much the monitor became worse: in points where it is a fraction.

        Args:
            before: its value.
            after: its value.

        Returns:
            100 times the difference of fractions, or the difference in the metric's own
            unit; negative for a gain.
        """
        scale = 100.0 if self._monitored.unit == "fraction" else 1.0
        sign = 1.0 if self.monitor[1] == "higher" else -1.0
        return scale * sign * (before - after)

    @property
    def drop_unit(self) -> str:
        """What `drop` counts: "points", or the metric's own name."""
        return "points" if self._monitored.unit == "fraction" else self.monitor[0]

    @property
    def _monitored(self) -> Metric:
        return next(m for m in self.metrics if m.name == self.monitor[0])
