"""Axis letters of all shape comments, type aliases, checks and quotes of values.

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
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Protocol

import numpy as np

PathLike = str | os.PathLike[str]
Json = Mapping[str, Any]
# A text that `re` compiles: of a field's type, it is checked (`check_types`).
Expression = Annotated[str, re.compile]

# The three model inputs, <int32>[B, T] each, in the order every part keeps.
INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids")
_SHOWN = 60  # characters of a value, in an error


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
    """Which targets are there: class numbers from 0, numbers that are not NaN.

    Args:
        targets: <int>[B, ...] or <float>[B, ...], NumPy's or TensorFlow's.

    Returns:
        <bool>[B, ...]; of an example whose target is an array, each of its numbers may
        be missing by itself.
    """
    dtype = getattr(targets.dtype, "as_numpy_dtype", targets.dtype)
    return targets >= 0 if np.issubdtype(dtype, np.integer) else targets == targets


def check_fields(record: Any, rules: Mapping[str, tuple[bool, str]]) -> None:
    """Checks the fields of a dataclass at its construction.

    Args:
        record: the dataclass.
        rules: field -> (whether its rule holds, the rule).

    Raises:
        ValueError: a rule does not hold, or a word stands where a list of words must;
            the first such field is named.
    """
    check_lists(**{field.name: getattr(record, field.name)
                   for field in dataclasses.fields(record)
                   if str(field.type).startswith(("tuple[str", "list[str"))})
    for name, (holds, rule) in rules.items():
        if not holds:
            raise ValueError(f"`{name}` must be {rule}. Received: "
                             f"{name}={shown(getattr(record, name))}")


def shown(value: Any, most: int = 200) -> str:
    """A value as a message quotes it, in one line that does not grow with the value.

    Args:
        value: whatever was received; quoted is how Python writes it.
        most: letters of that which are kept.

    Returns:
        Such as "'so bad'", or "[1, 2, ... (9,000 letters)".
    """
    said = repr(value)
    said = " ".join(said.split()) if "\n" in said else said  # of an array, say
    return said if len(said) <= most else f"{said[:most]}... ({len(said):,} letters)"


def few(items: Iterable[Any], most: int = 8) -> str:
    """The first of several items in words, each cut, and how many there are.

    Args:
        items: labels, columns, names.
        most: how many are named.

    Returns:
        Such as "a, b, c, ... (150 in all)".
    """
    said = [str(item)[:40] for item in items]
    more = f", ... ({len(said)} in all)" if len(said) > most else ""
    return ", ".join(said[:most]) + more


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold a text: not one with half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
                             f"{field.name}={shown(value)}")


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


def is_one_line(label: Any) -> bool:
    """Whether a label list, a file of UTF-8 with a label a line, gives a label back."""
    return (isinstance(label, str) and bool(label) and not {"\n", "\r"} & {*label}
            and label[0] != "\ufeff" and is_unicode(label))


def check_lists(**values: Any) -> None:
    """Checks that what are to be lists of words, or texts, are not single ones.

    Python would take such a one for a list of its letters.

    Args:
        **values: name -> list.

    Raises:
        ValueError: one is a string.
    """
    for name, value in values.items():
        if isinstance(value, str | bytes):
            raise ValueError(f"`{name}` must be a list, such as [{value[:_SHOWN]!r}], "
                             f"not one string. Received: {name}={value[:_SHOWN]!r}")
