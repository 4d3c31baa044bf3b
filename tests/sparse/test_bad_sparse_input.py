"""Mistakes with sparse kernels: each is told in a clear sentence, where it is made."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sparse.conftest import FORMS

from tfopt import compress, model
from tfopt.backend import keras, tf
from tfopt.sparse import BLOCKS, SparseDense, choose, matmul, storage, store

BAD = [np.nan, np.inf, -np.inf]


def refused(message: str):
    """Expects a ValueError with this very text in it."""
    return pytest.raises(ValueError, match=re.escape(message))


@pytest.fixture
def dense(kernel):
    """A pruned Dense 64 -> 96."""
    layer = keras.layers.Dense(96, name="pruned")
    layer.build([None, 64])
    layer.kernel.assign(kernel)
    return layer


@pytest.mark.parametrize(("backend", "block"), FORMS)
class TestInputs:
    def test_of_one_axis_are_refused(self, kernel, dense, backend, block):
        with refused("x must have two axes or more, of a known number. "
                     "Received: shape=(64,)"):
            matmul(np.ones(64, np.float32), store(kernel, backend, block))
        layer = SparseDense.from_dense(dense, backend, block)
        with refused("expected min_ndim=2, found ndim=1"):
            layer(np.ones(64, np.float32))

    def test_of_an_unknown_number_of_axes_are_refused(self, kernel, dense, backend,
                                                      block):
        stored = store(kernel, backend, block)
        unknown = tf.function(lambda x: matmul(x, stored),
                              input_signature=[tf.TensorSpec(None, tf.float32)])
        with refused("x must have two axes or more, of a known number. "
                     "Received: shape=<unknown>"):
            unknown.get_concrete_function()

    def test_of_another_width_are_refused(self, kernel, dense, backend, block):
        with refused("The last axis of x must be as wide as W is high, 64. "
                     "Received: shape=(3, 5, 65)"):
            matmul(np.ones([3, 5, 65], np.float32), store(kernel, backend, block))
        layer = SparseDense.from_dense(dense, backend, block)
        with refused("expected axis -1 of input shape to have value 64"):
            layer(np.ones([3, 5, 65], np.float32))

    def test_of_another_dtype_are_refused(self, kernel, dense, backend, block):
        with refused("x and W must be of one dtype. Received: x of float64, "
                     "W of float32"):
            matmul(np.ones([3, 64]), store(kernel, backend, block))


@pytest.mark.parametrize(("backend", "block"), FORMS)
class TestKernels:
    def test_of_zeros_only_are_refused(self, dense, backend, block):
        empty = np.zeros([64, 96], np.float32)
        message = ("A kernel must have a value that is not zero. Received: zeros only, "
                   "shape=(64, 96)")
        dense.kernel.assign(empty)
        for make in (lambda: store(empty, backend, block), lambda: choose(empty),
                     lambda: SparseDense.from_dense(dense, backend, block),
                     lambda: SparseDense.from_dense(dense)):
            with refused(message):
                make()

    @pytest.mark.parametrize("value", BAD)
    def test_that_are_not_finite_are_refused(self, kernel, dense, backend, block,
                                             value):
        kernel[0, 20] = kernel[63, 95] = value
        dense.kernel.assign(kernel)
        for make in (lambda: store(kernel, backend, block), lambda: choose(kernel),
                     lambda: SparseDense.from_dense(dense, backend, block),
                     lambda: SparseDense.from_dense(dense)):
            with refused("A kernel must be finite. Received: 2 values that are NaN or "
                         "infinite"):
                make()

    def test_of_other_than_two_axes_are_refused(self, backend, block):
        for shape in ([64], [2, 64, 96]):
            with refused("A kernel must have two dimensions, inputs and outputs. "
                         f"Received: shape={tuple(shape)}"):
                store(np.ones(shape, np.float32), backend, block)


@pytest.mark.parametrize("backend", [form for form, block in FORMS if block])
def test_blocks_that_do_not_divide_are_refused(kernel, dense, backend):
    message = "`block` must divide the kernel. Received: block=64, shape=(64, 96)"
    for make in (lambda: store(kernel, backend, 64), lambda: choose(kernel, block=64),
                 lambda: SparseDense.from_dense(dense, backend, 64)):
        with refused(message):
            make()
    for block in (24, 0, -16, None):
        with refused(f"`block` must be one of {BLOCKS}. Received: block={block}"):
            store(kernel, backend, block)


def test_patterns_without_a_value_are_refused():
    for fields in ({"pattern": np.zeros([64, 96], bool)}, {"nonzeros": 0}):
        with refused("A sparse layer must have a value. Received: nonzeros=0"):
            SparseDense(96, **fields)


@pytest.mark.parametrize(("policy", "dtype"), [("mixed_float16", "float16"),
                                               ("mixed_bfloat16", "bfloat16")])
def test_csr_in_half_precision_is_refused(kernel, policy, dtype):
    message = (f"The backend 'csr' computes in {storage.DTYPES['csr']} only. Received: "
               f"dtype='{dtype}'")
    layer = keras.layers.Dense(96, dtype=policy)
    layer.build([None, 64])
    layer.kernel.assign(kernel)
    stored = store(kernel, "csr")
    for make in (lambda: SparseDense.from_dense(layer, "csr"),
                 lambda: SparseDense(96, kernel != 0, "csr", dtype=policy),
                 lambda: store(kernel.astype(tf.as_dtype(dtype).as_numpy_dtype), "csr"),
                 lambda: matmul(tf.ones([2, 64], dtype), stored)):
        with refused(message):
            make()
    assert SparseDense.from_dense(layer, "block", 16)(np.ones([2, 64])).dtype == dtype


def test_a_pass_tells_the_same_mistakes():
    """Through a recipe, as a user of the scripts meets them."""
    config = model.EncoderConfig.uniform(
        hidden_size=32, num_layers=1, num_heads=2, intermediate_size=80, vocab_size=103,
        max_positions=64)

    def run(change=lambda kernel: kernel, **fields):
        whole = model.build(config, model.Head(outputs=3))
        kernel = whole.get_layer("layer_0_intermediate").kernel
        kernel.assign(change(kernel.numpy()))
        step = compress.from_fields({"pass": "sparse_dense", "only": ["intermediate"],
                                     **fields})
        return compress.run(whole, compress.Recipe(passes=(step,)), compress.Context())

    with refused("`block` must divide the kernel. Received: block=32, shape=(32, 80)"):
        run(backend="block", block=32)
    for backend in ("auto", "csr"):
        with refused("A kernel must have a value that is not zero. Received: zeros"):
            run(lambda kernel: kernel * 0, backend=backend)
        with refused("A kernel must be finite. Received: 2560 values"):
            run(lambda kernel: kernel * np.nan, backend=backend)
