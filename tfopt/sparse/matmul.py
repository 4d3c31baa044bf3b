"""x W without the zeros of W, for each form that W is stored in (`sparse.storage`).

Gradients go to x and to the stored values. That of the values is the dense x^T dy read
at them, for TensorFlow has no kernel that computes those alone; it lives within the
step. Of blocks, only theirs are computed.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tfopt.backend import tf
from tfopt.sparse.storage import Blocks, Csr, check_backend


def matmul(x, w: Any, bias=None, activation: Callable | None = None):
    """Multiplies: activation(x W + bias).

    Args:
        x: <float>[..., K], of two axes or more; all but K may be unknown.
        w: W, [K, N]: a `tf.SparseTensor`, a `Csr`, `Blocks`, or a tensor <float>[K, N]
            with zeros, whose gradient is 0 where it has them.
        bias: <float>[N], to add, if given.
        activation: of each number alone, if given. Unrolled blocks compute it for a
            column of blocks at a time, beside other columns' products.

    Returns:
        <float>[..., N].

    Raises:
        ValueError: the widths differ, x has one axis, the dtypes differ, or the form
            has no kernel for the dtype.
    """
    x = tf.convert_to_tensor(x)
    if isinstance(w, tf.SparseTensor):
        backend, multiply, dtype = "coo", _coo, w.dtype
    elif isinstance(w, Csr):
        backend, multiply, dtype = "csr", _csr, w.values.dtype
    elif isinstance(w, Blocks):
        backend, multiply, dtype = "block", _batched, w.values.dtype
        if w.strips:
            multiply = functools.partial(_unrolled, bias=bias, activation=activation)
            bias = activation = None
    else:
        w = tf.convert_to_tensor(w)
        backend, multiply, dtype = "dense", _dense, w.dtype
    check_backend(backend, x.dtype, 16)
    if x.dtype != dtype:
        raise ValueError("x and W must be of one dtype. Received: "
                         f"x of {x.dtype.name}, W of {dtype.name}")
    if x.shape.rank is None or x.shape.rank < 2:
        raise ValueError("x must have two axes or more, of a known number. Received: "
                         f"shape={x.shape}")
    if None in w.shape or len(w.shape) != 2:
        raise ValueError("The two sizes of W must be known. Received: "
                         f"shape={tuple(w.shape)}")
    inputs, outputs = map(int, w.shape)
    if x.shape[-1] != inputs:
        raise ValueError(f"The last axis of x must be as wide as W is high, {inputs}. "
                         f"Received: shape={x.shape}")
    if x.shape.rank == 2:
        return _finished(multiply(x, w), bias, activation)
    # [..., K] -> [M, K] -> [M, N] -> [..., N]
    y = _finished(multiply(tf.reshape(x, [-1, inputs]), w), bias, activation)
    unknown = sum(size is None for size in x.shape[:-1])
    sizes = tf.shape(x)[:-1] if unknown > 1 else [
        -1 if size is None else size for size in x.shape[:-1]]
    y = tf.reshape(y, tf.concat([sizes, [outputs]], 0))
    y.set_shape([*x.shape[:-1], outputs])
    return y


def _finished(y, bias, activation):
    if bias is not None:
        y = tf.nn.bias_add(y, bias)
    return y if activation is None else activation(y)


def _dense(x, w):
    """Multiplies x <float>[M, K] by w <float>[K, N]."""
    @tf.custom_gradient
    def product(x, w):
        def gradients(dy):
            dw = tf.matmul(x, dy, transpose_a=True)
            return (tf.matmul(dy, w, transpose_b=True),
                    tf.where(w == 0, tf.zeros([], dw.dtype), dw))

        return tf.matmul(x, w), gradients

    return product(x, w)


def _coo(x, w):
    """Multiplies x <float>[M, K] by the `tf.SparseTensor` w."""
    return tf.transpose(tf.sparse.sparse_dense_matmul(
        w, x, adjoint_a=True, adjoint_b=True))


def _csr(x, w: Csr):
    """Multiplies x <float>[M, K] by w, by `SparseMatrixMatMul`: (W^T x^T)^T.

    x^T has the rows of x side by side, so that the kernel adds whole vectors.
    """
    def transposed(matrix, x):
        y = tf.transpose(tf.raw_ops.SparseMatrixMatMul(a=matrix, b=tf.transpose(x)))
        y.set_shape([x.shape[0], w.shape[1]])
        return y

    def dx(matrix, dy):
        dx = tf.transpose(tf.raw_ops.SparseMatrixMatMul(
            a=matrix, b=tf.transpose(dy), transpose_a=True))
        dx.set_shape([dy.shape[0], w.shape[0]])
        return dx

    @tf.custom_gradient
    def constant_product(x):
        return transposed(w.matrix, x), lambda dy: dx(w.matrix, dy)

    @tf.custom_gradient
    def product(x, values):
        def gradients(dy):
            # [N, K], as the indices are; gathered at once, and gone.
            dw = tf.matmul(dy, x, transpose_a=True)
            # The matrix of the forward step would keep it out of a SavedModel.
            return dx(w.convert(values), dy), tf.gather_nd(dw, w.indices)

        return transposed(w.convert(values), x), gradients

    if w.matrix is not None:
        return constant_product(x)
    return product(x, tf.convert_to_tensor(w.values))


def _unrolled(x, w: Blocks, bias=None, activation=None):
    """Multiplies x <float>[M, K] by w, in a product for each column of blocks.

    Of its blocks' inputs, side by side: [M, n*b] times [n*b, b]. The fastest in large
    products; its operations are as many as there are columns, in each strip of rows.
    """
    number = w.shape[1] // w.size
    biases = [None] * number if bias is None else tf.split(bias, number)
    columns: list = [None] * number  # of each: rows of its blocks, the blocks
    for own, rows, values in _by_count(w):
        # Unstacked they share memory with the values; split, they would be copied.
        kernels = [None] * len(own) if values is None else tf.unstack(values)
        for column, *one in zip(own.tolist(), rows.tolist(), kernels, strict=True):
            columns[column] = one

    def product(x):
        parts = tf.split(x, w.shape[0] // w.size, axis=1)
        done = []
        for (rows, kernel), own_bias in zip(columns, biases, strict=True):
            if kernel is None:
                y = tf.zeros_like(parts[0])
            else:
                inputs = [parts[row] for row in rows]
                y = tf.matmul(inputs[0] if len(rows) == 1 else tf.concat(inputs, 1),
                              kernel)  # [M, n*b] times [n*b, b]
            done.append(_finished(y, own_bias, activation))
        return tf.concat(done, 1)

    if w.strips == 1:
        return product(x)
    rows = tf.shape(x)[0]
    each = -(-rows // w.strips)
    sizes = tf.clip_by_value(rows - each * tf.range(w.strips), 0, each)
    return tf.concat([product(strip) for strip in tf.split(x, sizes, num=w.strips)], 0)


def _batched(x, w: Blocks):
    """Multiplies x <float>[M, K] by w, in one batched product for n blocks a column.

    Few operations, whatever the pattern; x^T is gathered, whose blocks are whole rows.
    """
    size, inputs = w.size, w.shape[0]
    x_t = tf.reshape(tf.transpose(x), [inputs // size, size, -1])  # [K/b, b, M]
    products: dict[int, Any] = {}
    for columns, rows, values in _by_count(w):
        if values is None:
            products |= dict.fromkeys(columns.tolist(), tf.zeros_like(x[:, :size]))
            continue
        gathered = tf.reshape(tf.gather(x_t, rows.ravel()),
                              [*values.shape[:2], tf.shape(x)[0]])
        y = tf.matmul(gathered, values, transpose_a=True)  # [C, M, b]
        products |= zip(columns.tolist(), tf.unstack(y, len(columns)), strict=True)
    return tf.concat([products[column] for column in sorted(products)], 1)


def _by_count(w: Blocks) -> Iterator[tuple]:
    """The columns of blocks that have equally many.

    Yields:
        Of each count n: C columns <int>[C], the rows of their blocks <int>[C, n], and
        their blocks <float>[C, n*b, b]; None for the columns that have none.
    """
    columns, rows = np.asarray(w.indices).T
    counts = np.bincount(columns, minlength=w.shape[1] // w.size)
    order = np.lexsort([columns, counts[columns]])
    numbers = np.unique(counts)
    ends = np.cumsum([n * np.count_nonzero(counts == n) for n in numbers]).tolist()
    values = _permuted(tf.convert_to_tensor(w.values), order)
    parts = _slices(values, [0, *ends])
    for n, start, end, part in zip(numbers.tolist(), [0, *ends[:-1]], ends,
                                   parts, strict=True):
        own = np.flatnonzero(counts == n)
        yield own, rows[order[start:end]].reshape(len(own), n), tf.reshape(
            part, [len(own), n * w.size, w.size]) if n else None


def _slices(tensor, ends: list[int]) -> list:
    """Parts along the first axis, of the tensor's memory; their gradient is put whole.

    Gradients of slices would each be as large as the tensor.
    """
    @tf.custom_gradient
    def sliced(tensor):
        return ([tensor[start:end] for start, end in itertools.pairwise(ends)],
                lambda *dys: tf.concat(dys, 0))

    return sliced(tensor)


def _permuted(tensor, order: np.ndarray):
    """Puts what is along the first axis in an order; its gradient is dense, too."""
    if np.array_equal(order, np.arange(len(order))):
        return tensor

    @tf.custom_gradient
    def permuted(tensor):
        return tf.gather(tensor, order), lambda dy: tf.gather(dy, np.argsort(order))

    return permuted(tensor)
