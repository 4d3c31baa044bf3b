"""A recipe: passes in their order, what they learn from a teacher, exports; its run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absl import logging

from tfopt import checks
from tfopt.backend import keras
from tfopt.compress import layer_selection, registry
from tfopt.compress.base import Context, Outcome, Pass, Stage
from tfopt.files import parse_json, to_json
from tfopt.functional import copy_model
from tfopt.train.distill.config import Distillation
from tfopt.train.distribute import workers
from tfopt.types import PathLike, check_fields, shown

Measure = Callable[[keras.Model], Mapping[str, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Passes and exports, and whether the training distils.

    Attributes:
        passes: run one after the other; their stages never go back.
        exports: schemes of `export.tflite`, such as "dynamic_wi8_afp32"; the last one
            becomes `model.tflite`.
        distillation: what the passes that train learn from the context's teacher, which
            must then be there, in place of the context's own; None leaves it to the
            context.
    """

    passes: tuple[Pass, ...]
    exports: tuple[str, ...] = ("float32", "dynamic_wi8_afp32")
    distillation: Distillation | None = None

    def __post_init__(self):
        """Checks the order.

        Raises:
            ValueError: there is no pass or export, or a stage goes back.
        """
        check_fields(self, {})
        if not self.passes or not self.exports:
            raise ValueError("A recipe needs at least one pass and one export. "
                             f"Received: passes={self.passes}, exports={self.exports}")
        stages = [p.stage for p in self.passes]
        if stages != sorted(stages):
            raise ValueError(
                "A recipe's passes must go SHAPE, WEIGHTS, NUMERICS. Received: "
                + ", ".join(f"{p.name()} ({p.stage.name})" for p in self.passes))

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: no JSON object of "passes", "exports" and "distillation", or one
                of these is wrong.
        """
        fields = parse_json(text, repr(text[:60]), "A recipe must be a JSON object of "
                            "'passes', 'exports' and 'distillation'")
        if not set(fields) <= {"passes", "exports", "distillation"}:
            raise ValueError("A recipe must be an object of 'passes', 'exports' and "
                             f"'distillation'. Received: {text[:80]!r}")
        passes = fields.get("passes")
        if not isinstance(passes, list) or not all(
                isinstance(item, dict) for item in passes):
            raise ValueError("A recipe's 'passes' must be a list of objects. Received: "
                             f"passes={shown(passes)}")
        exports = fields.get("exports", cls.exports)
        if not isinstance(exports, list | tuple) or not all(
                isinstance(item, str) for item in exports):
            raise ValueError("A recipe's 'exports' must be a list of names. Received: "
                             f"exports={shown(exports)}")
        distils = fields.get("distillation")
        if not isinstance(distils, dict | None):
            raise ValueError("A recipe's 'distillation' must be an object. Received: "
                             f"distillation={shown(distils)}")
        return cls(passes=tuple(map(registry.from_fields, passes)),
                   exports=tuple(exports),
                   distillation=None if distils is None else registry.make(
                       Distillation, distils, "A recipe's 'distillation'"))

    def overriding(self, given: Mapping[str, Any]) -> Recipe:
        """The recipe with a pass's target set from outside, in place of its own.

        Args:
            given: the field -> its value, of a pass that has it in `overrides`; nothing
                leaves the recipe as it is.

        Raises:
            ValueError: several fields are given, or not one pass has it.
        """
        if not given:
            return self
        places = [number for number, step in enumerate(self.passes)
                  if set(given) <= set(step.overrides)]
        if len(given) > 1 or len(places) != 1:
            raise ValueError("One target, for a recipe of which one pass has it, can "
                             f"be set from outside. Received: {dict(given)}, passes "
                             f"{[step.name() for step in self.passes]}")
        passes = list(self.passes)
        passes[places[0]] = passes[places[0]].overriding(given)
        return dataclasses.replace(self, passes=tuple(passes))

    @classmethod
    def load(cls, path: PathLike) -> Recipe:
        """Reads a recipe file.

        Raises:
            ValueError: as `from_json`, or the file is missing; names the file.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"A recipe must be a file of UTF-8. Received: {path}: "
                             f"{error}") from error
        try:
            return cls.from_json(text)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def to_json(self) -> str:
        """The recipe as JSON."""
        fields: dict[str, Any] = {"passes": [p.to_fields() for p in self.passes],
                                  "exports": list(self.exports)}
        if self.distillation is not None:
            fields["distillation"] = dataclasses.asdict(self.distillation)
        return to_json(fields, indent=2) + "\n"


