"""The contract of a compression pass: Model -> Model.

A pass is a frozen dataclass in a file of its own under `passes/`; its fields are its
only knobs, its module's name is its name. A pass that trains gives `wrap`,
`callbacks` and `strip`, which also serve a user's own `model.fit`; one that does not
overrides `apply`.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from tfopt.backend import keras
from tfopt.compress.context import Context
from tfopt.types import check_types


class Stage(enum.IntEnum):
    """What a pass changes. A recipe's passes never go back a stage."""

    SHAPE = 1  # sizes
    WEIGHTS = 2  # values
    NUMERICS = 3  # arithmetic


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a pass did.

    Attributes:
        model: the compressed model.
        touched: names of the layers it changed.
        skipped: names of the layers it could have changed and did not -> the reason.
        figures: what it claims, by metric name; held against measurement.
        notes: sentences for the report.
        provides: names of the context's fields and resources -> what the passes after
            it, and who ships the model, need in place of the ones given, such as
            batches of new ids and their tokenizer.
        facts: what it found, as JSON has it; its module says what, and a file beside
            the model keeps it (`compress.facts`).
    """

    model: keras.Model
    touched: tuple[str, ...]
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)
    figures: Mapping[str, float] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    provides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pass:
    """Base of all passes; a subclass adds fields and methods.

    Class attributes:
        stage: what it changes.
        needs: names of the `Context`'s fields and resources without which it cannot
            run.
        provides: names of those that its outcome may replace.
        overrides: fields of which one may be set from outside of a recipe, such as by a
            command line; the others are then at their default.
        facts_file: the file beside the model that keeps the outcome's facts; "" for
            one of the pass's name.
        draws: name of a picture -> what draws it of the outcome's facts: a PNG, or None
            where that is not installed.
        for_tensorflow: whether what it makes is of use where TensorFlow alone, not
            LiteRT, runs the model.
        same_on_replicas: whether several devices give, but for rounding, the weights
            that one gives; not so where a pass gathers squares of gradients, say, and
            each replica those of its own share of the batch.
        may_touch_nothing: whether that there is nothing to do is an answer, such as
            where a trial tells, or nothing is meant to be done; elsewhere it is an
            error.
    """

    stage: ClassVar[Stage]
    needs: ClassVar[tuple[str, ...]] = ()
    provides: ClassVar[tuple[str, ...]] = ()
    overrides: ClassVar[tuple[str, ...]] = ()
    facts_file: ClassVar[str] = ""
    draws: ClassVar[Mapping[str, Callable[[Mapping[str, Any]], bytes | None]]] = {}
    for_tensorflow: ClassVar[bool] = False
    same_on_replicas: ClassVar[bool] = True
    may_touch_nothing: ClassVar[bool] = False

    def __post_init__(self):
        """Checks the types of the fields; a subclass calls it before it checks more.

        Raises:
            ValueError: a field is of another type than its annotation says.
        """
        check_types(self)

    @classmethod
    def name(cls) -> str:
        """The name in a recipe: that of the pass's module."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def example(cls) -> Pass:
        """The smallest instance that does something, for tests."""
        return cls()

    @property
    def trains(self) -> bool:
        """Whether it trains the model, as a whole run's settings say or by its own."""
        if hasattr(self, "epochs"):  # None is as many as the settings'
            return self.epochs != 0
        return type(self).apply is Pass.apply

    def overriding(self, given: Mapping[str, Any]) -> Pass:
        """The pass with one of `overrides` set from outside, in place of the others."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)
                    if field.name in self.overrides}
        return dataclasses.replace(self, **{**defaults, **given})

    def target_ms(self, before_ms: float) -> float | None:
        """The time that a request is to take, of one that took `before_ms`, if any."""
        return None

    def resolve(self, context: Context) -> Pass:
        """Fills in what only the context can tell, such as the length of the run."""
        return self

    def wrap(self, model: keras.Model) -> keras.Model:
        """Returns a copy of the model, ready to be trained under this pass."""
        raise TypeError(f"The pass {self.name()!r} does not train. Received: wrap()")

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns the callbacks that `fit` of the wrapped model needs."""
        return []

    def strip(self, model: keras.Model) -> keras.Model:
        """Returns a plain model from a wrapped and trained one.

        Raises:
            ValueError: it was not wrapped, or training did not do the pass's work on
                it, as without `callbacks`, or in too few steps.
        """
        raise TypeError(f"The pass {self.name()!r} does not train. Received: strip()")

    def first_valid_step(self) -> int:
        """The training step from which a wrapped model is in its final form."""
        return 0

    def outcome(self, before: keras.Model, after: keras.Model) -> Outcome:
        """Says what `strip` left: layers touched and skipped, and the figures."""
        raise TypeError(f"The pass {self.name()!r} does not train. Received: outcome()")

    def apply(self, model: keras.Model, context: Context) -> Outcome:
        """Runs the pass: by default wrap, fit, strip.

        Args:
            model: a copy that is the pass's own.
            context: has all that `needs` names.

        Returns:
            What was done, with the new model.
        """
        chosen = self.resolve(context)
        wrapped = chosen.wrap(model)
        context.fit(wrapped, callbacks=chosen.callbacks(),
                    first_valid_step=chosen.first_valid_step())
        return chosen.outcome(model, chosen.strip(wrapped))

    def to_fields(self) -> dict[str, Any]:
        """The pass as JSON values: {"pass": name, field: value, ...}."""
        return {"pass": self.name(), **dataclasses.asdict(self)}
