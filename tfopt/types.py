"""Axis letters of all shape comments, type aliases, checks and quotes of values.

    B  batch (examples)                 H  attention heads of one layer
    T  tokens of one example, padded    K  width of one head (D / H before pruning)
    D  width of the residual stream     F  ffn width of one layer
    C  classes                          V  vocabulary rows

Shapes are written ``<float>[B, T, D]``.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

PathLike = str | os.PathLike[str]
Json = Mapping[str, Any]

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
