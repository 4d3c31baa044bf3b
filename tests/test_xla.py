"""What is written for XLA computes what it stands for, compiled and not."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

from tfopt import model, xla
from tfopt.backend import keras, tf
from tfopt.compress.passes.magnitude import Magnitude
from tfopt.compress.pruning import masked_layer
from tfopt.model import layer_names, layers
from tfopt.train import loop
from tfopt.train.distribute import strategy

COMPILED = pytest.mark.parametrize("jit_compile", [False, True])


def gradients(function, *values, jit_compile: bool):
    """(result, gradients of a weighted sum of it)."""
    random = np.random.default_rng(0)

    @tf.function(jit_compile=jit_compile)
    def both(*values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            result = function(*values)
            total = tf.reduce_sum(result * weights)
        return result, tape.gradient(total, values)

    weights = tf.constant(random.normal(size=function(*values).shape), tf.float32)
    return both(*values)


@COMPILED
def test_gelu_is_that_of_keras(jit_compile):
    x = tf.constant(np.linspace(-6, 6, 97), tf.float32)
    found, (slope,) = gradients(xla.gelu, x, jit_compile=jit_compile)
    expected, (their_slope,) = gradients(keras.activations.gelu, x,
                                         jit_compile=jit_compile)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(slope, their_slope, atol=2e-6)
    assert xla.gelu(tf.cast(x, tf.bfloat16)).dtype == tf.bfloat16


@COMPILED
def test_normalize_is_the_layer(jit_compile):
    random = np.random.default_rng(3)
    x = tf.constant(random.normal(2.0, 3.0, size=[4, 5, 6]), tf.float32)
    gamma, beta = (tf.constant(random.normal(size=[6]), tf.float32) for _ in range(2))
    layer = layers.LayerNorm(epsilon=1e-5)
    layer.build(x.shape)

    def by_layer(x, gamma, beta):
        layer.gamma, layer.beta = gamma, beta
        return layer.call(x)

    found, slopes = gradients(lambda *values: xla.normalize(*values, 1e-5),
                              x, gamma, beta, jit_compile=jit_compile)
    expected, their_slopes = gradients(by_layer, x, gamma, beta,
                                       jit_compile=jit_compile)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    for slope, theirs in zip(slopes, their_slopes, strict=True):
        np.testing.assert_allclose(slope, theirs, atol=5e-6)
    short = xla.normalize(tf.cast(x, tf.bfloat16), gamma, beta, 1e-5)
    assert short.dtype == tf.bfloat16


@COMPILED
def test_for_each_repeats_rows_and_sums_their_gradient(jit_compile):
    random = np.random.default_rng(1)
    rows = tf.constant(random.normal(size=[5, 3]), tf.float32)
    found, (slope,) = gradients(lambda rows: xla.for_each(rows, 4), rows,
                                jit_compile=jit_compile)
    expected, (their_slope,) = gradients(
        lambda rows: tf.broadcast_to(rows, [4, 5, 3]), rows, jit_compile=jit_compile)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(slope, their_slope, atol=1e-6)


def test_sum_by_row_leaves_rows_without_values_zero():
    found = xla.sum_by_row(tf.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
                           tf.constant([2, 0, 2]), 4)
    np.testing.assert_array_equal(found, [[3, 4], [0, 0], [6, 8], [0, 0]])


def masks(states, shape=(64, 128, 64), rate=0.1):
    kept = tf.function(lambda state: xla.kept(shape, rate, state), jit_compile=True)
    return [kept(tf.constant(state, tf.int64)).numpy() for state in states]


# (step, replica, seed): a step later, another replica, another layer.
STATES = [(0, 0, 7), (1, 0, 7), (0, 1, 7), (0, 0, 8)]


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_kept_keeps_its_share_anywhere(rate):
    for mask in masks(STATES, rate=rate):
        centred = (mask - (1 - rate)) / np.sqrt(rate * (1 - rate))
        assert abs(np.sum(centred)) / np.sqrt(mask.size) < 4  # deviations of a coin's
        for axis in range(3):
            others = tuple({0, 1, 2} - {axis})
            along = centred.sum(others) / np.sqrt(mask.size / mask.shape[axis])
            assert np.abs(along).max() < 5


def test_kept_repeats_nothing_of_a_place_a_step_a_replica_or_a_layer():
    centred = [((mask - 0.9) / 0.3).ravel() for mask in masks(STATES)]
    size = centred[0].size
    spectra = [np.fft.rfft(one) for one in centred]
    for first in range(len(STATES)):
        for second in range(first, len(STATES)):
            # One beside the other at every distance.
            products = np.fft.irfft(spectra[first] * spectra[second].conj()) / size**0.5
            if first == second:
                products = products[1:]
            assert np.abs(products).max() < 6.5  # the largest of half a million: 5


def test_kept_is_the_same_for_the_same_state_and_without_xla():
    first, again = masks([STATES[1]] * 2)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(
        first, xla.kept(first.shape, 0.1, tf.constant(STATES[1], tf.int64)))


def dropout(rate=0.25):
    inputs = keras.Input([40, 30])
    net = keras.Model(inputs, layers.Dropout(rate)(inputs))
    loop.seed_dropout(net, 3)
    return net


def test_dropout_for_xla_scales_what_it_keeps_and_moves_on():
    net, x = dropout(), tf.ones([8, 40, 30])
    step = tf.function(lambda x: net(x, training=True), jit_compile=True)
    with xla.written_for(net):
        first, second = step(x).numpy(), step(x).numpy()
    assert set(np.unique(first)) == {0.0, np.float32(1 / 0.75)}
    assert first.mean() == pytest.approx(1, abs=0.03)
    assert 0.3 < np.mean(first != second) < 0.45  # 2 * 0.25 * 0.75
    np.testing.assert_array_equal(net(x), x)
    again = dropout()
    with xla.written_for(again):
        step = tf.function(lambda x: again(x, training=True), jit_compile=True)
        np.testing.assert_array_equal(step(x), first)


def test_replicas_drop_other_numbers_and_all_move_on():
    both = strategy.make("mirrored")
    with both.scope():
        net = dropout()
    step = tf.function(lambda: both.run(lambda: net(tf.ones([8, 40, 30]), True)))
    with xla.written_for(net):
        steps = [[one.numpy() for one in both.experimental_local_results(step())]
                 for _ in range(2)]
    masks = [mask for step in steps for mask in step]
    for number, mask in enumerate(masks):
        for other in masks[:number]:
            assert 0.3 < np.mean(mask != other) < 0.45


def small_bert(num_layers=1, **fields):
    return model.build(model.EncoderConfig.uniform(
        hidden_size=8, num_layers=num_layers, num_heads=2, intermediate_size=16,
        vocab_size=11, max_positions=8, **fields))


@pytest.mark.parametrize("wrap", [lambda net: net, Magnitude(
    final_sparsity=0.5, begin_step=0, end_step=1).wrap], ids=["plain", "pruned"])
def test_query_key_and_value_are_one_product_and_compute_the_same(wrap):
    net = wrap(small_bert(num_layers=2, initializer_range=0.3))
    for one in masked_layer.wrappers_of(net).values():
        one.mask.assign(np.arange(one.kernel.shape.num_elements()).reshape(
            one.kernel.shape) % 3 > 0)
    ids = tf.constant(np.random.default_rng(4).integers(1, 11, size=[3, 5]))
    inputs = {"input_ids": ids, "attention_mask": tf.ones_like(ids),
              "token_type_ids": tf.zeros_like(ids)}

    def slopes():
        @tf.function(jit_compile=True)
        def step():
            with tf.GradientTape() as tape:
                total = tf.reduce_sum(net(inputs) ** 2)
            return [tf.convert_to_tensor(slope) for slope in tape.gradient(
                total, net.trainable_variables)]

        compiled = step.experimental_get_compiler_ir()(stage="optimized_hlo")
        return step(), len(re.findall(r" (?:dot|custom-call)\(", compiled))

    expected, products = slopes()
    with xla.written_for(net):
        found, fewer = slopes()
    for slope, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(slope, theirs, atol=1e-5)
    assert fewer < products


def test_written_for_leaves_a_model_as_it_was():
    net = small_bert()

    def told():
        return ("call" in vars(net.get_layer(layer_names.POOLER)),
                [one.for_xla for one in net.submodules if hasattr(one, "for_xla")],
                net.get_layer(layer_names.layer_name(0, "intermediate")).activation)

    before = told()
    assert before[1]
    assert before == (False, [False] * len(before[1]), keras.activations.gelu)
    with pytest.raises(RuntimeError), xla.written_for(net):
        assert told() == (True, [True] * len(before[1]), xla.gelu)
        raise RuntimeError
    assert told() == before


@pytest.mark.parametrize("zeros", [0, 1, 500, 1200])
def test_masks_of_an_accelerator_have_as_many_zeros_as_asked(zeros):
    kernel = tf.constant(np.random.default_rng(2).normal(size=[30, 40]), tf.float32)
    chosen, = masked_layer._chosen([kernel], [], tf.constant([zeros]), "magnitude")
    mask = chosen.numpy()
    order = np.argsort(np.abs(kernel.numpy()), axis=None)
    expected = np.ones(1200)
    expected[order[:zeros]] = 0
    np.testing.assert_array_equal(mask.ravel(), expected)


def test_another_number_of_zeros_is_not_compiled_anew():
    """It took 0.1 s, of which a choice now takes a hundredth."""
    kernel = tf.zeros([7, 9])

    def seconds(zeros):
        start = time.perf_counter()
        masked_layer._chosen([kernel], [], tf.constant([zeros]), "magnitude")[0].numpy()
        return time.perf_counter() - start

    first = seconds(1)
    assert min(seconds(zeros) for zeros in range(2, 7)) < first / 10
