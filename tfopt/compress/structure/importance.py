"""How much each head and neuron of a BERT matters: model, examples -> scores of blocks.

A head or neuron is thought of as multiplied by a mask m = 1. The gradient of an
example's loss with respect to m is that of its output times the output, summed over
tokens. From these come first-order scores (Molchanov et al. 2017, arXiv:1611.06440,
equation 6) and the Fisher information of the masks (Kwon et al. 2022, "A fast
post-training pruning framework for transformers", arXiv:2204.09656, equations 6 to 8).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfopt.backend import keras, tf
from tfopt.compress.samples import read, seen_by
from tfopt.compress.structure.slicing import check_plain
from tfopt.model.anatomy import Anatomy
from tfopt.tasks.base import Task
from tfopt.tasks.classification import Classification
from tfopt.types import BatchSource

UNIT_SCORES = ("block_fisher", "fisher", "taylor", "magnitude")


@dataclasses.dataclass(frozen=True)
class UnitScores:
    """The units of one block in the order in which they go.

    Attributes:
        order: n heads or neurons, the least important first.
        loss: <float>[n + 1], what the loss is thought to rise by when the first 0 to n
            of them are gone; ascending from 0.
    """

    order: tuple[int, ...]
    loss: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Importance:
    """Scores of a model, `UnitScores` a layer."""

    heads: tuple[UnitScores, ...]
    neurons: tuple[UnitScores, ...]


def of(model: keras.Model, score: str, train: BatchSource | None = None,
       examples: int = 2048, task: Task = Classification()  # noqa: B008
       ) -> Importance:
    """Scores the heads and neurons of a model.

    Args:
        model: a BERT of plain layers.
        score: one of `UNIT_SCORES`. "magnitude" is the sum of squares of a unit's part
            of the output projection; "taylor" mean |g| of its mask; "fisher" mean
            g^2 / 2; "block_fisher" minds in addition how the masks of a block act
            together.
        train: batches; needed by all but "magnitude".
        examples: how many of them are read, rounded up to whole batches.
        task: whose loss it is that rises.

    Returns:
        The scores.

    Raises:
        ValueError: the score is unknown, there are no examples, or the model is no
            such BERT.
    """
    if score not in UNIT_SCORES:
        raise ValueError(f"`score` must be one of {UNIT_SCORES}. Received: "
                         f"score={score!r}")
    check_plain(model)
    if score != "magnitude":
        if train is None:
            raise ValueError(f"The score {score!r} needs examples. "
                             "Received: train=None")
        found = mask_gradients(model, train, examples, task)
        made = {"taylor": _taylor, "fisher": _fisher,
                "block_fisher": lambda g: _block(g.T @ g / len(g))}[score]
        return Importance(heads=tuple(map(made, found[0])),
                          neurons=tuple(map(made, found[1])))
    parts = Anatomy.of(model)

    def squares(block, count):
        if block is None:
            return _in_turn(np.zeros(0))
        kernel = block.output.kernel.numpy()
        return _in_turn((kernel ** 2).reshape([count, -1]).sum(axis=1))

    return Importance(
        heads=tuple(squares(layer.attention, count) for layer, count in zip(
            parts.layers, parts.config.num_heads, strict=True)),
        neurons=tuple(squares(layer.ffn, count) for layer, count in zip(
            parts.layers, parts.config.intermediate_sizes, strict=True)))


def mask_gradients(model: keras.Model, train: BatchSource, examples: int,
                   task: Task = Classification()  # noqa: B008
                   ) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The gradients of single examples with respect to the masks.

    Args:
        model: a BERT of plain layers.
        train: batches; of examples without a target, the model's own guess.
        examples: how many are read, rounded up to whole batches.
        task: whose loss it is.

    Returns:
        A list of <float32>[N, H] and one of <float32>[N, F], an array a layer.
    """
    parts = Anatomy.of(model)
    config = parts.config
    # An absent block has no units, and so no gradients.
    taps = {}
    for i, layer in enumerate(parts.layers):
        if layer.attention:
            taps[i, "heads"] = layer.attention.core.output
        if layer.ffn:
            taps[i, "neurons"] = layer.ffn.intermediate.output
    # Keras would take a list of one apart.
    seen = keras.Model(model.inputs, (model.output, *taps.values()))

    @tf.function(reduce_retracing=True)
    def gradients(inputs, targets):
        with tf.GradientTape() as tape:
            logits, *outputs = seen(inputs, training=False)
            loss = tf.reduce_sum(task.example_loss(logits, targets,
                                                   **seen_by(task, inputs)))
        found = tape.gradient(loss, outputs)
        return [tf.reduce_sum(tf.cast(x * g, tf.float32), axis=1)
                for x, g in zip(outputs, found, strict=True)]  # <float>[B, width]

    rows: dict = {place: [] for place in taps}
    count = 0
    for inputs, targets in read(train, examples):
        for place, values in zip(taps, gradients(inputs, targets), strict=True):
            rows[place].append(values.numpy())
        count += len(targets)

    def of_units(kind, sizes):
        found = []
        for i, size in enumerate(sizes):
            values = rows.get((i, kind))
            found.append(np.zeros([count, 0], np.float32) if values is None else
                         np.concatenate(values).reshape([count, size, -1]).sum(axis=2))
        return found

    return (of_units("heads", config.num_heads),
            of_units("neurons", config.intermediate_sizes))


def _taylor(gradients: np.ndarray) -> UnitScores:
    return _in_turn(np.abs(gradients).mean(axis=0))


def _fisher(gradients: np.ndarray) -> UnitScores:
    return _in_turn(0.5 * (gradients ** 2).mean(axis=0))


def _in_turn(scores: np.ndarray) -> UnitScores:
    """Of scores <float>[n] that add up."""
    order = np.argsort(scores, kind="stable")
    rises = np.cumsum(scores[order], dtype=np.float64)
    return UnitScores(tuple(order.tolist()), np.concatenate([[0.0], rises]))


def _block(fisher: np.ndarray) -> UnitScores:
    """Takes away, again and again, the unit that costs least beside those gone.

    Without a set S of the masks the loss rises by 1_S' F 1_S / 2.

    Args:
        fisher: F <float>[n, n].
    """
    left = np.ones(len(fisher), bool)
    cost = 0.5 * np.diag(fisher).astype(np.float64)  # of the next unit, n of them
    order: list[int] = []
    loss = [0.0]
    for _ in range(len(fisher)):
        unit = int(np.where(left, cost, np.inf).argmin())
        loss.append(loss[-1] + cost[unit])
        order.append(unit)
        left[unit] = False
        cost += fisher[unit]
    # The quadratic form may fall where units make up for one another; a curve that
    # falls would have the search take away more than it must.
    return UnitScores(tuple(order), np.maximum.accumulate(loss))


def kept(block: UnitScores, count: int) -> tuple[int, ...]:
    """The units that stay when `count` of a block's do, ascending."""
    return tuple(sorted(block.order[len(block.order) - count:]))
