"""A kernel with zeros -> the forms in which it is stored without them.

    dense            <float>[K, N], the zeros among the others
    coo              `tf.SparseTensor`
    csr              `Csr`: for TensorFlow's kernels of compressed sparse rows
    block            `Blocks`: dense blocks, multiplied together
    block_unrolled   `Blocks`, each column of blocks multiplied by itself
    block_strips     the same, of some of x's rows at a time

K are a kernel's inputs, N its outputs. Values stand column by column (by output, then
by input), as `SparseMatrixMatMul` wants them: it has the sparse matrix on its left, so
that W^T is what it multiplies. A `tf.SparseTensor` has them row by row.
"""

from __future__ import annotations

import base64
import dataclasses
import math
from typing import Any

import numpy as np

from tfopt.backend import tf

BACKENDS = ("dense", "coo", "csr", "block", "block_unrolled", "block_strips")
BLOCKS = (16, 32, 64)
# What TensorFlow has kernels for on a CPU: each was tried.
DTYPES = {**dict.fromkeys(BACKENDS, ("float32", "bfloat16", "float16", "float64")),
          "csr": ("float32", "float64")}
# Multiplications above which TensorFlow was seen to share a product among its threads.
_OF_ONE_THREAD = 1_600_000
_ROWS = 128  # of x, for which strips are counted


def is_block(backend: str) -> bool:
    """Whether the form has blocks."""
    return backend.startswith("block")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Csr:
    """W^T by compressed sparse rows.

    Attributes:
        indices: <int>[nonzeros, 2], the (output, input) of each value, ascending.
        values: <float>[nonzeros], a tensor or a variable.
        shape: (K, N).
        matrix: the matrix, made once; None makes it in each product from the values,
            which takes a third as long again as the product.
    """

    indices: Any
    values: Any
    shape: tuple[int, int]
    matrix: Any = None

    def constant(self) -> Csr:
        """Makes the matrix of the present values; gradients go to x alone then.

        A function that multiplies by it cannot be saved in a SavedModel.
        """
        if self.matrix is not None:
            return self
        values = tf.constant(self.values)
        # Only what a function returns tells shape and type of the matrix to another.
        make = tf.function(lambda: self.convert(values), autograph=False)
        return dataclasses.replace(self, values=values,
                                   matrix=make.get_concrete_function()())

    def convert(self, values):
        """The matrix <variant> of W^T with these values <float>[nonzeros]."""
        return tf.raw_ops.SparseTensorToCSRSparseMatrix(
            indices=tf.cast(self.indices, tf.int64), values=values,
            dense_shape=tf.constant(self.shape[::-1], tf.int64))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blocks:
    """Dense blocks of a kernel.

    Attributes:
        indices: <int>[blocks, 2], the (column, row) of each among the blocks; best
            with columns of equally many side by side, which are not copied then. Known
            when a graph is made of it.
        values: <float>[blocks, b, b], a tensor or a variable.
        shape: (K, N).
        strips: how many strips of x's rows are multiplied one by one, in a product for
            each column of blocks; 0 for one product of all columns of equally many.
    """

    indices: np.ndarray
    values: Any
    shape: tuple[int, int]
    strips: int = 1

    @property
    def size(self) -> int:
        """Their height and width b."""
        return self.values.shape[-1]

    @classmethod
    def of_backend(cls, backend: str, **fields: Any) -> Blocks:
        """Blocks as a form multiplies them; `fields` are the others."""
        found = cls(**fields)
        size, outputs = found.size, found.shape[1]
        strips = {"block": 0, "block_unrolled": 1, "block_strips": strips_of(
            len(found.indices) * size / outputs, size)}[backend]
        return dataclasses.replace(found, strips=strips)


def strips_of(blocks: float, block: int) -> int:
    """Into how many strips to cut 128 rows, so that no thread waits for another.

    A product that TensorFlow shares among its threads keeps them from other columns.

    Args:
        blocks: in a column, in the mean.
        block: b, their height and width.
    """
    return math.ceil(_ROWS * blocks * block * block / _OF_ONE_THREAD)


def check_backend(backend: str, dtype: Any, block: int | None = None) -> None:
    """Checks the name of a form, that it can compute in a dtype, and its blocks.

    Raises:
        ValueError: it has no such name, no kernel for the dtype, or no such blocks.
    """
    if backend not in BACKENDS:
        raise ValueError(f"`backend` must be one of {BACKENDS}. Received: "
                         f"backend={backend!r}")
    name = tf.as_dtype(dtype).name
    if name not in DTYPES[backend]:
        raise ValueError(f"The backend {backend!r} computes in {DTYPES[backend]} only. "
                         f"Received: dtype={name!r}")
    if is_block(backend) and block not in BLOCKS:
        raise ValueError(f"`block` must be one of {BLOCKS}. Received: block={block!r}")


