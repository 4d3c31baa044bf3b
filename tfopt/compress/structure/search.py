"""Which structure meets a target at the least loss: scores, costs -> what is kept.

How many heads and neurons each layer keeps is a knapsack with one choice a block,
solved by dynamic programming over the cost (ZipLM, Kurtic et al. 2023,
arXiv:2302.04089, section 3.2; SPDY, Frantar & Alistarh 2022, arXiv:2201.13096).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfopt.compress.costs import Costs
from tfopt.compress.structure import importance
from tfopt.compress.structure.importance import Importance
from tfopt.compress.structure.slicing import Kept
from tfopt.model import EncoderConfig

# Steps into which the budget is divided; costs are rounded up to them.
_STEPS = 2000
# How often the blocks' budget is set anew until the whole meets the target.
_TRIALS = 12
# Of a target: what a sum of floats may be above it.
_ROUNDING = 1e-9


def search(config: EncoderConfig, scores: Importance, costs: Costs, target: float, *,
           neurons_multiple: int = 64, heads_multiple: int = 1,
           empty_blocks: bool = True, layers: Sequence[int] | None = None) -> Kept:
    """Finds the structure of the least predicted loss that meets a target.

    Args:
        config: sizes of the model before.
        scores: of its heads and neurons.
        costs: of the same model.
        target: the most that the whole may cost.
        neurons_multiple: an ffn keeps a multiple of this, or all.
        heads_multiple: the same of heads.
        empty_blocks: whether a block may lose all.
        layers: those that may keep anything; None for all.

    Returns:
        What stays of each layer.

    Raises:
        ValueError: no structure meets the target; says what the least costs.
    """
    limits: dict[str, Any] = {
        "neurons_multiple": neurons_multiple, "heads_multiple": heads_multiple,
        "empty_blocks": empty_blocks, "layers": layers}
    check_target(config, costs, target, **limits)
    blocks = [*zip(scores.heads, costs.heads, strict=True),
              *zip(scores.neurons, costs.neurons, strict=True)]
    # With n - k units gone, k are left.
    options = [(sizes, cost[sizes], block.loss[::-1][sizes])
               for (block, cost), sizes in zip(blocks, _sizes(config, **limits),
                                               strict=True)]

    def whole(counts) -> float:
        heads, neurons = np.split(np.array(counts), 2)
        return costs.whole(config.replace(num_heads=heads.tolist(),
                                          intermediate_sizes=neurons.tolist()))

    counts = _meet(options, whole, target * (1 + _ROUNDING)) or [
        int(sizes[0]) for sizes, _, _ in options]
    kept = [importance.kept(block, count)
            for (block, _), count in zip(blocks, counts, strict=True)]
    return Kept(heads=tuple(kept[:config.num_layers]),
                neurons=tuple(kept[config.num_layers:]))


def check_target(config: EncoderConfig, costs: Costs, target: float, **limits) -> None:
    """Checks that `search`, of the same arguments, will find a structure.

    Raises:
        ValueError: no structure meets the target; says what the least costs.
    """
    least = [int(sizes[0]) for sizes in _sizes(config, **limits)]
    left = config.replace(num_heads=least[:config.num_layers],
                          intermediate_sizes=least[config.num_layers:])
    floor = costs.whole(left)
    if floor > target * (1 + _ROUNDING):
        raise ValueError(
            f"No structure meets the target: the least one, of heads {left.num_heads} "
            f"and neurons {left.intermediate_sizes}, takes {floor:.4g} {costs.unit}. "
            f"Received: target={target:.4g}")


def _sizes(config: EncoderConfig, neurons_multiple: int = 64, heads_multiple: int = 1,
           empty_blocks: bool = True, layers: Sequence[int] | None = None
           ) -> list[np.ndarray]:
    """The sizes that each layer's heads, then its neurons may have, ascending."""
    stay = range(config.num_layers) if layers is None else layers

    def of(i, count, multiple):
        sizes = {*range(multiple, count, multiple), count}
        if i not in stay:
            sizes = {0}
        return np.array(sorted(sizes | {0} if empty_blocks else sizes))

    return [of(i, count, multiple)
            for counts, multiple in ((config.num_heads, heads_multiple),
                                     (config.intermediate_sizes, neurons_multiple))
            for i, count in enumerate(counts)]


def _meet(options, whole, target: float) -> list[int] | None:
    """The best counts whose whole meets the target: bisects the blocks' budget."""
    low = sum(cost.min() for _, cost, _ in options)
    # Where all may stay, rounding up takes a step a block beyond the sum.
    high = sum(cost.max() for _, cost, _ in options) * (1 + len(options) / _STEPS)
    best, most = None, high
    for _ in range(_TRIALS):
        counts = knapsack(options, most)
        if counts is not None and whole(counts) <= target:
            best, low = counts, most
        else:
            high = most
        if low == high:  # all may stay
            break
        most = (low + high) / 2
    return best


def knapsack(options, budget: float) -> list[int] | None:
    """Chooses one option of each block, of the least loss within a budget.

    Args:
        options: a block each (sizes <int>[S], ascending, costs <float>[S], losses
            <float>[S]).
        budget: of all costs.

    Returns:
        The size of each block, or None if no choice is within.
    """
    step = budget / _STEPS
    best = np.zeros(_STEPS + 1)  # the least loss, by steps of the budget
    choices = []
    for _, costs, losses in options:
        steps = np.ceil(costs / step - 1e-9).astype(int) if step > 0 else (
            np.where(costs > 0, _STEPS + 1, 0))
        table = np.full([len(costs), _STEPS + 1], np.inf)
        for option, (taken, loss) in enumerate(zip(steps, losses, strict=True)):
            if taken <= _STEPS:
                table[option, taken:] = best[:_STEPS + 1 - taken] + loss
        # Of equal losses the last, and so the largest: what is thought to cost nothing
        # may cost something.
        choices.append((len(table) - 1 - table[::-1].argmin(axis=0), steps))
        best = table.min(axis=0)
    if not np.isfinite(best[-1]):
        return None
    left, counts = _STEPS, []
    for (chosen, steps), (sizes, _, _) in zip(reversed(choices), reversed(options),
                                              strict=True):
        option = chosen[left]
        counts.append(int(sizes[option]))
        left -= steps[option]
    return counts[::-1]
