"""What a search tries: recipes, and numbers of theirs, each with its range or values.

A space is a JSON object, one field for each thing that may differ between trials:

    {"recipe": ["int8", "structured_distilled_quantized"],
     "target_speedup": {"low": 1.5, "high": 4},
     "learning_rate": {"low": 3e-5, "high": 1e-3, "log": true},
     "hard_weight": [0, 0.5, 1]}
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfopt.files import parse_json
from tfopt.pipeline import recipes
from tfopt.pipeline.teacher_options import AUTO
from tfopt.types import PathLike, shown

if TYPE_CHECKING:
    from optuna.trial import Trial

    from tfopt import compress
    from tfopt.pipeline.job import Job

RECIPE, SPEED, SCHEME = "recipe", "target_speedup", "scheme"
_SETTINGS = ("epochs", "learning_rate", "weight_decay")
_WEIGHTS = ("soft_weight", "hard_weight", "hidden_weight", "relations_weight",
            "temperature")
_OF_TEACHER = (*_WEIGHTS, "augment")
_WHOLE = ("epochs", "augment")  # numbers without a fraction
FIELDS = (RECIPE, SPEED, SCHEME, *_SETTINGS, *_OF_TEACHER)
_LEAST = {SPEED: 1.0, "epochs": 1, "learning_rate": 1e-12, "temperature": 1e-3}
_RULE = "A space must be a JSON object"
KNOWN_SPEEDS = (1.5, 2.0, 3.0)  # at which recipes that cut are tried first


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Attributes:
        low: the least.
        high: the largest, above it.
        log: whether ratios count, not differences.
        whole: whether the numbers have no fraction.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def suggest(self, trial: Trial, name: str) -> float:
        """A number that the trial is to try."""
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def to_json(self) -> dict[str, Any]:
        """The range as a space's file has it; its field says whether it is whole."""
        return {"low": self.low, "high": self.high, "log": self.log}

    def nearest(self, value: Any) -> float:
        """The number of the range that is nearest to one."""
        found = min(max(float(value), self.low), self.high)
        return round(found) if self.whole else found


@dataclasses.dataclass(frozen=True)
class Values:
    """Values, one of which a trial has."""

    values: tuple[Any, ...]

    def suggest(self, trial: Trial, name: str) -> Any:
        """A value that the trial is to try."""
        return trial.suggest_categorical(name, self.values)

    def to_json(self) -> list[Any]:
        """The values as a space's file has them."""
        return list(self.values)

    def nearest(self, value: Any) -> Any:
        """The value itself if it is there, else the nearest number, or the first."""
        if value in self.values:
            return self.values[self.values.index(value)]
        numbers = [own for own in self.values if isinstance(own, int | float)]
        if numbers and isinstance(value, int | float):
            return min(numbers, key=lambda own: abs(own - value))
        return self.values[0]


