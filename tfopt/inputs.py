"""Token ids -> the arrays a model reads: ids padded, what is visible, which segment.

The one builder of them. Which of the three arrays a model reads, its own signature
says (DistilBERT has no segments); which id stands where there is no text, its
tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from tfopt.types import INPUT_NAMES, check_lists


class EncodedTexts(Protocol):
    """Token ids of N examples; `data.Encoded` is one."""

    @property
    def ids(self) -> list[list[int]]:
        """Per example, special tokens included."""

    @property
    def first_lengths(self) -> list[int]:
        """Per example, how many of its ids are of the first segment."""


def visible_and_segments(positions: Any, lengths: Any, first_lengths: Any
                         ) -> tuple[Any, Any]:
    """Which positions hold an id, and which of these are of the second segment.

    Args:
        positions: <int>[T] or [1, T], of NumPy or TensorFlow.
        lengths: ids of each example, <int>[B, 1].
        first_lengths: ids of its first segment, <int>[B, 1].

    Returns:
        Two <bool>[B, T].
    """
    visible = positions < lengths
    return visible, visible & (positions >= first_lengths)


def build(ids: Sequence[Sequence[int]], first_lengths: Sequence[int],
          names: Sequence[str] = INPUT_NAMES, *, length: int | None = None,
          pad_id: int = 0) -> dict[str, np.ndarray]:
    """Builds the inputs of one batch.

    Args:
        ids: token ids of B examples.
        first_lengths: how many of each example's ids are of the first segment.
        names: inputs that the model has, of `INPUT_NAMES`.
        length: T; None for that of the longest example.
        pad_id: stands behind the ids of shorter examples.

    Returns:
        Name -> <int32>[B, T], in the order of `names`.

    Raises:
        ValueError: there are no examples, one is empty or longer than `length`, an id
            does not fit into 32 bits, a first segment is no part of its example, or a
            name is no input's.
    """
    check_lists(names=names)
    if not set(names) <= set(INPUT_NAMES):
        raise ValueError(f"A text model's inputs are of {', '.join(INPUT_NAMES)}. "
                         f"Received: names={', '.join(names)}")
    counts = [len(example) for example in ids]
    most = length or max(counts, default=0)
    if not counts:
        raise ValueError("There must be at least one example. Received: 0")
    for count, first in zip(counts, first_lengths, strict=True):
        if not 0 < count <= most:
            raise ValueError("An example must have at least one token, and `length` "
                             f"at most. Received: {count} tokens, length={length}")
        if not 0 <= first <= count:
            raise ValueError("The first segment must be a part of the ids. Received: "
                             f"first_length={first} of {count} tokens")
    visible, second = visible_and_segments(
        np.arange(most), *_ends(counts, first_lengths))
    arrays = dict(zip(INPUT_NAMES, (
        _padded(ids, counts, most, pad_id),
        *(part.reshape(-1, most).astype(np.int32) for part in (visible, second))),
        strict=True))
    return {name: arrays[name] for name in names}


def examples(encoded: EncodedTexts, names: Sequence[str] = INPUT_NAMES
             ) -> list[dict[str, np.ndarray]]:
    """The inputs of each example alone, at its own length, as calibration wants them.

    Args:
        encoded: N examples.
        names: inputs that the model has, of `INPUT_NAMES`.

    Returns:
        N times name -> <int32>[1, T].
    """
    return [build([ids], [first], names)
            for ids, first in zip(encoded.ids, encoded.first_lengths, strict=True)]


def together(rows: Sequence[np.ndarray]) -> Any:
    """Outputs of N examples, as one array where an example has a row alone.

    Args:
        rows: of each <float>[C], or <float>[T, C] of a model that reads all tokens.

    Returns:
        <float>[N, C]; or the list of N arrays, whose T differ.
    """
    return np.stack(rows) if rows and rows[0].ndim == 1 else list(rows)


def _ends(counts: Sequence[int], first_lengths: Sequence[int]) -> Iterable[Any]:
    if len(counts) == 1:  # plain numbers are quicker, and a server waits for each
        return counts[0], first_lengths[0]
    return np.array([counts, first_lengths], np.int32)[..., np.newaxis]


def _padded(ids: Sequence[Sequence[int]], counts: Sequence[int], length: int,
            pad_id: int) -> np.ndarray:
    try:
        if min(counts) == length:
            return np.array(ids, np.int32)
        tokens = np.full([len(counts), length], pad_id, np.int32)
        for row, example in zip(tokens, ids, strict=True):
            row[:len(example)] = example
        return tokens
    except OverflowError as error:
        raise ValueError("Token ids must fit into 32 bits. Received: ids "
                         f"{min(map(min, ids))} to {max(map(max, ids))}") from error
