"""A cascade's threshold: what it keeps, what it hands on, what it is worth."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tfopt import tasks
from tfopt.export.interpreter import softmax
from tfopt.serve import cascade
from tfopt.serve.rungs import Rung

TASK = tasks.named("classification")(labels=("a", "b"))


def rungs(count=2000, seed=0, knows=True):
    """Targets; logits of a rung that is right in 80 %; of one that is in 95 %.

    The fast one is as sure as it is right, or, where it does not know, at random.
    """
    random = np.random.default_rng(seed)
    targets = random.integers(0, 2, count)
    chances = 0.5 + 0.5 * random.beta(3, 2, count)  # of being right: 80 % in the mean
    right = random.random(count) < chances
    sure = chances if knows else random.permutation(chances)
    logit = np.log(sure / (1 - sure + 1e-9))
    fast = np.zeros([count, 2])
    fast[np.arange(count), np.where(right, targets, 1 - targets)] = logit
    best = np.zeros([count, 2])
    best[np.arange(count), np.where(random.random(count) < 0.95, targets,
                                    1 - targets)] = 3.0
    return targets, fast, best


def test_what_is_below_a_threshold_is_the_next_rungs():
    fast = np.log([[0.6, 0.4], [0.9, 0.1], [0.5, 0.5]])
    middle = np.log([[0.2, 0.8], [0.5, 0.5], [0.6, 0.4]])
    best = np.log([[0.3, 0.7], [0.4, 0.6], [0.1, 0.9]])
    given, by = cascade.answers([fast, best], [0.7])
    assert by.tolist() == [1, 0, 1]
    np.testing.assert_array_equal(given, [best[0], fast[1], best[2]])
    given, by = cascade.answers([fast, middle, best], [0.7, 0.75])
    assert by.tolist() == [1, 0, 2]
    np.testing.assert_array_equal(given, [middle[0], fast[1], best[2]])
    assert cascade.mean_ms(by, [1.0, 2.0, 4.0]) == pytest.approx((3 + 1 + 7) / 3)
    assert cascade.answers([fast, best], [0.0])[1].sum() == 0
    assert cascade.answers([fast, best], [cascade.ALL])[1].all()


@pytest.mark.parametrize("max_drop", [0.0, 0.01, 0.05, 0.5])
def test_the_drop_is_kept_and_a_larger_one_hands_less_on(max_drop):
    targets, fast, best = rungs()
    threshold, = cascade.thresholds_of(TASK, [fast, best], targets, max_drop, [1, 9])
    given, handed_on = cascade.answers([fast, best], [threshold])
    accuracy = (given.argmax(1) == targets).mean()
    assert accuracy >= (best.argmax(1) == targets).mean() - max_drop - 1e-9
    larger, = cascade.thresholds_of(TASK, [fast, best], targets, max_drop + 0.02,
                                    [1, 9])
    assert larger <= threshold
    if max_drop == 0.5:
        assert handed_on.sum() == 0


def two(fast, best, targets, max_drop, seed=0):
    """The cascade of two rungs."""
    asked = [Rung(name="fast", directory="fast", quality=0.8, p50_ms=1.0),
             Rung(name="best", directory="best", quality=0.9, p50_ms=9.0)]
    found = cascade.choose(TASK, asked, [fast, best], targets, max_drop, seed)
    return found and found[0]


def test_a_rung_that_knows_when_it_is_wrong_hands_less_on():
    shares = []
    for knows in (True, False):
        targets, fast, best = rungs(knows=knows)
        shares.append(two(fast, best, targets, 0.03).share_handed_on)
    assert shares[0] < 0.8 * shares[1]


def test_its_quality_is_of_examples_that_had_no_part_in_the_choice():
    """Of many small dev sets, what is promised is what the cascade does later."""
    promised, found = [], []
    later = rungs(20_000, seed=999)
    for seed in range(12):
        targets, fast, best = rungs(200, seed)
        chosen = two(fast, best, targets, 0.02, seed)
        assert chosen is not None and chosen.max_drop == 0.02
        given, _ = cascade.answers(later[1:], [chosen.threshold])
        promised.append(chosen.quality)
        found.append((given.argmax(1) == later[0]).mean())
    assert np.mean(promised) == pytest.approx(np.mean(found), abs=0.015)


def ladder(*p50_ms):
    return [Rung(name=name, directory=name, quality=1.0, p50_ms=ms)
            for name, ms in zip(("best", "middle", "fastest"), p50_ms, strict=True)]


@pytest.mark.parametrize("p50_ms, first", [
    ((10.0, 2.0, 1.0), "middle"), ((10.0, 9.0, 1.0), "fastest"),
    ((10.0, 9.9, 9.8), None)])
def test_the_rung_by_which_a_text_takes_least_answers_first(p50_ms, first):
    targets, middle, best = rungs()
    _, fastest, _ = rungs(knows=False)  # hands on three times as much
    found = cascade.cheapest(
        TASK, ladder(*p50_ms), {"best": best, "middle": middle, "fastest": fastest},
        targets, 0.03)
    assert (found and found.first) == first and not (found and found.then)
    if found is not None:
        fast = {"middle": middle, "fastest": fastest}[first]
        alone = two(fast, best, targets, 0.03)
        assert dataclasses.replace(found, first="fast") == alone


def test_a_chain_of_three_is_taken_where_it_takes_less():
    """The fastest knows a third for sure, the middle one most of the rest."""
    targets, _, best = rungs(3000)
    random = np.random.default_rng(1)

    def sure_of(share):
        logits = np.zeros([len(targets), 2])
        sure = random.random(len(targets)) < share
        logits[np.arange(len(targets)), targets] = np.where(sure, 9.0, 0.0)
        logits[~sure] += random.normal(0, 0.05, [int((~sure).sum()), 2])
        return logits

    outputs = {"best": best, "middle": sure_of(0.9), "fastest": sure_of(0.6)}
    found = cascade.cheapest(TASK, ladder(10.0, 2.0, 0.5), outputs, targets, 0.0)
    assert (found.first, [step.name for step in found.then]) == ("fastest", ["middle"])
    given, by = cascade.answers([outputs[name] for name in ("fastest", "middle", "best")
                                 ], [found.threshold, found.then[0].threshold])
    assert (given.argmax(1) == targets).mean() >= (best.argmax(1) == targets).mean()
    assert cascade.mean_ms(by, [0.5, 2.0, 10.0]) < 0.5 + 2.0 * 0.6 + 10.0 * 0.15


def test_there_is_none_where_nothing_is_kept_or_there_are_no_classes():
    targets, fast, best = rungs(100)
    wrong = np.zeros_like(fast)
    wrong[np.arange(100), 1 - targets] = 9.0
    assert two(wrong, best, targets, 0.0) is None
    assert two(fast[:5], best[:5], targets[:5], 0.1) is None
    numbers, named = tasks.named("regression")(), ladder(3.0, 2.0, 1.0)
    assert cascade.cheapest(numbers, named, {}, targets, 0.1) is None
    assert cascade.cheapest(TASK, named[:1], {"best": best}, targets, 0.1) is None
    sure = softmax(fast).max(1)
    same = two(fast, fast, targets, 0.0)
    assert same.threshold <= sure.min() and same.share_handed_on < 0.1