@dataclasses.dataclass(frozen=True)
class Space:
    """What trials differ in.

    Attributes:
        recipes: their names or files.
        fields: name, of the others of `FIELDS`, -> what it may be.
    """

    recipes: Values
    fields: Mapping[str, Range | Values]

    @classmethod
    def default(cls, job: Job) -> Space:
        """The space of a job for which none is given."""
        epochs = job.settings.epochs
        return cls.from_fields({
            RECIPE: ["int8", "structured", "structured_distilled",
                     "structured_distilled_quantized"],
            SPEED: {"low": 1.25, "high": 4.0, "log": True},
            "learning_rate": {"low": 3e-5, "high": 1e-3, "log": True},
            "hard_weight": [0.0, 0.5, 1.0], "hidden_weight": [0.0, 1.0],
            **({"epochs": {"low": 1, "high": epochs}} if epochs > 1 else {}),
        }, "default")

    @classmethod
    def load(cls, path: PathLike) -> Space:
        """Reads a space.

        Raises:
            ValueError: the file is missing, or is no space; names it.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"--space must be a file of UTF-8. Received: {path}: "
                             f"{error}") from error
        return cls.from_fields(parse_json(text, str(path), _RULE), str(path))

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], name: str) -> Space:
        """Checks the fields of a space.

        Args:
            fields: of its JSON.
            name: in messages: its file.

        Raises:
            ValueError: a field is unknown, is neither a list nor a range, or holds a
                value out of its bounds; or there is no recipe.
        """
        unknown = sorted(set(fields) - set(FIELDS))
        if unknown:
            raise ValueError(f"A space has the fields {', '.join(FIELDS)}. Received: "
                             f"{name} with {shown(', '.join(unknown))}")
        found = {field: _read(field, fields[field], name) for field in fields}
        own = found.pop(RECIPE, None)
        if not isinstance(own, Values):
            raise ValueError("A space must have a list of recipes, 'recipe'. Received: "
                             f"{name} without one")
        for recipe in own.values:  # a mistake is found before any work
            recipes.load(recipe)
        return cls(own, found)

    def to_json(self) -> dict[str, Any]:
        """The space as JSON has it."""
        return {name: field.to_json()
                for name, field in {RECIPE: self.recipes, **self.fields}.items()}

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """What a trial is to try: those fields that its recipe has a use for."""
        found = {RECIPE: self.recipes.suggest(trial, RECIPE)}
        recipe = recipes.load(found[RECIPE])
        return found | {name: self.fields[name].suggest(trial, name)
                        for name in self._used(recipe)}

    def known(self, job: Job) -> list[dict[str, Any]]:
        """What is tried first: each recipe as it is, at several speeds where it cuts.

        Recipes with more to choose come first: one with a teacher before one without.
        """
        found = []
        read = {name: recipes.load(name) for name in self.recipes.values}
        for name, recipe in sorted(read.items(),
                                   key=lambda item: -len(self._used(item[1]))):
            used = self._used(recipe)
            usual = {**{field: getattr(job.settings, field) for field in _SETTINGS},
                     **_usual_weights(recipe, job), SCHEME: recipe.exports[-1]}
            for speed in KNOWN_SPEEDS if SPEED in used else (1.0,):
                usual[SPEED] = speed
                params = {RECIPE: name} | {
                    field: self.fields[field].nearest(usual[field]) for field in used}
                if params not in found:
                    found.append(params)
        return found

    def _used(self, recipe: compress.Recipe) -> list[str]:
        """The fields that change something of a recipe."""
        trains = any(step.trains for step in recipe.passes)
        cuts = any(SPEED in step.overrides for step in recipe.passes)
        distils = trains and recipe.distillation is not None
        uses = {SPEED: cuts, SCHEME: True, **dict.fromkeys(_SETTINGS, trains),
                **dict.fromkeys(_OF_TEACHER, distils)}
        return [name for name in self.fields if uses.get(name)]


def applied(job: Job, params: Mapping[str, Any]) -> Job:
    """The job of a trial.

    Args:
        job: whose trials they are.
        params: of `Space.suggest`.

    Raises:
        ValueError: a value is out of its range.
    """
    recipe = recipes.load(params[RECIPE])
    scheme = params.get(SCHEME, recipe.exports[-1])
    recipe = dataclasses.replace(recipe, exports=(scheme,), passes=tuple(
        _for_scheme(step, scheme) for step in recipe.passes))

    def with_params(record: Any, names: tuple[str, ...]) -> Any:
        return dataclasses.replace(record, **{
            name: params[name] for name in names if name in params})

    return dataclasses.replace(
        job, recipe=recipe, settings=with_params(job.settings, _SETTINGS),
        teacher=with_params(job.teacher, _OF_TEACHER),
        targets=with_params(job.targets, (SPEED,)))


def in_words(params: Mapping[str, Any]) -> str:
    """What a trial is of, in a line."""
    others = ", ".join(f"{name}={value:.4g}" if isinstance(value, float) else
                       f"{name}={value}" for name, value in params.items()
                       if name != RECIPE)
    return f"{params[RECIPE]}{' with ' if others else ''}{others}"


def _for_scheme(step: compress.Pass, scheme: str) -> compress.Pass:
    """A pass, which trains for an export's rounding if it trains for any."""
    has = any(field.name == SCHEME for field in dataclasses.fields(step))
    change: dict[str, Any] = {SCHEME: scheme} if has else {}
    return dataclasses.replace(step, **change)


def _usual_weights(recipe: compress.Recipe, job: Job) -> dict[str, Any]:
    """What a recipe, or the job beside it, says of a teacher."""
    given = {name: getattr(job.teacher, name) for name in _OF_TEACHER}
    own = recipe.distillation
    return {name: value if value not in (None, AUTO)
            else getattr(own, name, 0) if own else 0 for name, value in given.items()}


def _read(field: str, value: Any, name: str) -> Range | Values:
    """A field of a space.

    Raises:
        ValueError: it is none.
    """
    words = field in (RECIPE, SCHEME)
    if isinstance(value, list) and value and len({repr(own) for own in value}) == len(
            value) and all(isinstance(own, str) if words else _fits(field, own)
                           for own in value):
        return Values(tuple(value))
    if isinstance(value, Mapping) and not words and set(value) <= {
            "low", "high", "log"}:
        low, high = value.get("low", math.nan), value.get("high", math.nan)
        log = value.get("log", False)
        if _fits(field, low) and _fits(field, high) and low < high and isinstance(
                log, bool) and (low > 0 or not log):
            return Range(low, high, log, field in _WHOLE)
    form = "a list of names" if words else (
        "a list of numbers, or a range of 'low' < 'high' (and 'log': true where low is "
        f"above 0), from {_LEAST.get(field, 0):g} on")
    raise ValueError(f"{field!r} of a space must be {form}, each once. Received: "
                     f"{name} with {shown(value)}")


def _fits(field: str, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return (math.isfinite(value) and value >= _LEAST.get(field, 0)
            and (field not in _WHOLE or value == int(value)))
