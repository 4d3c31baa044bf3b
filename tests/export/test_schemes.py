"""The table of schemes: names by their grammar, and what follows from a record."""

from __future__ import annotations

import pytest

from tfopt import model as models
from tfopt.backend import keras
from tfopt.compress.passes.quantization_aware import QuantizationAware
from tfopt.compress.qat.points import points_of
from tfopt.export import flatbuffer, schemes, tflite
from tfopt.export.schemes import Numbers, Scheme

DYNAMIC, STATIC = Numbers(mode="dynamic"), Numbers(mode="static", activation_bits=8)
IN_4_BITS = Numbers(mode="dynamic", weight_bits=4)
BLOCKS_OF_32 = Numbers(mode="dynamic", weight_bits=4, block=32)


@pytest.mark.parametrize("name,product,ffn_product,table", [
    ("dynamic_wi8_afp32", DYNAMIC, DYNAMIC, DYNAMIC),
    ("weight_only_wi8_afp32", Numbers(mode="weight_only"), Numbers(mode="weight_only"),
     DYNAMIC),
    ("static_wi8_ai8", STATIC, DYNAMIC, DYNAMIC),
    ("static_wi8_ai16", Numbers(mode="static", activation_bits=16),
     Numbers(mode="static", activation_bits=16), DYNAMIC),
    ("integer_wi8_ai8", STATIC, STATIC, DYNAMIC),
    ("dynamic_wi4b32_afp32", BLOCKS_OF_32, BLOCKS_OF_32, BLOCKS_OF_32),
    ("dynamic_wi4_afp32", IN_4_BITS, IN_4_BITS, BLOCKS_OF_32)])
def test_a_name_tells_all_numbers(name, product, ffn_product, table):
    scheme = schemes.get(name)
    assert scheme == Scheme.from_name(name)
    assert (scheme.product, scheme.ffn_product, scheme.table) == (product, ffn_product,
                                                                  table)


def test_what_follows_from_the_records():
    assert [name for name in schemes.SCHEMES if not schemes.is_quantized(name)] == [
        "float32", "float16", "sparse_float32"]
    assert [name for name in schemes.SCHEMES if schemes.needs_calibration(name)] == [
        "static_wi8_ai8", "static_wi8_ai16", "integer_wi8_ai8"]
    assert [name for name in schemes.SCHEMES if schemes.get(name).integer] == [
        "integer_wi8_ai8"]
    assert set(schemes.SCHEMES) - set(schemes.trainable()) == {
        "float32", "float16", "sparse_float32", "static_wi8_ai16"}
    assert QuantizationAware.schemes() == schemes.trainable()
    assert tflite.SCHEMES == schemes.SCHEMES


@pytest.mark.parametrize("width,expected", [(64, BLOCKS_OF_32), (48, DYNAMIC),
                                            (16, DYNAMIC)])
def test_beside_whole_blocks_weights_have_8_bits(width, expected):
    assert BLOCKS_OF_32.fitting(width) == expected
    assert IN_4_BITS.fitting(width) == IN_4_BITS


@pytest.mark.parametrize("name,message", [
    ("int8", "MODE_wiBITS.*Received: 'int8'$"),
    ("dynamic_wi8", "MODE_wiBITS.*Received: 'dynamic_wi8'$"),
    ("dynamic_wf8_afp32", "MODE_wiBITS"), ("dynamic_wi8_afp16", "MODE_wiBITS"),
    ("dynamic_wi4b32_afp32_", "MODE_wiBITS"),
    ("fast_wi8_afp32", "`mode` must be one of .*Received: mode='fast'$"),
    ("dynamic_wi2_afp32", "`weight_bits` must be 4 or 8. Received: weight_bits=2$"),
    ("dynamic_wi4b33_afp32", "`block` must be one of .*Received: block=33$"),
    ("dynamic_wi8_ai8", "`activation_bits` must be .*Received: activation_bits=8$"),
    ("static_wi8_afp32", "must be one of .8, 16. .*Received: activation_bits=None$"),
    ("integer_wi8_ai16", "Received: activation_bits=16$")])
def test_names_by_no_grammar_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        Scheme.from_name(name)


@pytest.mark.parametrize("name", ["int3", "dynamic_wi4b64_afp32"])
def test_an_unknown_name_is_refused_by_the_known_ones(name):
    with pytest.raises(ValueError, match=f"one of .*wi4_afp32.*Received: '{name}'$"):
        schemes.get(name)


def test_a_row_is_all_that_a_new_scheme_takes(monkeypatch):
    entry = keras.Input([128], name="features")
    x = keras.layers.Dense(96, name="whole")(entry)
    model = keras.Model(entry, keras.layers.Dense(8, name="rest")(x))
    new = "dynamic_wi4b64_afp32"
    monkeypatch.setitem(schemes._SCHEMES, new, Scheme.from_name(new))
    graph = flatbuffer.parse(tflite.convert(model, new)).subgraphs[0]
    assert {tensor.quantization.details.blockSize for tensor in graph.tensors
            if tensor.quantization and tensor.quantization.details} == {64}
    wrapped = QuantizationAware(scheme=new).wrap(model)
    found = {name: (config.weight_bits, config.weight_block) for name, config in (
        (layer.name, layer.quantize_config) for layer in wrapped.layers[1:])}
    assert found == {"whole": (4, 64), "rest": (8, None)}


def test_layers_that_stay_in_float_have_no_points():
    bert = models.build(models.EncoderConfig.uniform(
        hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32, vocab_size=11,
        max_positions=8))

    def points(scheme, layer):
        return points_of(schemes.get(scheme), bert.get_layer(layer))

    assert points("static_wi8_ai8", "layer_0_query").points == {
        "input": "range", "output": "range"}
    assert points("static_wi8_ai8", "layer_0_ffn_output").points == {
        "input": "per_token"}
    assert points("static_wi8_ai8", "layer_0_ffn_norm") is None
    assert points("integer_wi8_ai8", "layer_0_ffn_norm").points == {"output": "range"}
    assert points("weight_only_wi8_afp32", "layer_0_query").points == {}
    assert points("dynamic_wi4_afp32", "token_embedding").weight_bits == 8
