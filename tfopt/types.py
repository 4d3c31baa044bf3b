"""Axis letters of all shape comments, type aliases, the check of a record's fields.

    B  batch (examples)                 H  attention heads of one layer
    T  tokens of one example, padded    K  width of one head (D / H before pruning)
    D  width of the residual stream     F  ffn width of one layer
    C  classes                          V  vocabulary rows

Shapes are written ``<float>[B, T, D]``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

PathLike = str | os.PathLike[str]
Json = Mapping[str, Any]

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
        """A `tf.data.Dataset` of (inputs, class ids) over whole epochs."""


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
