"""Products and gradients of each form, against those of the dense kernel."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sparse.conftest import FORMS

from tfopt.backend import tf
from tfopt.sparse import Blocks, Csr, matmul, storage, store


def with_values(stored, values):
    """The same form with these values."""
    if isinstance(stored, tf.SparseTensor):
        return tf.SparseTensor(stored.indices, values, stored.dense_shape)
    if isinstance(stored, Csr | Blocks):
        return dataclasses.replace(stored, values=values)
    return values


def values_in(stored):
    return getattr(stored, "values", stored)


@pytest.mark.parametrize(("backend", "block"), FORMS)
@pytest.mark.parametrize("shape", [[15, 64], [3, 5, 64], [3, 1, 5, 64], [1, 64]])
def test_products_are_those_of_the_dense_kernel(kernel, x, backend, block, shape):
    x = x.ravel()[:np.prod(shape)].reshape(shape)
    y = matmul(x, store(kernel, backend, block))
    assert y.shape == (*shape[:-1], 96)
    np.testing.assert_allclose(y, x @ kernel, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("backend", "block"), FORMS)
def test_bias_and_activation_follow(kernel, x, backend, block):
    bias = np.linspace(-2, 2, 96).astype(np.float32)
    stored = store(kernel, backend, block)
    expected = x @ kernel + bias
    np.testing.assert_allclose(matmul(x, stored, bias), expected, rtol=1e-5, atol=1e-5)
    graph = tf.function(lambda x: matmul(x, stored, bias, tf.nn.gelu))
    for found in (graph(x), matmul(x, stored, bias, tf.nn.gelu)):
        np.testing.assert_allclose(found, tf.nn.gelu(expected), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(matmul(x, stored, activation=tf.nn.relu),
                               np.maximum(x @ kernel, 0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("backend", "block"), FORMS)
@pytest.mark.parametrize("shape", [[None, 64], [None, None, 64], [None, 5, 64],
                                   [3, None, 64]])
def test_batch_and_tokens_may_be_unknown(kernel, x, backend, block, shape):
    stored = store(kernel, backend, block)
    function = tf.function(lambda x: matmul(x, stored),
                           input_signature=[tf.TensorSpec(shape)])
    assert function.get_concrete_function().output_shapes.as_list() == [
        *shape[:-1], 96]
    for length in (5, 2) if shape[-2] is None else (5,):
        given = x[:, :length] if len(shape) == 3 else x[0, :length]
        np.testing.assert_allclose(function(given), given @ kernel, rtol=1e-5,
                                   atol=1e-5)


@pytest.mark.parametrize(("backend", "block"), FORMS)
@pytest.mark.parametrize("graph", [False, True])
def test_gradients_are_those_of_the_dense_kernel(kernel, x, backend, block, graph):
    weights = np.random.default_rng(2).standard_normal([3, 5, 96]).astype(np.float32)

    def gradients():
        given = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch([given, values])
            loss = tf.reduce_sum(weights * tf.sin(matmul(
                given, with_values(stored, values))))
        return tape.gradient(loss, [given, values])

    dense = tf.Variable(kernel)
    with tf.GradientTape() as tape:
        given = tf.constant(x)
        tape.watch(given)
        loss = tf.reduce_sum(weights * tf.sin(tf.tensordot(given, dense, 1)))
    dx, dw = (value.numpy() for value in tape.gradient(loss, [given, dense]))

    stored = store(kernel, backend, block)
    values = tf.Variable(values_in(stored))
    found = (tf.function(gradients) if graph else gradients)()
    np.testing.assert_allclose(found[0], dx, rtol=1e-4, atol=1e-4)
    assert found[1].shape == values.shape
    if backend == "dense":
        expected = np.where(kernel == 0, 0, dw)
    elif backend == "coo":
        expected = dw[tuple(stored.indices.numpy().T)]
    else:
        expected = storage.values_of(dw, np.asarray(stored.indices), block)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(found[1], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("backend", "block"), FORMS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float64", "float16"])
def test_each_form_computes_in_its_dtypes_and_refuses_others(kernel, x, backend, block,
                                                             dtype):
    stored = store(kernel, backend, block)
    stored = with_values(stored, tf.cast(values_in(stored), dtype))
    if dtype not in storage.DTYPES[backend]:
        with pytest.raises(ValueError, match=f"computes in .* Received: dtype='{dtype}'"
                           ):
            matmul(tf.cast(x, dtype), stored)
        return
    values = tf.Variable(values_in(stored))
    with tf.GradientTape() as tape:
        y = matmul(tf.cast(x, dtype), with_values(stored, values))
    assert y.dtype == dtype and tape.gradient(y, values).dtype == dtype
    tolerance = {"bfloat16": 0.4, "float16": 0.03, "float64": 1e-5}[dtype]
    np.testing.assert_allclose(tf.cast(y, tf.float32), x @ kernel, atol=tolerance)
    assert (backend, dtype) not in {("csr", "float16"), ("csr", "bfloat16")}


def test_a_constant_matrix_is_made_once_and_has_a_gradient_to_x(kernel, x):
    values = tf.Variable(store(kernel, "csr").values)
    stored = dataclasses.replace(store(kernel, "csr"), values=values).constant()
    assert stored.constant() is stored
    values.assign(tf.zeros_like(values))  # too late
    function = tf.function(lambda x: matmul(x, stored))
    np.testing.assert_allclose(function(x), x @ kernel, rtol=1e-5, atol=1e-5)
    operations = {node.op for node in
                  function.get_concrete_function(x).graph.as_graph_def().node}
    assert "SparseTensorToCSRSparseMatrix" not in operations
    given = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(given)
        y = matmul(given, stored)
    np.testing.assert_allclose(tape.gradient(y, given), np.broadcast_to(
        kernel.sum(1), x.shape), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kept", [np.eye(4, dtype=bool), np.ones([4, 4], bool)])
@pytest.mark.parametrize("backend", ["block", "block_unrolled", "block_strips"])
def test_columns_of_equally_many_blocks(x, backend, kept):
    kernel = np.arange(64.0 * 64).reshape(64, 64).astype(np.float32) / 1e3 + 1
    kernel *= kept.repeat(16, 0).repeat(16, 1)
    stored = store(kernel, backend, 16)
    assert stored.values.shape == (kept.sum(), 16, 16)
    np.testing.assert_allclose(matmul(x, stored), x @ kernel, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 6, 7])
def test_strips_of_rows_come_together_again(kernel, rows):
    x = np.random.default_rng(2).standard_normal([rows, 64]).astype(np.float32)
    stored = dataclasses.replace(store(kernel, "block_strips", 16), strips=3)
    bias = np.linspace(-1, 1, 96).astype(np.float32)
    values = tf.Variable(stored.values)

    @tf.function(input_signature=[tf.TensorSpec([None, 64])])
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = matmul(x, dataclasses.replace(stored, values=values), bias, tf.nn.relu)
        return y, *tape.gradient(y, [x, values])

    with tf.GradientTape() as tape:
        tape.watch(given := tf.constant(x))
        tape.watch(dense := tf.constant(kernel))
        expected = tf.nn.relu(tf.matmul(given, dense) + bias)
    dx, dw = tape.gradient(expected, [given, dense])
    for found, right in zip(step(x), (expected, dx, storage.values_of(
            dw.numpy(), stored.indices, 16)), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-5)


def test_strips_are_as_many_as_keep_a_product_to_one_thread():
    assert storage.strips_of(2.4, 64) == storage.strips_of(9.6, 32) == 1
    assert storage.strips_of(6, 64) == storage.strips_of(4.8, 64) == 2
    kernel = np.random.default_rng(0).standard_normal([384, 64]).astype(np.float32)
    assert store(kernel, "block_strips", 64).strips == 2
    assert store(kernel, "block_unrolled", 64).strips == 1
    assert store(kernel, "block", 64).strips == 0


def test_forms_hold_the_values_and_their_places_alone():
    kernel = np.array([[0, 2, 0], [1, 0, 3]], np.float32)
    coo, csr = store(kernel, "coo"), store(kernel, "csr")
    assert coo.indices.numpy().tolist() == [[0, 1], [1, 0], [1, 2]]
    assert coo.values.numpy().tolist() == [2, 1, 3]
    assert csr.indices.numpy().tolist() == [[0, 1], [1, 0], [2, 1]]  # of W^T
    assert csr.values.numpy().tolist() == [1, 2, 3]
    blocks = np.zeros([32, 48], np.float32)
    blocks[16, 0], blocks[0, 47], blocks[31, 47] = 1, 2, 3
    found = store(blocks, "block", 16)
    assert found.indices.tolist() == [[0, 1], [2, 0], [2, 1]]
    assert found.values.shape == (3, 16, 16) and found.size == 16
    assert [float(value) for value in (found.values[0, 0, 0], found.values[1, 0, 15],
                                       found.values[2, 15, 15])] == [1, 2, 3]


def test_the_largest_fitting_block_is_found(kernel):
    assert storage.fitting_block(kernel) == 16
    assert storage.fitting_block(kernel.repeat(2, 0).repeat(2, 1)) == 32
    assert storage.fitting_block(kernel.repeat(4, 0).repeat(4, 1)) == 64
    assert storage.fitting_block(kernel[:60]) is None
    scattered = kernel * (np.random.default_rng(0).random(kernel.shape) < 0.8)
    assert storage.fitting_block(scattered) is None
    assert storage.fitting_block(scattered, full=0.7) == 16


def test_patterns_go_through_text():
    kept = np.random.default_rng(0).random([3, 7]) < 0.5
    text = storage.encode(kept)
    assert text.startswith("3x7:") and len(text) < 12
    assert np.array_equal(storage.decode(text), kept)
    for wrong in ("3x7", "3x7:A", "3:AAAA", "x"):
        with pytest.raises(ValueError, match=f"Received: pattern='{wrong}'"):
            storage.decode(wrong)


@pytest.mark.parametrize(("backend", "block"), FORMS)
@pytest.mark.parametrize(("given", "message"), [
    (np.ones([64]), r"two axes or more.*Received: shape=\(64,\)"),
    (np.ones([2, 65]), r"as wide as W is high, 64. Received: shape=\(2, 65\)"),
    (np.ones([3, 2, 1]), r"Received: shape=\(3, 2, 1\)")])
def test_inputs_that_do_not_fit_are_refused(kernel, backend, block, given, message):
    with pytest.raises(ValueError, match=message):
        matmul(given.astype(np.float32), store(kernel, backend, block))


def test_inputs_of_another_dtype_or_no_rank_are_refused(kernel, x):
    stored = store(kernel, "block", 16)
    with pytest.raises(ValueError, match="of one dtype. Received: x of float64"):
        matmul(x.astype(np.float64), stored)
    function = tf.function(lambda x: matmul(x, stored),
                           input_signature=[tf.TensorSpec(None)])
    with pytest.raises(ValueError, match="of a known number. Received: shape=<unknown"):
        function(x)
    coo = store(kernel, "coo")
    with pytest.raises(ValueError, match=r"W must be known.*shape=\(None, None\)"):
        tf.function(lambda x, shape: matmul(x, tf.SparseTensor(
            coo.indices, coo.values, shape)))(x, coo.dense_shape)


@pytest.mark.parametrize(("change", "arguments", "message"), [
    (None, ("ell",), "`backend` must be one of .*Received: backend='ell'"),
    (None, ("block",), "`block` must be one of .*Received: block=None"),
    (None, ("block", 8), "Received: block=8"),
    (None, ("block_unrolled", 64), r"divide the kernel. Received: block=64, shape"),
    (lambda w: w[0], ("csr",), r"two dimensions.*Received: shape=\(96,\)"),
    (lambda w: w * 0, ("csr",), "not zero. Received: zeros only"),
    (lambda w: w * 0, ("block", 16), "not zero. Received: zeros only"),
    (lambda w: np.where(w > 2, np.nan, w), ("coo",), "finite. Received: .* NaN"),
    (lambda w: np.where(w > 2, np.inf, w), ("block", 16), "finite. Received: "),
    (lambda w: w.astype(np.float16), ("csr",),
     "'csr' computes in .*Received: dtype='float16'"),
    (lambda w: w.astype(np.int32), ("dense",), "Received: dtype='int32'")])
def test_kernels_that_cannot_be_stored_are_refused(kernel, change, arguments, message):
    with pytest.raises(ValueError, match=message):
        store(change(kernel) if change else kernel, *arguments)