def check_kernel(kernel: np.ndarray) -> None:
    """Checks that an array can be a sparse kernel.

    Raises:
        ValueError: it is no <float>[K, N], not finite, or has zeros only.
    """
    if kernel.ndim != 2:
        raise ValueError("A kernel must have two dimensions, inputs and outputs. "
                         f"Received: shape={kernel.shape}")
    if not np.isfinite(kernel).all():
        raise ValueError("A kernel must be finite. Received: "
                         f"{np.count_nonzero(~np.isfinite(kernel))} values that are "
                         "NaN or infinite")
    if not kernel.any():
        raise ValueError("A kernel must have a value that is not zero. Received: "
                         f"zeros only, shape={kernel.shape}")


def kept_blocks(kernel: np.ndarray, block: int) -> np.ndarray:
    """Which blocks of a kernel are not all zeros.

    Args:
        kernel: <float>[K, N].
        block: b, their height and width.

    Returns:
        <bool>[K / b, N / b].

    Raises:
        ValueError: b divides not both K and N.
    """
    inputs, outputs = kernel.shape
    if inputs % block or outputs % block:
        raise ValueError("`block` must divide the kernel. Received: "
                         f"block={block}, shape={kernel.shape}")
    return (kernel.reshape(inputs // block, block, outputs // block, block) != 0).any(
        axis=(1, 3))


def fitting_block(kernel: np.ndarray, full: float = 0.9) -> int | None:
    """The largest block in which a kernel is pruned.

    Args:
        kernel: <float>[K, N].
        full: the least part of the kept blocks that is not zero.

    Returns:
        b; None where there is none.
    """
    for block in sorted(BLOCKS, reverse=True):
        if kernel.shape[0] % block == 0 and kernel.shape[1] % block == 0:
            held = block * block * np.count_nonzero(kept_blocks(kernel, block))
            if np.count_nonzero(kernel) >= full * held:
                return block
    return None


def indices_of(kept: np.ndarray, by_count: bool = False) -> np.ndarray:
    """Lists what is kept, column by column.

    Args:
        kept: <bool>[rows, columns].
        by_count: whether columns with the fewest come first, as `Blocks` has them.

    Returns:
        The (column, row) of each, <int32>[kept, 2].
    """
    indices = np.argwhere(kept.T).astype(np.int32)
    if by_count:
        counts = kept.sum(axis=0)
        indices = indices[np.argsort(counts[indices[:, 0]], kind="stable")]
    return indices


def values_of(kernel: np.ndarray, indices: np.ndarray,
              block: int | None = None) -> np.ndarray:
    """What stands in a kernel at `indices`: <float>[kept], or [kept, b, b]."""
    columns, rows = indices.T
    if block is None:
        return kernel[rows, columns]
    inputs, outputs = kernel.shape
    blocks = kernel.reshape(inputs // block, block, outputs // block, block)
    return blocks[rows, :, columns]


def encode(pattern: np.ndarray) -> str:
    """<bool>[rows, columns] -> text: the sizes, and a bit of each in base 64."""
    rows, columns = pattern.shape
    bits = base64.b64encode(np.packbits(pattern).tobytes()).decode()
    return f"{rows}x{columns}:{bits}"


def decode(text: str) -> np.ndarray:
    """Undoes `encode`.

    Raises:
        ValueError: the text was not made by it.
    """
    try:
        sizes, bits = text.split(":")
        rows, columns = map(int, sizes.split("x"))
        packed = np.frombuffer(base64.b64decode(bits, validate=True), np.uint8)
        return np.unpackbits(packed, count=rows * columns).astype(bool).reshape(
            rows, columns)
    except ValueError as error:
        raise ValueError("`pattern` must be as get_config writes it, such as "
                         f"'2x3:1A=='. Received: pattern={text[:40]!r}") from error


def store(kernel: np.ndarray, backend: str, block: int | None = None):
    """Puts a kernel into a form.

    Args:
        kernel: <float>[K, N], zeros where there is no weight.
        backend: one of `BACKENDS`.
        block: b of a form of blocks: 16, 32 or 64.

    Returns:
        What `matmul` multiplies by: `tf.SparseTensor`, `Csr`, `Blocks`, or a tensor.

    Raises:
        ValueError: an argument breaks its rule; the kernel is not finite, empty, or not
            divided by the block.
    """
    kernel = np.asarray(kernel)
    check_backend(backend, kernel.dtype, block)
    check_kernel(kernel)
    if backend == "dense":
        return tf.constant(kernel)
    if block is not None and is_block(backend):
        indices = indices_of(kept_blocks(kernel, block), by_count=True)
        return Blocks.of_backend(
            backend, indices=indices, shape=kernel.shape,
            values=tf.constant(values_of(kernel, indices, block)))
    if backend == "coo":
        indices = np.argwhere(kernel)
        return tf.SparseTensor(indices, kernel[tuple(indices.T)], kernel.shape)
    indices = indices_of(kernel != 0)
    return Csr(indices=tf.constant(indices), shape=kernel.shape,
               values=tf.constant(values_of(kernel, indices)))
