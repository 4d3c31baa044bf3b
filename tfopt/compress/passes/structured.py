"""Cuts heads, neurons and whole blocks out of a BERT, down to a target.

Scores of a few thousand examples say what matters, a search which structure meets the
target at the least loss, least squares make up for what is gone (minutes, no training);
then, if asked for, training recovers the rest, from a teacher where there is one. In
several steps, each cut is scored on the model that the one before left.

Where the machine can be asked, what is found for a target of time is timed before
anything is cut or trained, and searched for again until it takes what it should
(`structure.closed_loop`).

What was found is in `Outcome.facts` (`structure.choice.facts`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from tfopt import drawing
from tfopt.backend import keras
from tfopt.compress.base import Context, Outcome, Pass, Stage
from tfopt.compress.costs import Costs, multiplications
from tfopt.compress.samples import mean_loss, with_targets
from tfopt.compress.structure import choice, importance, search
from tfopt.compress.structure.choice import Choice
from tfopt.compress.structure.closed_loop import ClosedLoop, Trial
from tfopt.compress.structure.least_squares import reconstruct
from tfopt.compress.structure.slicing import Kept, cut, drop_empty_layers
from tfopt.files import write_whole
from tfopt.model import EncoderConfig, config_of
from tfopt.train.distill import losses
from tfopt.types import check_fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class Structured(Pass):
    """Removes heads and neurons, physically.

    One target is given. Those of time need the resource "costs" in the context,
    of a latency table.

    Attributes:
        keep: fraction in (0, 1) of the encoder's multiplications to keep.
        target_speedup: how many times faster than the given model, above 1.
        target_latency_ms: milliseconds of a request, above 0.
        score: one of `importance.UNIT_SCORES`.
        examples: how many score the units, and fit the projections.
        reconstruct: whether the output projections are fitted to the model before.
        steps: cuts on the way to the target, each by the same factor.
        step_epochs: epochs of training after each cut but the last; with 0 each is
            scored on what the one before left, without training.
        epochs: epochs after the last; None for the settings', 0 for no training at all.
        neurons_multiple: an ffn keeps a multiple of this; the runtime's products are
            computed in parts of it.
        heads_multiple: the same of heads.
        empty_blocks: whether a layer may lose its whole attention or ffn block.
        search_depth: whether structures of fewer layers, those at even steps, are cut
            and fitted too, for the one whose loss is the least in truth: where most is
            to go, the predicted loss says little. Each takes as long as the first.
    """

    keep: float | None = None
    target_speedup: float | None = None
    target_latency_ms: float | None = None
    score: str = "block_fisher"
    examples: int = 2048
    reconstruct: bool = True
    steps: int = 1
    step_epochs: int = 1
    epochs: int | None = None
    neurons_multiple: int = 64
    heads_multiple: int = 1
    empty_blocks: bool = True
    search_depth: bool = False

    stage = Stage.SHAPE
    needs = ("train",)
    overrides = ("keep", "target_speedup", "target_latency_ms")
    facts_file = "structure.json"
    draws = {"structure.png": drawing.structure}
    # Scores of other sums of floats may tell another unit to be the least important.
    same_on_replicas = False

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: one is out of its range, or there is not one target.
        """
        super().__post_init__()
        targets = {name: getattr(self, name) for name in self.overrides}
        if sum(value is not None for value in targets.values()) != 1:
            raise ValueError("One of `keep`, `target_speedup` and `target_latency_ms` "
                             f"must be given. Received: {targets}")
        check_fields(self, {
            "keep": (self.keep is None or 0 < self.keep < 1, "a fraction in (0, 1)"),
            "target_speedup": (self.target_speedup is None or self.target_speedup > 1,
                               "above 1"),
            "target_latency_ms": (self.target_latency_ms is None
                                  or self.target_latency_ms > 0, "above 0"),
            "score": (self.score in importance.UNIT_SCORES,
                      f"one of {importance.UNIT_SCORES}"),
            **{name: (getattr(self, name) >= 1, "at least 1") for name in (
                "examples", "steps", "neurons_multiple", "heads_multiple")},
            "step_epochs": (self.step_epochs >= 0, "at least 0"),
            "epochs": (self.epochs is None or self.epochs >= 0, "at least 0, or None"),
        })

    @classmethod
    def example(cls) -> Structured:
        """Half of the multiplications, without training."""
        return cls(keep=0.5, epochs=0, examples=16, neurons_multiple=1)

    def target_ms(self, before_ms: float) -> float | None:
        """The time of a request that is aimed at, where one is."""
        return (self.target_latency_ms if self.target_speedup is None
                else before_ms / self.target_speedup)

    def resolve(self, context: Context) -> Structured:
        """Checks that the context tells times where a target is one.

        Raises:
            ValueError: it does not.
        """
        if self.keep is None and context.get("costs") is None:
            raise ValueError("A target of time needs `costs` in the context, from a "
                             "latency table. Received: costs=None")
        return self

    def apply(self, model: keras.Model, context: Context) -> Outcome:
        """Cuts and trains.

        Raises:
            ValueError: no structure meets the target, or the model itself does, or is
                no BERT of plain layers.
        """
        self.resolve(context)
        config = config_of(model)
        costs_of = _without_empty_layers(
            multiplications if self.keep else context.get("costs"))
        before = costs_of(config).whole(config)
        target = (before * self.keep if self.keep else self.target_ms(before)) or before
        if target >= before:
            raise ValueError(
                f"The target must be below what the model takes, {before:.4g}. "
                f"Received: target={target:.4g}")
        # Found before hours of training, not at the last cut.
        search.check_target(config, costs_of(config), target, **self._limits(),
                            layers=self._depths(config)[-1])
        loop = ClosedLoop(config, costs_of(config), target,
                          relative=self.target_latency_ms is None)
        small, left, choices = model, config, []
        for step in range(1, self.steps + 1):
            part = context.within(f"cut_{step}")
            costs = costs_of(left)
            choices.append(self._choose(small, left, costs, loop, step, part))
            small, left = self._cut(small, left, choices[-1].kept, part)
            logging.info("Cut to heads %s, neurons %s: %.4g %s", left.num_heads,
                         left.intermediate_sizes, costs.whole(left), costs.unit)
            if step == self.steps:
                small = drop_empty_layers(small)
            part.fit(small, self.step_epochs if step < self.steps else self.epochs)
        found = choice.facts(config, left, costs_of(config), choices)
        return choice.outcome(model, small, left, found, choices[-1].trials)

    def _limits(self) -> dict:
        """What the search is free to choose, by the names of its arguments."""
        return {name: getattr(self, name) for name in (
            "neurons_multiple", "heads_multiple", "empty_blocks")}

    def _depths(self, config: EncoderConfig) -> list[list[int]]:
        """The layers that structures may be of, the most first."""
        present = [i for i, sizes in enumerate(zip(
            config.num_heads, config.intermediate_sizes, strict=True)) if any(sizes)]
        least = 1 if self.search_depth else len(present)
        return [[present[i] for i in losses.evenly(count, len(present))]
                for count in range(len(present), least - 1, -1)] or [[]]

    def _choose(self, model: keras.Model, config: EncoderConfig, costs: Costs,
                loop: ClosedLoop, step: int, context: Context) -> Choice:
        """What stays after a step; a resumed run finds what it chose."""
        record = (Path(context.state_dir) / "kept.json" if context.state_dir else None)
        if record and record.exists():
            chosen = Choice.read(record)
            loop.correction = chosen.correction
            return chosen
        scores = importance.of(model, self.score, context.train, self.examples,
                               context.task)

        def find(layers: list[int], aim: float) -> Kept:
            return search.search(config, scores, costs, aim, **self._limits(),
                                 layers=layers)

        def timed(layers: list[int]) -> tuple[Kept, tuple[Trial, ...]]:
            return loop.search(config, functools.partial(find, layers))

        if step == self.steps:
            found = list(self._by_depth(config, timed))
        else:
            if step == 1:  # from which all aims on the way to the target follow
                next(self._by_depth(config, timed))
            found = list(self._by_depth(
                config, lambda layers: (find(layers, loop.aim(step / self.steps)), ())))
        best = 0 if len(found) == 1 else self._least_loss(
            model, config, [kept for kept, _ in found], context)
        chosen = Choice.of(found[best][0], scores, found[best][1], loop.correction)
        if record:
            write_whole(record, chosen.to_json())
        return chosen

    def _by_depth(self, config: EncoderConfig,
                  find: Callable[[list[int]], tuple[Kept, tuple[Trial, ...]]]
                  ) -> Iterator[tuple[Kept, tuple[Trial, ...]]]:
        """What is found with the layers of each depth that can meet the target."""
        depths = self._depths(config)
        for layers in depths:
            try:
                yield find(layers)
            except ValueError:  # too many layers for the target
                if layers == depths[-1]:
                    raise

    def _least_loss(self, model: keras.Model, config: EncoderConfig,
                    structures: Sequence[Kept], context: Context) -> int:
        """Which structure has the least loss, once the model is cut to it."""
        known = with_targets(model, context.labelled, self.examples, context.task)
        losses = []
        for kept in structures:
            small, left = self._cut(model, config, kept, context)
            losses.append(mean_loss(drop_empty_layers(small), known, context.task))
            logging.info("Of heads %s, neurons %s the loss is %.4f", left.num_heads,
                         left.intermediate_sizes, losses[-1])
        return int(np.argmin(losses))

    def _cut(self, model: keras.Model, config: EncoderConfig, kept: Kept,
             context: Context) -> tuple[keras.Model, EncoderConfig]:
        """The smaller model, fitted to the one before if asked for, and its sizes."""
        small = cut(model, kept)
        if self.reconstruct:
            reconstruct(model, small, context.labelled, self.examples)
        # Not read from the model: without heads, it would not tell how wide they were.
        return small, kept.config(config)


def _without_empty_layers(costs_of: Callable[[EncoderConfig], Costs]
                          ) -> Callable[[EncoderConfig], Costs]:
    """Costs where a layer of which nothing is left costs nothing."""
    def of(config):
        costs = costs_of(config)
        measure = costs.measure and (lambda whole, small: costs.measure(
            whole.without_empty_layers(), small.without_empty_layers()))
        return dataclasses.replace(
            costs, measure=measure,
            whole=lambda own: costs.whole(own.without_empty_layers()))

    return of
