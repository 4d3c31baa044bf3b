"""What a model is to give for N examples -> one array, padded where lengths differ.

A target is a number, or an array: a row of labels, a tag a token, a vector. What is
missing is -1 among whole numbers and NaN among others (`types.is_labelled`). NumPy
alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def missing(dtype: Any) -> float:
    """What stands for a missing target of a type: -1, or NaN."""
    return -1 if np.issubdtype(dtype, np.integer) else math.nan


def build(targets: Sequence, lengths: np.ndarray, *, per_token: bool = False
          ) -> np.ndarray:
    """Puts targets together.

    Args:
        targets: of N examples: numbers, or arrays of one shape; None where an example
            has none.
        lengths: <int>[N], tokens of each example.
        per_token: whether the first axis of an example's target is that of its tokens,
            which differ in number.

    Returns:
        <int32>[N, ...] of whole numbers, <float32>[N, ...] of others; with `per_token`
        <...>[N, longest, ...].

    Raises:
        ValueError: there are not N targets, they differ in shape, or one has not a
            number for each token.
    """
    if len(targets) != len(lengths):
        raise ValueError("There must be one target an example. Received: "
                         f"{len(targets)} targets, {len(lengths)} examples")
    if isinstance(targets, np.ndarray) and targets.dtype != object and not per_token:
        whole = np.issubdtype(targets.dtype, np.integer)
        return targets.astype(np.int32 if whole else np.float32)
    arrays = [None if target is None else np.asarray(target) for target in targets]
    known = [array for array in arrays if array is not None]
    if not known:
        return np.full(len(lengths), -1, np.int32)
    shapes = {array.shape[per_token:] for array in known}
    if len(shapes) > 1 or (per_token and any(array.ndim < 1 for array in known)):
        raise ValueError("The targets of all examples must be of one shape. Received: "
                         f"shapes {sorted(shapes)[:4]}")
    for array, length in zip(arrays, lengths, strict=True):
        if per_token and array is not None and len(array) != length:
            raise ValueError("A target must have a number for each token of its "
                             f"example. Received: {len(array)} for {length} tokens")
    whole = all(np.issubdtype(array.dtype, np.integer) for array in known)
    dtype = np.int32 if whole else np.float32
    longest = [int(max(lengths))] if per_token else []
    values = np.full([len(lengths), *longest, *shapes.pop()], missing(dtype), dtype)
    for place, array in enumerate(arrays):
        if array is not None:
            values[(place, slice(len(array))) if per_token else place] = array
    return values
