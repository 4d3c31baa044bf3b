"""Rounding in float32: by hand, as LiteRT computes, as its files have it; gradients."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from ai_edge_litert import interpreter as litert

from tfopt.backend import keras, tf
from tfopt.export import tflite
from tfopt.model import fake_quant

with warnings.catch_warnings():  # of scipy, which comes with it
    warnings.simplefilter("ignore", DeprecationWarning)
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithms.uniform_quantize import uniform_quantize_tensor


def numbers(*shape, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=shape, scale=scale).astype(np.float32)


@pytest.mark.parametrize(("x", "bits", "expected"), [
    ([1.27, -0.5, 0.004, 0.006], 8, [1.27, -0.5, 0.0, 0.01]),
    ([-2.54, 0.031, 0.029, 1.0], 8, [-2.54, 0.04, 0.02, 1.0]),
    ([0.7, -0.24, 0.26, 0.04], 4, [0.7, -0.2, 0.3, 0.0]),
    ([0.0, 0.0, 0.0, 0.0], 8, [0.0, 0.0, 0.0, 0.0]),
])
def test_symmetric_by_hand(x, bits, expected):
    np.testing.assert_allclose(fake_quant.symmetric(tf.constant([x]), bits, -1),
                               [expected], atol=1e-6)


def test_symmetric_has_a_scale_along_the_axis():
    x = np.array([[127.0, 1.27], [0.6, 0.006]], np.float32)
    np.testing.assert_allclose(fake_quant.symmetric(tf.constant(x), 8, 0),
                               [[127, 1.27], [1, 0.01]], rtol=1e-6)
    np.testing.assert_allclose(fake_quant.symmetric(tf.constant(x), 8, 1),
                               [[127, 1], [0.6, 0.6 / 127]], rtol=1e-5)


def test_symmetric_has_a_scale_for_each_block():
    x = np.zeros([64, 1], np.float32)
    # 7 / 7 = 1; 3.5 / 7 = 0.5; both have 8 binary digits.
    x[[0, 1, 32, 33], 0] = 7.0, 0.6, 3.5, 0.6
    rounded = fake_quant.symmetric(tf.constant(x), 4, 0, 32).numpy()
    np.testing.assert_array_equal(rounded[[0, 1, 32, 33], 0], [7.0, 1.0, 3.5, 0.5])
    assert np.count_nonzero(rounded) == 4
    # 1 / 7 = 0.142857 is kept as 0.142578.
    ones = fake_quant.symmetric(tf.ones([32, 1]), 4, 0, 32)
    np.testing.assert_array_equal(ones, np.full([32, 1], 7 * 0.142578125))


@pytest.mark.parametrize(("bits", "axis", "block"), [
    (8, 0, None), (8, -1, None), (4, 0, None), (4, 0, 32), (4, -1, 32)])
def test_symmetric_twice_is_once(bits, axis, block):
    x = tf.constant(numbers(64, 96))
    once = fake_quant.symmetric(x, bits, axis, block)
    np.testing.assert_allclose(fake_quant.symmetric(once, bits, axis, block), once,
                               rtol=1e-6)
    assert np.abs(once - x).max() > 1e-3


def test_per_token_is_what_litert_computes():
    """A product with the identity gives what the product got, to float rounding."""
    x = keras.Input([64], name="x")
    own = keras.Model(x, keras.layers.Dense(64, use_bias=False)(x))
    own.set_weights([np.eye(64)])
    interpreter = litert.Interpreter(model_content=tflite.convert(own))
    runner = interpreter.get_signature_runner("serving_default")
    rows = [numbers(64, seed=seed, scale=10.0 ** (seed - 3)) for seed in range(6)]
    # One-sided, even, of zeros, and with an outlier.
    rows += [np.abs(rows[3]), -np.abs(rows[3]), np.zeros(64, np.float32),
             np.ones(64, np.float32), np.where(np.arange(64) == 5, 90.0, rows[3])]
    for row in rows:
        row = row.astype(np.float32)
        ours = fake_quant.per_token(tf.constant(row[None])).numpy()[0]
        step = max(row.max(), 0) - min(row.min(), 0)
        np.testing.assert_allclose(runner(x=row[None])["logits"][0], ours, rtol=2e-6,
                                   atol=1e-6 * step)
        if step:
            assert np.abs(ours - row).max() <= 0.51 * step / 255


def test_per_token_is_of_each_row_alone():
    x = numbers(2, 3, 16) * np.array([1.0, 10.0, 100.0], np.float32)[:, None]
    together = fake_quant.per_token(tf.constant(x)).numpy()
    for i in np.ndindex(2, 3):
        np.testing.assert_array_equal(
            together[i], fake_quant.per_token(tf.constant(x[i][None]))[0])


@pytest.mark.parametrize(("low", "high", "x", "expected"), [
    # Steps of 0.1 from -12.8 to 12.7.
    (-12.8, 12.7, [0.0, 0.26, -0.24, 99.0, -99.0], [0.0, 0.3, -0.2, 12.7, -12.8]),
    (0.0, 25.5, [-1.0, 0.04, 0.06, 25.4, 30.0], [0.0, 0.0, 0.1, 25.4, 25.5]),
    # A range without 0 is widened to it.
    (5.0, 25.5, [-1.0, 0.06, 4.0], [0.0, 0.1, 4.0]),
    (-25.5, -5.0, [1.0, -0.06, -4.0], [0.0, -0.1, -4.0]),
])
def test_between_by_hand(low, high, x, expected):
    np.testing.assert_allclose(
        fake_quant.between(tf.constant(x), low, high), expected, atol=1e-5)


@pytest.mark.parametrize(("low", "high"), [
    (-3.3, 4.1), (0.0, 6.0), (-0.17, 0.0), (0.5, 2.0), (-7.0, -1.0), (-1e-3, 250.0),
    (-1.0, 1.0)])
def test_between_has_the_scale_and_zero_point_of_the_file(low, high):
    zero, scale = uniform_quantize_tensor.tensor_zp_scale_from_min_max(
        np.array([low], np.float32), np.array([high], np.float32), 8, False,
        qtyping.QuantGranularity.TENSORWISE)
    x = np.linspace(1.2 * low - 0.1, 1.2 * high + 0.1, 999, dtype=np.float32)
    parameters = qtyping.UniformQuantParams(
        num_bits=8, quantized_dimension=None, scale=scale, zero_point=zero,
        symmetric=False)
    expected = uniform_quantize_tensor.uniform_dequantize(
        uniform_quantize_tensor.uniform_quantize(x, parameters).astype(np.int32),
        parameters)
    ours = fake_quant.between(tf.constant(x), low, high).numpy()
    # A number halfway between two may go either way.
    off = np.abs(ours - expected) > 1e-5 * (high - low)
    assert off.mean() < 0.01
    np.testing.assert_allclose(ours, expected, atol=1.001 * scale[0])
    np.testing.assert_allclose(np.unique(ours), np.unique(expected), rtol=1e-5,
                               atol=1e-6 * scale[0])


def test_between_takes_a_range_for_each_channel():
    x = numbers(5, 2, scale=3.0)
    both = fake_quant.between(tf.constant(x), tf.constant([-1.0, -9.0]),
                              tf.constant([1.0, 9.0]))
    for i, limit in enumerate((1.0, 9.0)):
        np.testing.assert_array_equal(
            both[:, i], fake_quant.between(tf.constant(x[:, i]), -limit, limit))


X = np.array([[-9.0, -2.0, -0.1, 0.0, 0.3, 1.9, 2.4, 7.0]], np.float32)


@pytest.mark.parametrize(("function", "expected"), [
    (lambda x: fake_quant.symmetric(x, 8, -1), [1] * 8),
    (lambda x: fake_quant.symmetric(x, 4, 0), [1] * 8),
    (fake_quant.per_token, [1] * 8),
    # Clipped are those outside of the range.
    (lambda x: fake_quant.between(x, -2.0, 2.0), [0, 1, 1, 1, 1, 1, 0, 0]),
])
def test_gradients_pass_unless_clipped(function, expected):
    x = tf.constant(X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(3.0 * function(x))
    np.testing.assert_array_equal(tape.gradient(y, x), 3.0 * np.array([expected]))


@pytest.mark.parametrize("function", [
    lambda x: fake_quant.symmetric(x, 8, -1),
    lambda x: fake_quant.symmetric(x, 4, 0, 32),
    fake_quant.per_token, lambda x: fake_quant.between(x, -1.7, 2.9)],
    ids=["symmetric", "blocks", "per_token", "between"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled_it_computes_the_same(function, jit_compile):
    """Not so what TensorFlow's own `fake_quant` operations do: tensorflow#117962."""
    x = np.concatenate([numbers(64, 128), np.linspace(-3, 3, 8192).reshape([64, 128])])
    x = tf.constant(x.astype(np.float32))

    def with_gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        return y, tape.gradient(y, x)

    compiled = tf.function(with_gradient, jit_compile=jit_compile)(x)
    for ours, eager in zip(compiled, with_gradient(x), strict=True):
        np.testing.assert_allclose(ours, eager, rtol=1e-6, atol=1e-7)