def run(model: keras.Model, recipe: Recipe, context: Context,
        measure: Measure | None = None) -> list[Outcome]:
    """Runs a recipe's passes.

    Args:
        model: the baseline; it is left as it is.
        recipe: what to run.
        context: what the passes may use.
        measure: counts a model anew after each pass; its figures replace those that
            the pass claims.

    Returns:
        An outcome for each pass, in their order.

    Raises:
        ValueError: as `check`, the model is of another task, a pass touched nothing or
            changed the model's inputs or output, or other workers run another recipe.
    """
    check(recipe, context)
    checks.check(model)
    context.task.check_outputs(model.output_shape)
    if context.task.outputs:  # else it stands for no task in particular
        context.task.objective().check(model)
    strategy = model.distribute_strategy
    if workers.count(strategy) > 1:  # else a pass may hold what JSON does not
        workers.check_same(strategy, recipe.to_json(),
                           "All workers must run the same recipe.")
    context = _distilling(recipe, context)
    context.check_states(teaches_states(recipe))
    outcomes = []
    for number, step in enumerate(recipe.passes):
        label = f"{number}_{step.name()}"
        logging.info("Pass %s", label)
        with strategy.scope():
            outcome = step.apply(copy_model(model), context.within(label))
        _check_signature(step, model, outcome.model)
        if not outcome.touched and not step.may_touch_nothing:
            raise ValueError(f"The pass {step.name()!r} matched no layer. Received: "
                             f"layers {[layer.name for layer in model.layers][:8]}...")
        if measure is not None:
            outcome = dataclasses.replace(outcome, figures=measure(outcome.model))
        outcomes.append(outcome)
        model = outcome.model
        context = context.replaced(outcome.provides)
    return outcomes


def check(recipe: Recipe, context: Context) -> None:
    """Checks what can be known before a model is there.

    Raises:
        ValueError: the context lacks what a pass or the distillation needs, or one of
            these does not fit it, such as a ramp that is longer than the run.
    """
    context = _distilling(recipe, context)
    context.check_states(teaches_states(recipe))
    for step in recipe.passes:
        missing = [name for name in step.needs if context.get(name) is None]
        if missing:
            raise ValueError(f"The pass {step.name()!r} needs {', '.join(missing)}. "
                             "Received: a context without")
        step.resolve(context)


def check_layers(recipe: Recipe, model: keras.Model) -> None:
    """Checks, before it is trained, that a model has the layers that passes name.

    Behind a pass that changes sizes they may have names of its own.

    Raises:
        ValueError: an expression matches none of the model's layers.
    """
    layers = [layer for layer in model.layers if layer.weights]
    for step in recipe.passes:
        named = (*getattr(step, "only", ()), *getattr(step, "leave", ()))
        layer_selection.check_expressions(
            named, layers, f", by the pass {step.name()!r}")
        if step.stage is Stage.SHAPE and not step.may_touch_nothing:
            return


def teaches_states(recipe: Recipe) -> bool:
    """Whether the first pass leaves a teacher of hidden states to the others."""
    first = recipe.passes[0]
    return "states_teacher" in first.provides and "teacher" not in first.provides


def names_layers(recipe: Recipe) -> bool:
    """Whether a pass has expressions of layers."""
    return any(getattr(step, field, ()) for step in recipe.passes
               for field in ("only", "leave"))


def _distilling(recipe: Recipe, context: Context) -> Context:
    """The context with what the recipe says is learned from its teacher."""
    if recipe.distillation is None:
        return context
    if context.teacher is None:
        raise ValueError("A recipe that distils needs a teacher in the context. "
                         "Received: teacher=None")
    return dataclasses.replace(context, distillation=recipe.distillation)


def _check_signature(step: Pass, before: keras.Model, after: keras.Model) -> None:
    def signature(model):
        return [(t.name.partition(":")[0], t.shape.as_list(), t.dtype.name)
                for t in model.inputs], [t.shape.as_list() for t in model.outputs]

    if signature(before) != signature(after):
        raise ValueError(
            f"The pass {step.name()!r} must keep the model's inputs and output. "
            f"Received: {signature(before)} before, {signature(after)} after")
