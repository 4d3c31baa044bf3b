"""Rungs' answers on dev -> which answers first, and when the best one is asked.

A faster rung answers first; an answer whose highest probability is below the threshold
is handed on to the most accurate rung (Viola and Jones 2001; for classifiers of texts,
Wang et al. 2018, "IDK cascades"). Of the rungs that is the one by which a text takes
least: the fastest of all may hand too much on. NumPy alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from tfopt.export.interpreter import softmax
from tfopt.serve.rungs import Cascade, Rung, known
from tfopt.tasks import Task

_FOLDS = 5
_TRIED = 201  # thresholds
ALL = 2.0  # a threshold that hands everything on


def answers(fast: np.ndarray, best: np.ndarray, threshold: float | np.ndarray
            ) -> tuple[np.ndarray, np.ndarray]:
    """What a cascade gives.

    Args:
        fast: of the rung that answers first, logits <float>[N, C].
        best: of the most accurate one, <float>[N, C].
        threshold: the least confidence that is enough; one, or <float>[N].

    Returns:
        Logits <float>[N, C], and which were handed on, <bool>[N].
    """
    handed_on = softmax(fast).max(axis=1) < threshold
    return np.where(handed_on[:, np.newaxis], best, fast), handed_on


def threshold_of(task: Task, fast: np.ndarray, best: np.ndarray, targets: Sequence,
                 max_drop: float) -> float:
    """The least threshold from which on the monitor stays within a drop.

    From which on: a lower one that happens to do well among worse ones is luck.

    Args:
        task: tells the monitor.
        fast: of the rung that answers first, <float>[N, C].
        best: of the most accurate, <float>[N, C].
        targets: N.
        max_drop: of the monitor, in its own unit, against `best` alone.

    Returns:
        It; `ALL` where no other keeps within the drop.
    """
    sign = 1.0 if task.monitor[1] == "higher" else -1.0
    least = sign * task.value(task.quality(best, targets)) - max_drop
    tried = np.unique(np.quantile(softmax(fast).max(axis=1),
                                  np.linspace(0, 1, _TRIED)))
    found = ALL
    for threshold in tried[::-1]:
        value = sign * task.value(task.quality(
            answers(fast, best, threshold)[0], targets))
        if value < least - 1e-9:
            break
        found = float(threshold)
    return found


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
    least, found = known(best.p50_ms), None
    for rung in faster:
        chosen = choose(task, outputs[rung.name], outputs[best.name], targets, max_drop,
                        seed)
        if chosen is None:
            continue
        mean_ms = known(rung.p50_ms) + chosen.share_handed_on * known(best.p50_ms)
        if mean_ms < least:
            least, found = mean_ms, dataclasses.replace(chosen, first=rung.name)
    return found


def choose(task: Task, fast: np.ndarray, best: np.ndarray, targets: Sequence,
           max_drop: float, seed: int = 0) -> Cascade | None:
    """Chooses a threshold, and says what it is worth on examples it was not chosen on.

    The threshold is chosen on all examples. Its quality and share are by five folds:
    each is judged by the threshold that the other four choose, so that no example is
    judged by one that it had a part in. Both rungs may have had their epoch chosen on
    dev before; that is as optimistic as the rungs' own figures.

    Args:
        task: with classes.
        fast: of the rung that answers first, on dev, logits <float>[N, C].
        best: of the most accurate, <float>[N, C].
        targets: N.
        max_drop: of the monitor, in its own unit.
        seed: of the folds.

    Returns:
        The cascade; None where the task has none (`Task.no_cascade`), there are fewer
        examples than folds, or everything would be handed on.
    """
    if task.no_cascade or len(targets) < 2 * _FOLDS:
        return None
    threshold = threshold_of(task, fast, best, targets, max_drop)
    if threshold == ALL:
        return None
    known = np.asarray(targets)
    folds = np.random.default_rng(seed).permutation(len(targets)) % _FOLDS
    by_fold = np.array([threshold_of(task, fast[folds != fold], best[folds != fold],
                                     known[folds != fold], max_drop)
                        for fold in range(_FOLDS)])
    given, handed_on = answers(fast, best, by_fold[folds])
    return Cascade(threshold=math.floor(1e6 * threshold) / 1e6,
                   quality=task.value(task.quality(given, targets)),
                   share_handed_on=float(handed_on.mean()), max_drop=max_drop)
