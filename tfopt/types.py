"""Axis letters and type aliases, used by every shape comment of the package.

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
    """What training needs of a set of examples (`data.Batches` is one).

    Attributes:
        batch_size: B, examples of a step.
    """

    batch_size: int

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one epoch."""

    def dataset(self, epochs: int = 1, first_step: int = 0) -> Any:
        """A `tf.data.Dataset` of (inputs, class ids) over whole epochs."""
