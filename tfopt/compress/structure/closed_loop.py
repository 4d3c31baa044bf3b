"""Search, time what was found, correct the target, search again.

A latency table predicts times as well as the hour it was timed in: beside other work it
is off by a third. Times depend on sizes alone, not on weights. So a structure is timed
as soon as it is found, in turn with the whole model, before anything is cut or trained;
where it misses the target, the target of the search is corrected by predicted /
measured, or, where noise makes nonsense of that, to between what was too fast and what
was too slow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import logging

from tfopt.backend import tf
from tfopt.compress.costs import Costs, Measure
from tfopt.compress.structure.slicing import Kept
from tfopt.model import EncoderConfig
from tfopt.train.distribute import workers

MOST_CORRECTIONS = 3
# How far from its target a measured time may be, as a fraction of it.
NEAR = 0.03


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """A structure that was timed.

    Attributes:
        num_heads: of each layer.
        intermediate_sizes: of each layer.
        predicted: its cost by the table.
        measured: what it took.
        measured_before: what the whole model took, in turn with it.
        over: `measured` / what was to be reached.
    """

    num_heads: tuple[int, ...]
    intermediate_sizes: tuple[int, ...]
    predicted: float
    measured: float
    measured_before: float
    over: float

    @property
    def is_near(self) -> bool:
        """Whether it hits the target."""
        return abs(self.over - 1) <= NEAR

    @property
    def rank(self) -> tuple[bool, float]:
        """The best is the least: within the target, then near to it."""
        return self.over > 1 + NEAR, abs(self.over - 1)


class ClosedLoop:
    """Searches until the measured time is the target's.

    Args:
        whole: sizes of the model before.
        costs: of it; without `measure`, a prediction is taken at its word.
        target: to be reached, by `costs`; below what the whole costs.
        relative: whether the target is a part of what the whole takes, measured as it
            may be; else it is in the costs' unit as it is.

    Attributes:
        correction: predicted / measured, of what a search aims at.
    """

    def __init__(self, whole: EncoderConfig, costs: Costs, target: float, *,
                 relative: bool):
        self._whole, self._costs, self._target = whole, costs, target
        self._before, self._relative = costs.whole(whole), relative
        self.correction = 1.0

    def aim(self, part: float) -> float:
        """What to search for after a part, in (0, 1], of the way to the target."""
        return self._before * (self._target * self.correction / self._before) ** part

    def search(self, config: EncoderConfig, find: Callable[[float], Kept]
               ) -> tuple[Kept, tuple[Trial, ...]]:
        """Finds the structure that is the nearest to the target.

        Args:
            config: sizes of the model that is cut.
            find: an aim -> the structure that the table predicts to meet it.

        Returns:
            What stays, and what was timed: what stays is of the last trial. None where
            nothing can be timed.

        Raises:
            ValueError: no structure meets the target, by the table.
        """
        measure = self._costs.measure
        if measure is None:
            return find(self._target), ()
        found: list[tuple[Trial, Kept]] = []
        for _ in range(1 + MOST_CORRECTIONS):
            kept = self._next(find, first=not found)
            if kept is None or any(self._is_of(trial, kept, config)
                                   for trial, _ in found):
                break
            trial = self._time(kept.config(config), measure)
            found.append((trial, kept))
            self.correction = self._next_aim([one for one, _ in found]) / self._target
            if trial.is_near:
                break
        best = min(found, key=lambda one: one[0].rank)
        if not best[0].is_near:
            logging.warning("No structure of the measured time that was asked for: %s",
                            said_of([best[0]], self._costs.unit))
        others = [trial for trial, _ in found if trial is not best[0]]
        return best[1], (*others, best[0])

    def _next(self, find: Callable[[float], Kept], first: bool) -> Kept | None:
        """What the corrected search finds; None where nothing is as small."""
        try:
            return find(self.aim(1.0))
        except ValueError:
            if not first:
                return None
            # What an earlier search learned of other structures may not hold here.
            return find(self._target)

    def _next_aim(self, trials: Sequence[Trial]) -> float:
        """What a structure is to cost by the table, from what was timed so far."""
        last = trials[-1]
        aim = last.predicted / last.over
        # Of the whole it is known without a trial: it takes what it takes.
        whole = last.measured_before * last.over / last.measured
        points = [(trial.predicted, trial.over) for trial in trials]
        slow = min([(self._before, whole), *(one for one in points if one[1] > 1)])
        fast = max((one for one in points if one[1] <= 1), default=None)
        if fast is None or fast[0] < aim < slow[0] or fast[0] >= slow[0]:
            return aim
        steepness = np.log(slow[1] / fast[1]) / np.log(slow[0] / fast[0])
        return float(fast[0] * fast[1] ** (-1 / steepness))

    def _is_of(self, trial: Trial, kept: Kept, config: EncoderConfig) -> bool:
        sizes = kept.config(config)
        return (trial.num_heads, trial.intermediate_sizes) == (
            sizes.num_heads, sizes.intermediate_sizes)

    def _time(self, small: EncoderConfig, measure: Measure) -> Trial:
        strategy = tf.distribute.get_strategy()
        # Each worker's times would lead it to a structure of its own.
        before, taken = workers.chiefs_numbers(strategy, measure(
            self._whole, small) if workers.is_chief(strategy) else (0.0, 0.0))
        wanted = self._target * (before / self._before if self._relative else 1.0)
        trial = Trial(
            num_heads=small.num_heads, intermediate_sizes=small.intermediate_sizes,
            predicted=float(self._costs.whole(small)), measured=taken,
            measured_before=before, over=taken / wanted)
        logging.info("Timed before it is cut: heads %s, neurons %s: %s",
                     small.num_heads, small.intermediate_sizes,
                     said_of([trial], self._costs.unit))
        return trial


def said_of(trials: Sequence[Trial], unit: str) -> str:
    """What was timed, in words: the last trial, and how many there were."""
    last = trials[-1]
    searches = (f"; the nearest of {len(trials)} structures, found by corrected targets"
                if len(trials) > 1 else "")
    missed = "" if last.is_near else (
        f"; {abs(last.over - 1):.0%} "
        f"{'above' if last.over > 1 else 'below'} the target")
    return (f"{last.measured:.3g} {unit} with random weights, "
            f"{last.measured_before:.3g} of the whole "
            f"({last.measured_before / last.measured:.2f}x), predicted "
            f"{last.predicted:.3g}{searches}{missed}")


def facts_of(trials: Sequence[Trial]) -> dict[str, Any]:
    """What was timed, as JSON has it: "trials", the one that was taken last."""
    found = [{name: list(value) if isinstance(value, tuple) else value
              for name, value in dataclasses.asdict(trial).items()} for trial in trials]
    return {"trials": found} if found else {}
