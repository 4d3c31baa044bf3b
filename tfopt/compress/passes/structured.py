"""Cuts heads, neurons and whole blocks out of a BERT, down to a target.

Scores of a few thousand examples say what matters, a search which structure meets the
target at the least loss, least squares make up for what is gone (minutes, no training);
then, if asked for, training recovers the rest, from a teacher where there is one. In
several steps, each cut is scored on the model that the one before left.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from absl import logging

from tfopt.backend import keras
from tfopt.compress import importance, search
from tfopt.compress.base import Context, Outcome, Pass, Stage
from tfopt.compress.reconstruct import reconstruct
from tfopt.compress.search import Costs
from tfopt.compress.surgery import Kept, cut
from tfopt.files import write_whole
from tfopt.model import BertConfig, anatomy
from tfopt.types import check_fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class Structured(Pass):
    """Removes heads and neurons, physically.

    One target is given. Those of time need the costs of a latency table in the
    context.

    Attributes:
        keep: fraction in (0, 1) of the encoder's multiplications to keep.
        target_speedup: how many times faster than the given model, above 1.
        target_latency_ms: milliseconds of a request, above 0.
        score: one of `importance.SCORES`.
        examples: how many score the units, and fit the projections.
        reconstruct: whether the output projections are fitted to the model before.
        steps: cuts on the way to the target, each by the same factor.
        step_epochs: epochs of training after each cut but the last; with 0 each is
            scored on what the one before left, without training.
        epochs: epochs after the last; None for the settings', 0 for no training at all.
        neurons_multiple: an ffn keeps a multiple of so many; the runtime's products
            are computed in such parts.
        heads_multiple: the same of heads.
        empty_blocks: whether a layer may lose its whole attention or ffn block.
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

    stage = Stage.SHAPE
    needs = ("train",)
    # Scores of other sums of floats may tell another unit to be the least important.
    same_on_replicas = False

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: one is out of its range, or there is not one target.
        """
        targets = {name: getattr(self, name) for name in (
            "keep", "target_speedup", "target_latency_ms")}
        if sum(value is not None for value in targets.values()) != 1:
            raise ValueError("One of `keep`, `target_speedup` and `target_latency_ms` "
                             f"must be given. Received: {targets}")
        check_fields(self, {
            "keep": (self.keep is None or 0 < self.keep < 1, "a fraction in (0, 1)"),
            "target_speedup": (self.target_speedup is None or self.target_speedup > 1,
                               "above 1"),
            "target_latency_ms": (self.target_latency_ms is None
                                  or self.target_latency_ms > 0, "above 0"),
            "score": (self.score in importance.SCORES, f"one of {importance.SCORES}"),
            **{name: (getattr(self, name) >= 1, "at least 1") for name in (
                "examples", "steps", "neurons_multiple", "heads_multiple")},
            "step_epochs": (self.step_epochs >= 0, "at least 0"),
            "epochs": (self.epochs is None or self.epochs >= 0, "at least 0, or None"),
        })

    @classmethod
    def example(cls) -> Structured:
        """Half of the multiplications, without training."""
        return cls(keep=0.5, epochs=0, examples=16, neurons_multiple=1)

    def resolve(self, context: Context) -> Structured:
        """Checks that the context tells times where a target is one.

        Raises:
            ValueError: it does not.
        """
        if self.keep is None and context.costs is None:
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
        config = anatomy.config_of(model)
        costs_of = search.multiplications if self.keep else context.costs
        before = costs_of(config).whole(config)
        target = self._target(before)
        if target >= before:
            raise ValueError(
                f"The target must be below what the model takes, {before:.4g}. "
                f"Received: target={target:.4g}")
        # Found before hours of training, not at the last cut.
        search.check_target(config, costs_of(config), target, **self._limits())
        small, left = model, config
        for step in range(1, self.steps + 1):
            aim = before * (target / before) ** (step / self.steps)
            part = context.within(f"cut_{step}")
            small, left = self._cut(small, left, costs_of(left), aim, part)
            part.fit(small, self.step_epochs if step < self.steps else self.epochs)
        return _outcome(model, config, small, left, costs_of(config))

    def _target(self, before: float) -> float:
        if self.keep is not None:
            return before * self.keep
        if self.target_speedup is not None:
            return before / self.target_speedup
        return self.target_latency_ms

    def _limits(self) -> dict:
        """What the search is free to choose, by the names of its arguments."""
        return {name: getattr(self, name) for name in (
            "neurons_multiple", "heads_multiple", "empty_blocks")}

    def _cut(self, model: keras.Model, config: BertConfig, costs: Costs, aim: float,
             context: Context) -> tuple[keras.Model, BertConfig]:
        """The model cut down to a cost; a resumed run finds what it chose."""
        record = context.state_dir and Path(context.state_dir) / "kept.json"
        if record and record.exists():
            fields = json.loads(record.read_text(encoding="utf-8"))
            kept = Kept(**{name: tuple(map(tuple, units))
                           for name, units in fields.items()})
        else:
            scores = importance.of(model, self.score, context.train, self.examples)
            kept = search.search(config, scores, costs, aim, **self._limits())
            if record:
                write_whole(record, json.dumps(dataclasses.asdict(kept)))
        small = cut(model, kept)
        if self.reconstruct:
            reconstruct(model, small, context.train, self.examples)
        # Not read from the model: without heads, it would not tell how wide they were.
        left = kept.config(config)
        logging.info("Cut to heads %s, neurons %s: %.4g %s", left.num_heads,
                     left.intermediate_sizes, costs.whole(left), costs.unit)
        return small, left


def _outcome(before: keras.Model, config: BertConfig, after: keras.Model,
             left: BertConfig, costs: Costs) -> Outcome:
    shapes = {layer.name: layer.kernel.shape for layer in anatomy.encoder_dense(after)}
    touched, skipped = [], {}
    for layer in anatomy.encoder_dense(before):
        if layer.kernel.shape != shapes.get(layer.name):
            touched.append(layer.name)
        else:
            skipped[layer.name] = "all of it matters more than what went"
    old, new = costs.whole(config), costs.whole(left)
    times = f" ({old / new:.2f}x)" if new else ""
    note = (f"heads left {', '.join(map(str, left.num_heads))}; neurons left "
            f"{', '.join(map(str, left.intermediate_sizes))}; predicted {new:.4g} "
            f"{costs.unit} of {old:.4g}{times}")
    return Outcome(model=after, touched=tuple(touched), skipped=skipped, notes=(note,))
