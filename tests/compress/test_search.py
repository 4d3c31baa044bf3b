"""The search: the least loss within a target, against all structures there are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tfopt import model as models
from tfopt.compress.costs import Costs, multiplications
from tfopt.compress.structure import search
from tfopt.compress.structure.importance import Importance, UnitScores
from tfopt.compress.structure.search import knapsack

CONFIG = models.EncoderConfig.uniform(
    hidden_size=4, num_layers=2, num_heads=2, intermediate_size=4, vocab_size=9)


def choices(options, budget):
    """All choices within a budget: (loss, index of each block's option)."""
    for choice in itertools.product(*(range(len(sizes)) for sizes, _, _ in options)):
        cost = sum(costs[c] for c, (_, costs, _) in zip(choice, options, strict=True))
        if cost <= budget:
            yield sum(losses[c] for c, (_, _, losses) in
                      zip(choice, options, strict=True)), choice


@pytest.mark.parametrize("seed", range(20))
def test_the_knapsack_is_the_best_there_is(seed):
    random = np.random.default_rng(seed)
    options = [(3 * np.arange(count), random.integers(0, 9, count),
                random.random(count)) for count in random.integers(1, 5, 4)]
    # Of these budgets, whole numbers are whole steps, and nothing is rounded.
    for budget in (4, 10, 20, 40):
        found = knapsack(options, budget)
        possible = list(choices(options, budget))
        if possible:
            assert found == [3 * c for c in min(possible)[1]]
        else:
            assert found is None


@pytest.mark.parametrize("seed", range(10))
def test_costs_that_are_no_whole_steps_are_rounded_up(seed):
    random = np.random.default_rng(seed)
    options = [(np.arange(4), np.sort(random.random(4)), random.random(4))
               for _ in range(3)]
    for budget in (0.9, 1.7):
        found = knapsack(options, budget)
        # A step a block may be lost.
        tight, loose = ([loss for loss, _ in choices(options, most)]
                        for most in (budget * (1 - 3 / 2000), budget))
        if found is None:
            assert not tight
            continue
        loss = sum(losses[c] for c, (_, _, losses) in zip(found, options, strict=True))
        assert loss in [pytest.approx(own) for own in loose]
        assert min(loose) - 1e-9 <= loss <= min(tight, default=np.inf) + 1e-9


def test_a_budget_of_nothing_takes_what_costs_nothing():
    free = (np.array([0, 2]), np.array([0, 0]), np.array([1.0, 0.5]))
    dear = (np.array([0, 2]), np.array([0, 3]), np.array([1.0, 0.5]))
    assert knapsack([free, dear], 0) == [2, 0]
    assert knapsack([(*dear[:1], dear[1] + 1, dear[2])], 0) is None


def test_of_equal_losses_the_most_stays():
    block = (np.array([0, 1, 2]), np.array([0, 1, 2]), np.array([3.0, 1.0, 1.0]))
    assert knapsack([block], 2) == [2]
    assert knapsack([block], 1) == [1]


def scores(random) -> Importance:
    """Losses that grow in an order of chance."""
    def block(count):
        return UnitScores(tuple(random.permutation(count).tolist()),
                          np.concatenate([[0.0], np.cumsum(random.random(count))]))

    return Importance(heads=(block(2), block(2)), neurons=(block(4), block(4)))


def costs(random, whole=None) -> Costs:
    """Whole numbers that grow with the size."""
    def rising(count):
        return np.concatenate([[0], np.cumsum(random.integers(1, 5, count))])

    heads, neurons = (rising(2), rising(2)), (rising(4), rising(4))

    def summed(config) -> float:
        counts = (*config.num_heads, *config.intermediate_sizes)
        return float(sum(cost[count] for cost, count in
                         zip((*heads, *neurons), counts, strict=True)))

    return Costs(heads=heads, neurons=neurons, unit="ms",
                 whole=summed if whole is None else lambda c: whole(summed(c)))


def structures(importance, sizes):
    """All structures of these sizes: (loss, counts of heads, counts of neurons)."""
    blocks = (*importance.heads, *importance.neurons)
    for counts in itertools.product(*sizes):
        yield sum(block.loss[len(block.order) - count]
                  for block, count in zip(blocks, counts, strict=True)), counts


def loss_of(importance, kept) -> float:
    """The predicted loss of a structure; checks that the least important went."""
    total = 0.0
    for block, own in zip((*importance.heads, *importance.neurons),
                          (*kept.heads, *kept.neurons), strict=True):
        gone = len(block.order) - len(own)
        assert set(own) == set(block.order[gone:]) and list(own) == sorted(own)
        total += block.loss[gone]
    return total


# Neither of these is the sum of the blocks: something beside them, and a time that
# grows the slower, the larger the model is.
WHOLES = [None, lambda total: 7 + 1.5 * total, lambda total: 10 * np.sqrt(total)]


@pytest.mark.parametrize("whole", WHOLES)
@pytest.mark.parametrize("seed", range(4))
def test_the_search_finds_the_best_structure(seed, whole):
    random = np.random.default_rng(seed)
    importance, given = scores(random), costs(random, whole)
    everything = [range(3), range(3), range(5), range(5)]
    highest = given.whole(CONFIG)
    lowest = given.whole(CONFIG.replace(num_heads=(0, 0), intermediate_sizes=(0, 0)))
    for part in (0.2, 0.5, 0.8, 1.0):
        target = lowest + part * (highest - lowest)
        kept = search.search(CONFIG, importance, given, target, neurons_multiple=1)
        assert given.whole(kept.config(CONFIG)) <= target * (1 + 1e-9)
        best = min(
            loss for loss, counts in structures(importance, everything)
            if given.whole(CONFIG.replace(num_heads=counts[:2],
                                          intermediate_sizes=counts[2:])) <= target)
        assert loss_of(importance, kept) == pytest.approx(best)


def test_a_target_that_only_the_least_meets_gives_the_least():
    random = np.random.default_rng(0)
    importance, given = scores(random), costs(random, lambda total: 3 + total)
    for target in (3.0, 3 * (1 - 1e-12)):  # as of a sum in another order
        kept = search.search(CONFIG, importance, given, target)
        assert (kept.heads, kept.neurons) == (((), ()), ((), ()))


def test_other_layers_than_those_named_lose_all():
    random = np.random.default_rng(2)
    importance, given = scores(random), costs(random)
    half = given.whole(CONFIG) / 2
    kept = search.search(CONFIG, importance, given, half, neurons_multiple=1,
                         layers=[1])
    assert kept.heads[0] == kept.neurons[0] == ()
    best = min(loss for loss, counts in structures(
        importance, [[0], range(3), [0], range(5)])
        if given.whole(CONFIG.replace(num_heads=counts[:2],
                                      intermediate_sizes=counts[2:])) <= half)
    assert loss_of(importance, kept) == pytest.approx(best)


def test_a_structure_of_just_the_target_is_found():
    """A target of 7 times a third of the cost is a rounding below 7 thirds."""
    third = 1.1 / 3
    given = Costs(
        heads=(third * np.arange(3),) * 2, neurons=(third * np.arange(5),) * 2,
        unit="ms", whole=lambda c: sum([third] * (sum(c.num_heads)
                                                  + sum(c.intermediate_sizes))))
    kept = search.search(CONFIG, scores(np.random.default_rng(1)), given,
                         7 * third * (1 - 1e-15), neurons_multiple=1)
    assert sum(map(len, (*kept.heads, *kept.neurons))) == 7


@pytest.mark.parametrize(("limits", "sizes"), [
    ({"neurons_multiple": 2}, [{0, 1, 2}, {0, 2, 4}]),
    ({"neurons_multiple": 3, "heads_multiple": 2}, [{0, 2}, {0, 3, 4}]),
    ({"neurons_multiple": 64}, [{0, 1, 2}, {0, 4}]),
    ({"neurons_multiple": 1, "empty_blocks": False}, [{1, 2}, {1, 2, 3, 4}]),
    ({"neurons_multiple": 2, "empty_blocks": False}, [{1, 2}, {2, 4}]),
])
def test_sizes_are_multiples_or_all(limits, sizes):
    random = np.random.default_rng(3)
    importance, given = scores(random), costs(random)
    seen = [set(), set()]
    possible = list(structures(importance, [sizes[0]] * 2 + [sizes[1]] * 2))
    least = CONFIG.replace(num_heads=(min(sizes[0]),) * 2,
                           intermediate_sizes=(min(sizes[1]),) * 2)
    for target in range(int(given.whole(least)), int(given.whole(CONFIG)) + 1):
        kept = search.search(CONFIG, importance, given, target, **limits)
        left = kept.config(CONFIG)
        seen[0] |= {*left.num_heads}
        seen[1] |= {*left.intermediate_sizes}
        best = min(loss for loss, counts in possible if given.whole(CONFIG.replace(
            num_heads=counts[:2], intermediate_sizes=counts[2:])) <= target)
        assert loss_of(importance, kept) == pytest.approx(best)
    assert seen == sizes


@pytest.mark.parametrize(("limits", "message"), [
    ({"empty_blocks": False, "neurons_multiple": 2},
     "heads (1, 1) and neurons (2, 2), takes 112 ms. Received: target=111.9"),
    ({"empty_blocks": False, "heads_multiple": 2, "neurons_multiple": 64},
     "heads (2, 2) and neurons (4, 4), takes 124 ms. Received: target=111.9"),
    ({}, None),
])
def test_a_target_out_of_reach_is_refused(limits, message):
    given = Costs(heads=(2.0 * np.arange(3),) * 2, neurons=(2.0 * np.arange(5),) * 2,
                  unit="ms", whole=lambda config: 100 + 2 * (
                      sum(config.num_heads) + sum(config.intermediate_sizes)))
    importance = scores(np.random.default_rng(0))
    if message is None:
        search.check_target(CONFIG, given, 111.9, **limits)
        kept = search.search(CONFIG, importance, given, 111.9, **limits)
        assert given.whole(kept.config(CONFIG)) <= 111.9
        return
    for call in (lambda: search.check_target(CONFIG, given, 111.9, **limits),
                 lambda: search.search(CONFIG, importance, given, 111.9, **limits)):
        with pytest.raises(ValueError) as error:
            call()
        assert str(error.value).endswith(message)


def test_multiplications_are_those_of_the_kernels():
    config = CONFIG.replace(num_heads=(2, 0), intermediate_sizes=(4, 1))
    given = multiplications(config)
    kernels = sum(layer.kernel.shape.num_elements() for layer in
                  models.build(config).layers if "layer_" in layer.name
                  and hasattr(layer, "kernel"))
    assert given.whole(config) == pytest.approx(kernels / 1e3)
    parts = [cost[-1] for cost in (*given.heads, *given.neurons)]
    assert sum(parts) == pytest.approx(given.whole(config))
    assert [len(cost) for cost in (*given.heads, *given.neurons)] == [3, 1, 5, 2]
    assert given.heads[0] == pytest.approx([0, 0.032, 0.064])
