"""Axis letters of all shape comments, type aliases, the checks of a record's fields.

    B  batch (examples)                 H  attention heads of one layer
    T  tokens of one example, padded    K  width of one head (D / H before pruning)
    D  width of the residual stream     F  ffn width of one layer
    C  classes                          V  vocabulary rows

Shapes are written ``<float>[B, T, D]``.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
import re
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Protocol

import numpy as np

PathLike = str | os.PathLike[str]
Json = Mapping[str, Any]
# A text that `re` compiles: of a field's type, it is checked (`check_types`).
Expression = Annotated[str, re.compile]

# The three model inputs, <int32>[B, T] each, in the order every part keeps.
INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids")


class BatchSource(Protocol):
    """What training needs of a set of examples (`data.Batches` is one)."""

    @property
    def batch_size(self) -> int:
        """B, examples of a step."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one epoch."""

    def dataset(self, epochs: int = 1, first_step: int = 0) -> Any:
        """A `tf.data.Dataset` of (inputs, targets) over whole epochs."""


def is_labelled(targets: Any) -> Any:
    """Which examples have a target: class numbers from 0, numbers that are not NaN.

    Args:
        targets: <int>[B] or <float>[B], NumPy's or TensorFlow's.

    Returns:
        <bool>[B].
    """
    dtype = getattr(targets.dtype, "as_numpy_dtype", targets.dtype)
    return targets >= 0 if np.issubdtype(dtype, np.integer) else targets == targets


def check_fields(record: Any, rules: Mapping[str, tuple[bool, str]]) -> None:
    """Checks the fields of a dataclass at its construction.

    Args:
        record: the dataclass.
        rules: field -> (whether its rule holds, the rule).

    Raises:
        ValueError: a rule does not hold; the first such field is named.
    """
    for name, (holds, rule) in rules.items():
        if not holds:
            raise ValueError(f"`{name}` must be {rule}. Received: "
                             f"{name}={getattr(record, name)!r}")


def check_types(record: Any) -> None:
    """Checks that the fields of a dataclass are of the types of their annotations.

    A whole number may stand for a float, a list for a tuple; numbers are finite, and
    whole ones fit into 64 bits. A field's default is right whatever its type. To be
    called first in `__post_init__`: what comes from JSON may be anything.

    Args:
        record: the dataclass.

    Raises:
        ValueError: a value is of another type; the first such field is named.
    """
    hints = _hints(type(record))
    for field in dataclasses.fields(record):
        hint = hints.get(field.name, Any)
        value = getattr(record, field.name)
        if value is not field.default and not _is_of(value, hint):
            raise ValueError(f"`{field.name}` must be {_in_words(hint)}. Received: "
                             f"{field.name}={value!r}")


def _hints(kind: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except NameError:  # of a name that is there for type checkers alone
        return {}


def _is_of(value: Any, hint: Any) -> bool:
    """Whether a value is of a type; types that are no plain ones count as any."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_is_of(value, one) for one in inner)
    if origin is Annotated:
        return _is_of(value, inner[0]) and _compiles(value)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False
        each = inner[:1] * len(value) if inner[1:] == (...,) else inner
        return len(each) == len(value) and all(map(_is_of, value, each))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            _is_of(key, inner[0]) and _is_of(item, inner[1])
            for key, item in value.items())
    if hint in (int, float):
        number = numbers.Integral if hint is int else numbers.Real
        return (isinstance(value, number) and not isinstance(value, bool)
                and _fits(value))
    if hint is bool:
        return isinstance(value, bool | np.bool_)
    kind = type(None) if hint is None else origin or hint
    return not isinstance(kind, type) or isinstance(value, kind)


def _fits(number: Any) -> bool:
    if isinstance(number, numbers.Integral):
        return abs(int(number)) < 1 << 63
    return math.isfinite(number)


def _compiles(expression: str) -> bool:
    try:
        re.compile(expression)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


_WORDS = {int: "a whole number", float: "a finite number", bool: "true or false",
          str: "a text", type(None): "None", Expression: "a regular expression"}


def _in_words(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in _WORDS:
        return _WORDS[hint]
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_in_words, inner))
    if origin is tuple:
        each = inner[:1] if inner[1:] == (...,) else inner
        return f"a list of ({', '.join(map(_in_words, each))})"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"an object, of each {_in_words(inner[0])} {_in_words(inner[1])}"
    return f"of type {getattr(hint, '__name__', hint)}"
