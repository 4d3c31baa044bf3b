"""Axis letters of all shape comments, type aliases, the check of a record's fields.

    B  batch (examples)                 H  attention heads of one layer
    T  tokens of one example, padded    K  width of one head (D / H before pruning)
    D  width of the residual stream     F  ffn width of one layer
    C  classes                          V  vocabulary rows

Shapes are written ``<float>[B, T, D]``.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
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
                             f"{name}={getattr(record, name)!r}")


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
