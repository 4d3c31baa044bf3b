"""What a cut chose, kept for a resumed run, and told to a reader: facts and notes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfopt.backend import keras
from tfopt.compress.base import Outcome
from tfopt.compress.costs import Costs
from tfopt.compress.structure import closed_loop
from tfopt.compress.structure.closed_loop import Trial
from tfopt.compress.structure.importance import Importance
from tfopt.compress.structure.slicing import Kept
from tfopt.files import read_json, to_json
from tfopt.model import EncoderConfig
from tfopt.model.anatomy import Anatomy
from tfopt.model.heads import head_of
from tfopt.model.weight_shapes import num_parameters
from tfopt.types import check_types


@dataclasses.dataclass(frozen=True)
class Choice:
    """What stays after a cut.

    Attributes:
        kept: heads and neurons.
        head_scores: of the heads there were, by layer: by how much the loss is thought
            to rise when a head goes, after those of its layer that go before it.
        trials: what was timed, the structure that is kept last.
        correction: as of `ClosedLoop`, after them.
    """

    kept: Kept
    head_scores: tuple[tuple[float, ...], ...]
    trials: tuple[Trial, ...] = ()
    correction: float = 1.0

    @classmethod
    def of(cls, kept: Kept, scores: Importance, trials: Sequence[Trial],
           correction: float) -> Choice:
        """A choice by scores."""
        return cls(kept, tuple(
            tuple(np.diff(block.loss)[np.argsort(block.order)].tolist())
            for block in scores.heads), tuple(trials), correction)

    def to_json(self) -> str:
        """The choice as JSON."""
        return to_json(dataclasses.asdict(self))

    @classmethod
    def read(cls, path: Path) -> Choice:
        """Reads a file of what `to_json` wrote.

        Raises:
            ValueError: it is damaged.
        """
        rule = "The record of a cut cannot be read; remove it, and it is chosen anew"
        fields = read_json(path, rule)
        try:
            kept = Kept(**{name: tuple(map(tuple, units))
                           for name, units in fields["kept"].items()})
            trials = [Trial(**trial | {name: tuple(trial[name]) for name in (
                "num_heads", "intermediate_sizes")}) for trial in fields["trials"]]
            found = cls(kept, tuple(map(tuple, fields["head_scores"])), tuple(trials),
                        fields["correction"])
            for record in (kept, *trials, found):
                check_types(record)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{rule}. Received: {path}: {error!r}") from error
        return found


def facts(config: EncoderConfig, left: EncoderConfig, costs: Costs,
          choices: Sequence[Choice]) -> dict[str, Any]:
    """What was found, as JSON has it.

    Args:
        config: sizes before.
        left: and after.
        costs: of the former.
        choices: of all cuts.

    Returns:
        In lists of an entry a layer: "num_heads" and "intermediate_sizes" before;
        "head_scores" of every head in the first cut; "heads_kept", by their numbers
        before; "neurons_kept", how many; and the costs "predicted_before" and
        "predicted", in "unit"; and "trials" where structures were timed.
    """
    heads = [list(range(count)) for count in config.num_heads]
    for choice in choices:
        heads = [[numbers[i] for i in stay] for numbers, stay in
                 zip(heads, choice.kept.heads, strict=True)]
    return {
        "num_heads": list(config.num_heads),
        "head_scores": list(map(list, choices[0].head_scores)), "heads_kept": heads,
        "intermediate_sizes": list(config.intermediate_sizes),
        "neurons_kept": list(left.intermediate_sizes),
        "predicted": float(costs.whole(left)),
        "predicted_before": float(costs.whole(config)), "unit": costs.unit,
        **closed_loop.facts_of(choices[-1].trials)}


def outcome(before: keras.Model, after: keras.Model, left: EncoderConfig,
            found: dict[str, Any], trials: Sequence[Trial]) -> Outcome:
    """Says what `facts` has of two models, and what was timed.

    Args:
        before: the model that was given.
        after: what it became.
        left: the sizes of what is left of each of its layers.
        found: the facts.
        trials: of the last cut.
    """
    touched, skipped = [], {}
    for i, layer in enumerate(Anatomy.of(before).layers):
        fewer = (len(found["heads_kept"][i]) < found["num_heads"][i],
                 found["neurons_kept"][i] < found["intermediate_sizes"][i])
        for block, smaller in zip(layer.blocks, fewer, strict=True):
            for name in (dense.name for dense in block.dense) if block else ():
                if smaller:
                    touched.append(name)
                else:
                    skipped[name] = "all of it stays"
    old, new, unit = (found[key] for key in ("predicted_before", "predicted", "unit"))
    times = f" ({old / new:.2f}x)" if new else ""
    heads = ", ".join(str(len(kept)) for kept in found["heads_kept"])
    neurons = ", ".join(map(str, found["neurons_kept"]))
    notes = [f"heads left {heads}; neurons left {neurons}; predicted {new:.4g} {unit} "
             f"of {old:.4g}{times}"]
    if trials:
        notes.append(f"timed before it was cut: {closed_loop.said_of(trials, unit)}")
    parameters = num_parameters(left.without_empty_layers(), head_of(before))
    return Outcome(model=after, touched=tuple(touched), skipped=skipped,
                   notes=tuple(notes), facts=found,
                   figures={"parameters": float(parameters)})
