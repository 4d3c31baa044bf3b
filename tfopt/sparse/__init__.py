"""Kernels with zeros: stored without them, multiplied without them.

A pruned Dense becomes a `SparseDense`, its form chosen by timing; `matmul` multiplies
by a kernel in any form, with gradients to x and to the values.
"""

from tfopt.sparse.choose import Choice, choose
from tfopt.sparse.layer import SparseDense
from tfopt.sparse.matmul import matmul
from tfopt.sparse.storage import BACKENDS, BLOCKS, Blocks, Csr, store

__all__ = ["BACKENDS", "BLOCKS", "Blocks", "Choice", "Csr", "SparseDense", "choose",
           "matmul", "store"]
