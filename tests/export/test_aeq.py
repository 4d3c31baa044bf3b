"""Rules: which operation becomes what, and the very integers, by hand."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from reading import count, operations, run, weights

from tfopt.backend import keras, tf
from tfopt.export import aeq, flatbuffer, tflite
from tfopt.export.aeq import Rule
from tfopt.model import fake_quant

PRODUCT = "FULLY_CONNECTED"
FIRST, SECOND = 64, 6  # widths of the inputs
LAST = "^StatefulPartitionedCall"  # the last output has the signature's name


@pytest.fixture(scope="module")
def own():
    """Two products, [64] -> [6] -> [3], every number of them random."""
    random = np.random.default_rng(0)
    x = keras.Input([FIRST], name="x")
    model = keras.Model(x, keras.layers.Dense(3, name="second")(
        keras.layers.Dense(SECOND, "relu", name="first")(x)))
    model.set_weights([random.normal(size=w.shape) for w in model.weights])
    return model


@pytest.fixture(scope="module")
def contents(own):
    return tflite.convert(own, "float32")


@pytest.fixture(scope="module")
def ranges(contents):
    """Of input, middle and output."""
    graph = flatbuffer.parse(contents).subgraphs[0]
    names = [graph.tensors[tensor].name.decode() for tensor in (
        graph.inputs[0], graph.operators[0].outputs[0], graph.outputs[0])]
    return dict(zip(names, [(-3.0, 4.0), (0.0, 30.0), (-60.0, 40.0)], strict=True))


def rows(own, layer: str) -> np.ndarray:
    """A kernel as files have it, [N, K]."""
    return own.get_layer(layer).kernel.numpy().T


@pytest.mark.parametrize("mode", ["dynamic", "weight_only", "static"])
@pytest.mark.parametrize("layer", ["first", "second"])
def test_8_bits_with_a_scale_for_each_output(mode, layer, own, contents, ranges):
    made = aeq.quantize(contents, [Rule(PRODUCT, mode)], ranges)
    if mode == "weight_only":  # the kernel is widened first
        assert count(made, PRODUCT) == {"float": 2}
        assert [o.constants for o in operations(made, "DEQUANTIZE")] == [("int8",)] * 2
        return
    kernel, found = rows(own, layer), weights(made, layer)
    scales = np.abs(kernel).max(axis=1) / np.float32(127)
    assert found.dtype == "int8"
    np.testing.assert_array_equal(found.scales, scales)
    np.testing.assert_array_equal(found.stored, np.round(kernel / scales[:, None]))
    assert (np.abs(found.stored).max(axis=1) == 127).all()


def test_widened_weights_compute_in_float(own, contents):
    made = aeq.quantize(contents, [Rule(PRODUCT, "weight_only")])
    x = np.random.default_rng(1).normal(size=[1, FIRST]).astype(np.float32)
    plain = keras.models.clone_model(own)
    plain.set_weights([fake_quant.symmetric(tf.constant(w), 8, 0).numpy() if w.ndim == 2
                       else w for w in own.get_weights()])
    np.testing.assert_allclose(run(made, {"x": x}), plain(x)[0], rtol=1e-4, atol=1e-4)


def test_4_bits_with_a_scale_for_each_block(own, contents):
    made = aeq.quantize(contents, [
        Rule(PRODUCT, "dynamic"),
        Rule(PRODUCT, "dynamic", "/first/", weight_bits=4, block=32)])
    kernel, found = rows(own, "first"), weights(made, "first")
    blocks = kernel.reshape([SECOND, 2, 32])
    scales = tf.cast(tf.cast(np.abs(blocks).max(axis=2) / 7, tf.bfloat16), tf.float32)
    assert (found.dtype, found.block) == ("int4", 32)
    np.testing.assert_array_equal(found.scales.reshape([SECOND, 2]), scales)
    np.testing.assert_array_equal(
        found.stored, np.round(blocks / scales[..., None]).reshape(kernel.shape))
    assert found.stored.min() < -5 and found.stored.max() > 5
    assert weights(made, "second").dtype == "int8"


@pytest.mark.parametrize(("bits", "block"), [(8, None), (4, None), (4, 32)])
def test_the_file_has_the_numbers_that_training_rounds_to(bits, block, own, contents):
    made = aeq.quantize(contents, [
        Rule(PRODUCT, "dynamic", "/first/", weight_bits=bits, block=block)])
    kernel = own.get_layer("first").kernel.value()
    np.testing.assert_allclose(
        weights(made, "first").numbers(),
        fake_quant.symmetric(kernel, bits, 0, block).numpy().T, rtol=1e-6)


def test_static_ranges_become_scales_and_zero_points(own, contents, ranges):
    made = aeq.quantize(contents, [Rule(PRODUCT, "static")], ranges)
    assert count(made, PRODUCT) == {"int8": 2}
    model = flatbuffer.parse(made)
    products = list(flatbuffer.operations(model, PRODUCT))
    tensors = model.subgraphs[0].tensors
    found = [(t.quantization.scale[0], t.quantization.zeroPoint[0])
             for t in (tensors[products[0].inputs[0]], tensors[products[0].outputs[0]],
                       tensors[products[1].outputs[0]])]
    # s = (high - low) / 255, z = -128 - low / s, rounded.
    np.testing.assert_allclose(found, [
        (7 / 255, -19), (30 / 255, -128), (100 / 255, 25)], rtol=1e-6)
    bias = tensors[products[0].inputs[2]]
    assert flatbuffer.dtype(bias) == "int32"
    scales = np.float32(7 / 255) * np.abs(rows(own, "first")).max(axis=1) / 127
    np.testing.assert_allclose(
        flatbuffer.stored(model, bias).view(np.int32),
        np.round(own.get_layer("first").bias / scales), atol=1)


def test_static_activations_of_16_bits_are_symmetric(contents, ranges):
    made = aeq.quantize(contents, [
        Rule(PRODUCT, "static", activation_bits=16)], ranges)
    assert count(made, PRODUCT) == {"int16": 2}
    model = flatbuffer.parse(made)
    product = next(flatbuffer.operations(model, PRODUCT))
    given = model.subgraphs[0].tensors[product.inputs[0]].quantization
    assert given.scale[0] == pytest.approx(4 / 32767)
    assert given.zeroPoint[0] == 0
    assert weights(made, "first").dtype == "int8"


def test_static_values_are_clipped_to_their_range(own, contents, ranges):
    made = aeq.quantize(contents, [Rule(PRODUCT, "static")], ranges)
    far = np.full([1, FIRST], 100.0, np.float32)
    inside = np.clip(far, -3, 4)
    np.testing.assert_array_equal(run(made, {"x": far}), run(made, {"x": inside}))
    assert not np.allclose(own(far), own(inside))


@pytest.mark.parametrize(("rules", "expected"), [
    ([], ("float32", "float32")),
    ([Rule(PRODUCT, "dynamic")], ("int8", "int8")),
    ([Rule(PRODUCT, "dynamic", "/first/")], ("int8", "float32")),
    ([Rule("CONV_2D", "dynamic")], ("float32", "float32")),
    ([Rule(PRODUCT, "dynamic"), Rule("*", "float", "/first/")], ("float32", "int8")),
    ([Rule(PRODUCT, "float", "/first/"), Rule(PRODUCT, "dynamic")], ("int8", "int8")),
    ([Rule(PRODUCT, "dynamic", "/first/"), Rule(PRODUCT, "dynamic", weight_bits=4)],
     ("int4", "int4")),
    ([Rule(PRODUCT, "dynamic"), Rule(PRODUCT, "dynamic", "/first/", weight_bits=4),
      Rule(PRODUCT, "dynamic")], ("int8", "int8")),
    ([Rule(PRODUCT, "dynamic"), Rule(PRODUCT, "dynamic", LAST, weight_bits=4)],
     ("int8", "int4")),
])
def test_of_two_rules_that_fit_the_later_holds(rules, expected, contents):
    made = aeq.quantize(contents, rules) if rules else contents
    assert (weights(made, "first").dtype, weights(made, "second").dtype) == expected


def test_a_missing_range_is_refused(contents, ranges):
    with pytest.raises(ValueError, match="by these rules. Received: Rule"):
        aeq.quantize(contents, [Rule(PRODUCT, "static")],
                           dict(list(ranges.items())[:1]))


def test_a_block_that_does_not_fit_is_refused(contents):
    with pytest.raises(ValueError, match="by these rules. Received: Rule.*block=32"):
        aeq.quantize(contents, [
            Rule(PRODUCT, "dynamic", LAST, weight_bits=4, block=32)])


@pytest.mark.parametrize("fields", [
    {"operation": PRODUCT, "mode": "static_range"},
    {"operation": "FULLY_DISCONNECTED", "mode": "dynamic"},
    {"operation": PRODUCT, "mode": "dynamic", "weight_bits": 4, "block": 33},
], ids=["mode", "operation", "block"])
def test_an_unknown_rule_is_refused(fields, contents):
    with pytest.raises(ValueError):
        aeq.quantize(contents, [Rule(**fields)])


def test_it_works_in_silence_and_leaves_logging_on(contents, capfd, caplog):
    before = logging.root.manager.disable
    aeq.quantize(contents, [Rule(PRODUCT, "dynamic"),
                                  Rule(PRODUCT, "dynamic", weight_bits=4),
                                  Rule(PRODUCT, "dynamic", "/first/")])
    assert logging.root.manager.disable == before
    assert not caplog.records
    said = capfd.readouterr()
    assert not said.out
    # The runtime speaks once, of its delegate.
    assert all("XNNPACK" in line for line in said.err.splitlines())
