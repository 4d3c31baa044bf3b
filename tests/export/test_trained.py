"""Ranges found in training -> tensors: the same numbers in Keras and in the file."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from reading import operations, run, weights

from tfopt import model as models
from tfopt.backend import keras, tf
from tfopt.compress.passes.quantization_aware import QuantizationAware
from tfopt.compress.qat import configs
from tfopt.export import flatbuffer, tflite, trained
from tfopt.model.quantized_layers import Grid, QuantizedAdd, QuantizedDense


@pytest.fixture(scope="module")
def settled(small_bert, examples):
    """Scheme -> the small BERT as training for it would leave it.

    Its ranges are those of the examples; nothing else was trained.
    """
    @functools.cache
    def finalize(scheme):
        own = QuantizationAware(scheme=scheme)
        wrapped = own.wrap(small_bert)
        for example in examples:
            wrapped(example, training=True)
        return configs.finalize(wrapped)  # which was never rounded while training

    return finalize


@pytest.fixture(scope="module")
def exported(settled, examples):
    """Scheme -> its file; examples are for the ranges that training does not find."""
    return functools.cache(lambda scheme: tflite.convert(
        settled(scheme), scheme,
        calibration=examples if scheme == "integer_wi8_ai8" else None))


# Largest |logit of the file - logit of Keras|, where logits are of size 0.1 to 0.8 and
# rounding changes them by 0.02 to 0.14. Keras and LiteRT sum in another order; in
# static ranges a number on the edge between two integers may fall to either side, and a
# LayerNorm of integers rounds within.
TOLERANCES = {"dynamic_wi8_afp32": 1e-5, "weight_only_wi8_afp32": 1e-5,
              "static_wi8_ai8": 0.03, "integer_wi8_ai8": 0.1,
              "dynamic_wi4b32_afp32": 1e-5, "dynamic_wi4_afp32": 1e-5}


def nudged(keras_model, seed):
    """The model, its embeddings moved by 2^-22, as by sums in another order."""
    copy = keras.models.clone_model(keras_model)
    moved = np.random.default_rng(seed)
    values = keras_model.get_weights()
    for own, value in zip(keras_model.weights, values, strict=True):
        if "embedding" in own.name:
            value *= 1 + moved.uniform(-2.0**-22, 2.0**-22, value.shape)
    copy.set_weights(values)
    return copy


def in_other_orders(keras_model):
    """The model, then the same sums in other orders, as many as are asked for.

    A number on the edge between two integers falls to either side, as the processor's
    order has it, and the side is seen in all that follows.
    """
    yield keras_model
    yield tf.function(keras_model, jit_compile=True)
    for seed in range(30):
        yield nudged(keras_model, seed)


@pytest.mark.parametrize("scheme", QuantizationAware.schemes())
def test_the_file_computes_what_the_trained_model_does(scheme, settled, exported,
                                                       examples):
    others = [(example, run(exported(scheme), example)) for example in examples]
    for computed in in_other_orders(settled(scheme)):
        others = [(example, logits) for example, logits in others
                  if np.abs(logits - computed(example)[0]).max() >= TOLERANCES[scheme]]
        if not others:
            break
    assert not others


@pytest.mark.parametrize("scheme", ["dynamic_wi8_afp32", "static_wi8_ai8",
                                    "integer_wi8_ai8", "dynamic_wi4b32_afp32",
                                    "dynamic_wi4_afp32"])
def test_the_file_has_the_very_weights(scheme, settled, exported):
    for name, layer in models.quantized_layers_of(settled(scheme)).items():
        if not hasattr(layer, "kernel"):
            continue
        factor = 1 / 4 if "query" in name else 1  # the scale of the scores
        np.testing.assert_allclose(weights(exported(scheme), name).numbers(),
                                   factor * layer.kernel.numpy().T, rtol=1e-5)


def scales_of(contents: bytes) -> dict[str, tuple[float, int]]:
    """Activation -> scale and zero point."""
    model = flatbuffer.parse(contents)
    return {tensor.name.decode(): (tensor.quantization.scale[0],
                                   tensor.quantization.zeroPoint[0])
            for tensor in model.subgraphs[0].tensors
            if flatbuffer.stored(model, tensor) is None
            and tensor.quantization is not None
            and tensor.quantization.scale is not None}


def test_static_products_have_the_trained_ranges(settled, exported):
    found = scales_of(exported("static_wi8_ai8"))
    checked = 0
    for name, layer in models.quantized_layers_of(settled("static_wi8_ai8")).items():
        grid = layer.grids.get("output")
        if grid is None:
            continue
        factor = 1 / 4 if "query" in name else 1
        (scale, zero), = (own for tensor, own in found.items()
                          if f"/{name}/" in tensor and "BiasAdd" in tensor
                          or tensor.startswith("StatefulP") and name == "classifier")
        low, high = min(grid.low, 0), max(grid.high, 0)
        assert scale == pytest.approx(factor * (high - low) / 255, rel=1e-5), name
        assert zero == round(-128 - low / (high - low) * 255)
        checked += 1
    assert checked == 2 * 4 + 2


def test_integer_points_have_the_trained_ranges(settled, exported):
    found = scales_of(exported("integer_wi8_ai8"))
    layers = models.quantized_layers_of(settled("integer_wi8_ai8"))
    for name, point, part in [
            ("layer_0_attention", "output", "layer_0_attention/Reshape_3"),
            ("layer_0_attention_sum", "output", "layer_0_attention_sum/add"),
            ("layer_0_ffn_norm", "output", "layer_0_ffn_norm/normalized"),
            ("embedding_norm", "output", "embedding_norm/normalized"),
            ("layer_0_intermediate", "activation", "layer_0_intermediate/Gelu"),
            ("layer_1_attention", "scores", "layer_1_attention/MatMul;")]:
        grid = layers[name].grids[point]
        expected = (max(grid.high, 0) - min(grid.low, 0)) / 255
        own = [scale for tensor, (scale, _) in found.items() if part in f"{tensor};"]
        assert own, (part, sorted(found))
        assert own == pytest.approx([expected] * len(own), rel=1e-5), part


def test_trained_ranges_are_found_by_layer_and_point(settled):
    bert = settled("static_wi8_ai8")
    graph = tflite.float_graph(bert)
    found = trained.ranges(graph.contents, graph.trained)
    names = {tensor.name.decode()
             for tensor in flatbuffer.parse(graph.contents).subgraphs[0].tensors}
    assert set(found) <= names
    grids = graph.trained["layer_0_value"].grids
    product, = (o for o in operations(graph.contents, "FULLY_CONNECTED")
                if "/layer_0_value/" in o.name)
    assert found[product.name] == (grids["output"].low, grids["output"].high)


def test_without_trained_ranges_examples_are_needed(settled):
    with pytest.raises(ValueError, match="examples.*Received: calibration=None"):
        tflite.convert(settled("dynamic_wi8_afp32"), "static_wi8_ai8")
    with pytest.raises(ValueError, match="examples.*Received: calibration=None"):
        tflite.convert(settled("integer_wi8_ai8"), "integer_wi8_ai8")


def test_in_float_the_trained_model_rounds_nothing(settled, examples):
    bert = settled("static_wi8_ai8")
    contents, plain = tflite.convert(bert, "float32"), models.plain_copy(bert)
    for example in examples[:3]:
        np.testing.assert_allclose(run(contents, example), plain(example)[0], atol=1e-5)
        assert np.abs(bert(example) - plain(example)).max() > 1e-4


def quantized_dense(name, units, **grids) -> QuantizedDense:
    return QuantizedDense(units, name=name, grids={
        point: Grid("static", *limits) for point, limits in grids.items()})


def test_a_users_own_model_has_its_ranges_too():
    x = keras.Input([4], name="x")
    y = quantized_dense("first", 5, input=(-2.0, 3.0), output=(-7.0, 8.0))(x)
    own = keras.Model(x, quantized_dense("second", 3, input=(0.0, 4.0))(
        keras.layers.ReLU()(y)))
    graph = tflite.float_graph(own)
    found = trained.ranges(graph.contents, graph.trained)
    parts = flatbuffer.parse(graph.contents).subgraphs[0]
    first, second = (o for o in parts.operators if len(o.inputs) > 1)
    for tensor, expected in [(first.inputs[0], (-2.0, 3.0)),
                             (second.inputs[0], (0.0, 4.0))]:
        assert found[parts.tensors[tensor].name.decode()] == expected


def test_outlier_channels_are_the_outputs_of_products_alone():
    own = Grid("static", -1.0, 1.0, channels=(3, 17), channels_low=-90.0)
    layers = {"dense": QuantizedDense(20, grids={"output": own}, name="dense"),
              "even": quantized_dense("even", 20, output=(-1.0, 1.0)),
              "sum": QuantizedAdd(grids={"output": own}, name="sum")}
    for layer in (layers["dense"], layers["even"]):
        layer.build([None, 4])
    assert trained.outlier_channels(layers) == {"dense": (3, 17)}
