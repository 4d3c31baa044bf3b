"""Rungs' answers on dev -> which answers first, and when a slower one is asked.

A faster rung answers first; an answer whose highest probability is below its threshold
is handed on to a slower one, and at last to the most accurate rung (Viola and Jones
2001; for classifiers of texts, Wang et al. 2018, "IDK cascades"). Of all chains of two
and of three rungs that is the one by which a text takes least. NumPy alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from tfopt.export.interpreter import softmax
from tfopt.serve.rungs import Cascade, Rung, Step, known
from tfopt.tasks import Task

_FOLDS = 5
# Steps that may hand on -> thresholds that are tried of each.
_TRIED = {1: 201, 2: 25}
ALL = 2.0  # a threshold that hands everything on


def answers(outputs: Sequence[np.ndarray], thresholds: Sequence[float | np.ndarray]
            ) -> tuple[np.ndarray, np.ndarray]:
    """What a cascade gives.

    Args:
        outputs: of K rungs in the order in which they are asked, logits <float>[N, C].
        thresholds: of all but the last the least confidence that is enough; each one,
            or <float>[N].

    Returns:
        Logits <float>[N, C], and the number of the rung that gave them, <int>[N].
    """
    by = _answered_by(list(map(confidence, outputs[:-1])), thresholds)
    return np.choose(by[:, np.newaxis], outputs), by


def confidence(logits: np.ndarray) -> np.ndarray:
    """How sure a rung is of each text: its highest probability, <float>[N]."""
    return softmax(logits).max(axis=1)


def _answered_by(confidences: Sequence[np.ndarray],
                 thresholds: Sequence[float | np.ndarray]) -> np.ndarray:
    """The number of the rung that answers each text, <int>[N]."""
    by = np.zeros(len(confidences[0]), int)
    for number, (sure, threshold) in enumerate(zip(confidences, thresholds,
                                                   strict=True)):
        by += (by == number) & (sure < threshold)
    return by


def mean_ms(by: np.ndarray, ms: Sequence[float]) -> float:
    """Milliseconds of a text in the mean: of every rung that it was shown to.

    Args:
        by: number of the rung that answered, <int>[N].
        ms: of the rungs, in the order in which they are asked.
    """
    return float(np.cumsum(ms)[by].mean())


def thresholds_of(task: Task, outputs: Sequence[np.ndarray], targets: Sequence,
                  max_drop: float, ms: Sequence[float]) -> tuple[float, ...]:
    """The thresholds of least time from which on the monitor stays within a drop.

    From which on: lower ones that happen to do well among worse ones are luck.

    Args:
        task: tells the monitor.
        outputs: as of `answers`.
        targets: N.
        max_drop: of the monitor, in its own unit, against the last rung alone.
        ms: of the rungs.

    Returns:
        They; `ALL` for the first where nothing else keeps within the drop.
    """
    sign = 1.0 if task.monitor[1] == "higher" else -1.0
    least = sign * task.value(task.quality(outputs[-1], targets)) - max_drop
    confidences = list(map(confidence, outputs[:-1]))
    # Descending, from `ALL`, which needs no trial.
    tried = [np.append(np.unique(np.quantile(
        sure, np.linspace(0, 1, _TRIED[len(confidences)]))), ALL)[::-1]
        for sure in confidences]
    within: dict[tuple[int, ...], float] = {}  # places in `tried` -> milliseconds
    for place in itertools.product(*(range(len(each)) for each in tried)):
        higher = [(*place[:axis], place[axis] - 1, *place[axis + 1:])
                  for axis in range(len(place)) if place[axis]]
        if not all(other in within for other in higher):
            continue
        by = _answered_by(confidences, [each[i] for each, i in
                                        zip(tried, place, strict=True)])
        if not any(place) or sign * task.value(task.quality(
                np.choose(by[:, np.newaxis], outputs), targets)) >= least - 1e-9:
            within[place] = mean_ms(by, ms)
    best = min(within, key=lambda place: within[place])
    return tuple(float(each[i]) for each, i in zip(tried, best, strict=True))


def cheapest(task: Task, rungs: Sequence[Rung], outputs: Mapping[str, np.ndarray],
             targets: Sequence, max_drop: float, seed: int = 0) -> Cascade | None:
    """The cascade that takes the least time of all that keep within a drop.

    Args:
        task: with classes.
        rungs: from the most accurate, which is asked at last, to the fastest.
        outputs: rung's name -> logits on dev, <float>[N, C].
        targets: N.
        max_drop: of the monitor, in its own unit.
        seed: of the folds.

    Returns:
        It; None where none is cheaper than the best rung alone.
    """
    best, *faster = rungs
    if not faster or task.no_cascade:
        return None
    least, found = known(best.p50_ms), None
    for steps in _TRIED:
        for chain in itertools.combinations(faster[::-1], steps):
            asked = [*chain, best]
            chosen = choose(task, asked, [outputs[rung.name] for rung in asked],
                            targets, max_drop, seed)
            if chosen is not None and chosen[1] < least:
                found, least = chosen
    return found


def choose(task: Task, rungs: Sequence[Rung], outputs: Sequence[np.ndarray],
           targets: Sequence, max_drop: float, seed: int = 0
           ) -> tuple[Cascade, float] | None:
    """Chooses thresholds, and says what they are worth on other examples.

    The thresholds are chosen on all examples. Quality, share and time are by five
    folds: each is judged by the thresholds that the other four choose, so that no
    example is judged by one that it had a part in. Rungs may have had their epoch
    chosen on dev before; that is as optimistic as the rungs' own figures.

    Args:
        task: with classes.
        rungs: in the order in which they are asked, the most accurate last.
        outputs: of each on dev, logits <float>[N, C].
        targets: N.
        max_drop: of the monitor, in its own unit.
        seed: of the folds.

    Returns:
        The cascade, and milliseconds of a text in the mean; None where the task has
        none (`Task.no_cascade`), there are fewer examples than folds, or everything
        would be handed on.
    """
    if task.no_cascade or len(targets) < 2 * _FOLDS:
        return None
    ms = [known(rung.p50_ms) for rung in rungs]
    chosen = thresholds_of(task, outputs, targets, max_drop, ms)
    if ALL in chosen:
        return None
    all_targets = np.asarray(targets)
    folds = np.random.default_rng(seed).permutation(len(targets)) % _FOLDS
    by_fold = np.array([thresholds_of(
        task, [each[folds != fold] for each in outputs], all_targets[folds != fold],
        max_drop, ms) for fold in range(_FOLDS)])
    given, by = answers(outputs, list(by_fold[folds].T))
    steps = tuple(Step(name=rung.name, threshold=math.floor(1e6 * threshold) / 1e6)
                  for rung, threshold in zip(rungs, chosen, strict=False))
    return Cascade(
        first=steps[0].name, threshold=steps[0].threshold, then=steps[1:],
        quality=task.value(task.quality(given, targets)),
        share_handed_on=float((by > 0).mean()),
        max_drop=max_drop), mean_ms(by, ms)
