"""What the tests of sparse kernels share."""

from __future__ import annotations

import numpy as np
import pytest

from tfopt.sparse import storage

FORMS = [(backend, 16 if storage.is_block(backend) else None)
         for backend in storage.BACKENDS]


@pytest.fixture
def kernel() -> np.ndarray:
    """<float32>[64, 96] of blocks 16x16: columns of 0, 1, 2 and 3 blocks; one zero."""
    kept = np.zeros([4, 6], bool)
    for column, rows in enumerate([[1], [0, 3], [], [0, 1, 3], [2], [1, 2]]):
        kept[rows, column] = True
    values = np.random.default_rng(0).standard_normal([64, 96]).astype(np.float32)
    values[16, 3] = 0  # within a block
    return values * kept.repeat(16, 0).repeat(16, 1)


@pytest.fixture
def x() -> np.ndarray:
    """<float32>[3, 5, 64]."""
    return np.random.default_rng(1).standard_normal([3, 5, 64]).astype(np.float32)
