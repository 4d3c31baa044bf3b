"""The type check of a record's fields; every pass, option and setting has it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from tfopt import compress, train
from tfopt.compress import registry
from tfopt.compress.pruning.schedules import Schedule
from tfopt.pipeline import export_options, options
from tfopt.types import Expression, PathLike, check_types, shown

NAN = math.nan


@dataclasses.dataclass
class Fields:
    """A field of each type that records have."""

    whole: int = 1
    number: float = None  # type: ignore[assignment]  # a default is right
    open: float | None = None
    switch: bool = False
    word: str = ""
    path: PathLike = ""
    words: tuple[str, ...] = ()
    pair: tuple[int, float] = (1, 1.0)
    expressions: tuple[Expression, ...] = ()
    shares: Mapping[Expression, float] = dataclasses.field(default_factory=dict)
    call: Callable[[int], int] | None = None
    any: Any = None


@pytest.mark.parametrize("name, value", [
    ("whole", 3), ("whole", -1), ("whole", np.int64(3)), ("whole", (1 << 63) - 1),
    ("number", 3), ("number", 0.5), ("number", np.float32(0.5)), ("number", None),
    ("open", None), ("open", 0.5), ("switch", True), ("switch", np.bool_(True)),
    ("word", "x"), ("path", "x"), ("path", __import__("pathlib").Path("x")),
    ("words", ("a", "b")), ("words", ["a"]), ("words", ()), ("pair", (1, 2)),
    ("expressions", ("a|b",)), ("shares", {"a.*": 0.5}), ("shares", {}),
    ("call", len), ("call", None), ("any", object())])
def test_what_is_of_the_type_is_taken(name, value):
    check_types(Fields(**{name: value}))


@pytest.mark.parametrize("name, value, rule", [
    ("whole", "1", "a whole number"), ("whole", 1.0, "a whole number"),
    ("whole", True, "a whole number"), ("whole", None, "a whole number"),
    ("whole", 1 << 63, "a whole number"), ("whole", [], "a whole number"),
    ("number", "x", "a finite number"), ("number", NAN, "a finite number"),
    ("number", -math.inf, "a finite number"), ("number", False, "a finite number"),
    ("number", 10 ** 400, "a finite number"),
    ("open", {}, "a finite number or None"), ("switch", 1, "true or false"),
    ("switch", None, "true or false"), ("word", 3, "a text"), ("word", b"x", "a text"),
    ("path", 3, "a text or "), ("words", "ab", "a list of (a text)"),
    ("words", [1], "a list of (a text)"), ("words", {"a": 1}, "a list of (a text)"),
    ("pair", (1,), "a list of (a whole number, a finite number)"),
    ("pair", (1.5, 1), "a list of (a whole number, a finite number)"),
    ("expressions", ["("], "a list of (a regular expression)"),
    ("expressions", ["a{9999999999}"], "a list of (a regular expression)"),
    ("shares", [], "an object, of each a regular expression a finite number"),
    ("shares", {"(": 0.5}, "an object"), ("shares", {"a": "x"}, "an object"),
    ("call", 3, " or None")])
def test_what_is_not_is_one_sentence(name, value, rule):
    with pytest.raises(ValueError) as error:
        check_types(Fields(**{name: value}))
    said = str(error.value)
    assert said.startswith(f"`{name}` must be ") and rule in said
    assert said.endswith(f" Received: {name}={shown(value)}")


# Each is wrong for some fields, and right for others.
ODD = [None, True, 1, -1, 3.5, 10 ** 30, NAN, math.inf, "x", "", "int8", [], [1], ["("],
       [[1]], ["x"], {}, {"a": "b"}, {"(": 0.5}, {"x": 2}]
RECORDS = {**{name: kind.example() for name, kind in compress.all_passes().items()},
           "distillation": train.Distillation(), "settings": train.Settings(),
           "schedule": Schedule(final_sparsity=0.5, end_step=3),
           **{kind.__name__: kind() for kind in (
               options.Files, options.Data, options.Batching, options.Devices,
               export_options.Exports, options.Targets, options.Measuring)}}


@pytest.mark.parametrize("name", RECORDS)
def test_no_field_of_any_value_ends_in_another_error(name):
    """As JSON gives it: what is taken must be of the type, the rest is one sentence."""
    record = RECORDS[name]
    fields = {field.name: getattr(record, field.name)
              for field in dataclasses.fields(record)}
    for field in fields:
        refused = 0
        for value in ODD:
            given = json.loads(json.dumps({field: value}))
            try:
                made = registry.make(type(record), fields | given, "The record")
            except ValueError as error:
                assert "Received: " in str(error) and field in str(error), (given,
                                                                            error)
                refused += 1
            else:
                check_types(made)
        assert refused >= 8, field  # no field takes them all
