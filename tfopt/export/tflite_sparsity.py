"""What lies where in a sparse tensor of a `.tflite`: whether it is within its shape.

A tensor is stored level by level, in an order of its dimensions and of the blocks in
them; a level is dense, or has indices (the format of TACO, Kjolstad et al. 2017).
LiteRT follows the indices as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfopt.export.tflite_walk import require

_DENSE, _INDEXED = 0, 1


def check_sparsity(given: Mapping[str, Any], shape: Sequence, stored: int) -> None:
    """Checks the places of a sparse tensor's numbers.

    Args:
        given: the record of its `SparsityParameters`.
        shape: of the tensor.
        stored: numbers that there are.

    Raises:
        Damaged: one is outside of the tensor, or they are not as many as stored.
    """
    levels = _list(given["dim_metadata"])
    sizes = _level_sizes(given, shape)
    count = 1
    for size, level in zip(sizes, levels, strict=True):
        if level["format"] == _DENSE:
            require(level["dense_size"] == size, "its sizes of sparse dimensions", size)
            count *= size
            continue
        require(level["format"] == _INDEXED and level["array_segments"]
                and level["array_indices"], "a sparse dimension must have indices")
        segments, indices = (np.asarray(_list(level[name]["values"]), np.int64)
                             for name in ("array_segments", "array_indices"))
        require(len(segments) == count + 1 and segments[0] == 0
                and segments[-1] == len(indices) and (np.diff(segments) >= 0).all(),
                "its segments of a sparse dimension", len(segments))
        require(not len(indices) or (indices.min() >= 0 and indices.max() < size),
                "its indices of a sparse dimension", size)
        count = len(indices)
    require(count == stored, f"its {count} numbers", stored)


def _level_sizes(given: Mapping[str, Any], shape: Sequence) -> list[int]:
    """The size of each level, by shape and blocks."""
    order = list(map(int, _list(given["traversal_order"])))
    blocked = list(map(int, _list(given["block_map"])))
    levels, rank = _list(given["dim_metadata"]), len(shape)
    require(rank and sorted(order) == list(range(rank + len(blocked))),
            "its order of sparse dimensions", order)
    require(all(0 <= axis < rank for axis in blocked)
            and len(set(blocked)) == len(blocked), "its blocked dimensions", blocked)
    require(len(levels) == len(order), "its sparse dimensions", len(levels))
    block = {axis: levels[order.index(rank + i)] for i, axis in enumerate(blocked)}
    require(all(level["format"] == _DENSE for level in block.values()),
            "its blocks must be dense")
    sizes = []
    for axis in order:
        if axis >= rank:
            sizes.append(block[blocked[axis - rank]]["dense_size"])
            continue
        width = block[axis]["dense_size"] if axis in block else 1
        require(width > 0 and shape[axis] % width == 0, "its blocks", width)
        sizes.append(int(shape[axis]) // width)
    return sizes


def _list(value: Sequence | None) -> Sequence:
    return () if value is None else value
