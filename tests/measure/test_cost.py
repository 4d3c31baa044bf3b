"""Sizes: counts of hand-made models, of `.tflite` files, and their ratios."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tfopt import model
from tfopt.backend import keras
from tfopt.export import calibrate, flatbuffer, tflite
from tfopt.measure import cost


def dense(zeros: int, units: int = 3, width: int = 4, dtype=None) -> keras.Model:
    """A Dense whose kernel has this many zeros and whose bias has none."""
    layer = keras.layers.Dense(units, dtype=dtype)
    own = keras.Sequential([keras.Input([width]), layer])
    kernel = np.linspace(1, 2, width * units)
    kernel[:zeros] = 0
    layer.set_weights([kernel.reshape([width, units]), np.ones(units)])
    return own


CALIBRATION = calibrate.examples_of([[2, 40, 30, 3], [2, 50, 3]], [4, 2])


def of_bytes(contents: bytes, tmp_path) -> dict[str, float]:
    path = tmp_path / "model.tflite"
    path.write_bytes(contents)
    return cost.of_tflite(path)


@pytest.mark.parametrize(("zeros", "nonzeros"), [(0, 15), (5, 10), (12, 3)])
def test_counts_a_hand_made_model(zeros, nonzeros):
    assert cost.of_model(dense(zeros)) == {
        "parameters": 15, "nonzeros": nonzeros, "bits": 15 * 32}


def test_counts_the_bits_of_each_dtype():
    assert cost.of_model(dense(0, dtype="float16"))["bits"] == 15 * 16


def test_random_states_and_counters_are_no_weights():
    class Counted(keras.layers.Dropout):
        def build(self, input_shape):
            self.counter = self.add_weight(name="counter", dtype="int64")
            super().build(input_shape)

    x = keras.Input([4])
    own = keras.Model(x, keras.layers.Dense(3)(
        Counted(0.1, force_generator=True)(x)))
    assert any(not w.dtype.is_floating for w in own.weights)
    assert cost.of_model(own)["parameters"] == 15


def test_counts_every_weight_of_a_bert(tiny_model):
    d, f, layers = 32, 80, 3
    embeddings = (103 + 2 + 64) * d + 2 * d
    layer = 4 * (d * d + d) + (d * f + f) + (f * d + d) + 2 * 2 * d
    head = (d * d + d) + (d * 3 + 3)
    expected = embeddings + layers * layer + head
    assert cost.of_model(tiny_model) == {
        "parameters": expected, "nonzeros": expected, "bits": 32 * expected}


def test_a_float32_tflite_has_the_weights_of_keras(tmp_path):
    own = dense(zeros=5)
    assert of_bytes(tflite.convert(own, "float32"), tmp_path) == cost.of_model(own)


@pytest.mark.parametrize("scheme", tflite.SCHEMES)
def test_a_bert_in_tflite_has_the_parameters_of_keras(scheme, tiny_model, tmp_path):
    before = cost.of_model(tiny_model)["parameters"]
    contents = tflite.convert(tiny_model, scheme, calibration=CALIBRATION)
    after = of_bytes(contents, tmp_path)["parameters"]
    # In float, gamma and beta of the last LayerNorm go into the pooler's kernel and
    # bias; the rest of the difference is scalars: an epsilon, scores of hidden ones.
    folded = 0 if tflite.is_quantized(scheme) else 2 * 32
    assert 0 <= after - (before - folded) <= 8


@pytest.mark.parametrize(("scheme", "gamma"), [
    ("float32", 1.0), ("float16", 0.5), ("dynamic_wi8_afp32", 0.25),
    ("static_wi8_ai8", 0.25), ("dynamic_wi4b32_afp32", 0.125 + 16 / 32 / 32)])
def test_gamma_is_the_share_of_bits_that_is_left(scheme, gamma, tmp_path):
    own = dense(zeros=0, units=256, width=256)
    examples = [{own.input_names[0]: np.full([1, 256], x, np.float32)} for x in (-1, 1)]
    after = of_bytes(tflite.convert(own, scheme, calibration=examples), tmp_path)
    ratios = cost.ratios(after, cost.of_model(own))
    assert ratios["alpha"] == 1.0
    assert ratios["gamma"] == pytest.approx(gamma, abs=0.01)


# Of a kernel [64, 3] with 5 zeros and a bias of 3.
@pytest.mark.parametrize(("scheme", "bits"), [
    ("float32", (192 + 3) * 32),
    ("float16", (192 + 3) * 16),
    ("dynamic_wi8_afp32", 192 * 8 + 3 * 32),
    ("weight_only_wi8_afp32", 192 * 8 + 3 * 32),
    ("static_wi8_ai8", 192 * 8 + 3 * 32),  # the bias in int32
    ("integer_wi8_ai8", 192 * 8 + 3 * 32),
    ("static_wi8_ai16", 192 * 8 + 3 * 64),  # and in int64
    ("dynamic_wi4b32_afp32", 192 * 4 + 3 * 2 * 16 + 3 * 32),  # 2 blocks a column
    ("dynamic_wi4_afp32", 192 * 4 + 3 * 32),
])
def test_counts_of_each_scheme_by_hand(scheme, bits, tmp_path):
    own = dense(zeros=5, units=3, width=64)
    examples = [{own.input_names[0]: np.full([1, 64], x, np.float32)} for x in (-1, 1)]
    contents = tflite.convert(own, scheme, calibration=examples)
    assert of_bytes(contents, tmp_path) == {
        "parameters": 195, "nonzeros": 190, "bits": bits}


def hand_made(*tensors: tuple[str, list[int], bytes]) -> bytes:
    """A `.tflite` without operations: dtype, shape and bytes of its constants."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], []
    model.buffers, graph.tensors, graph.operators = [schema.BufferT()], [], []
    graph.inputs = graph.outputs = []
    for dtype, shape, data in tensors:
        buffer, tensor = schema.BufferT(), schema.TensorT()
        buffer.data = np.frombuffer(data, np.uint8)
        tensor.shape, tensor.name = shape, dtype
        tensor.type = getattr(schema.TensorType, dtype.upper())
        tensor.buffer = len(model.buffers)
        model.buffers.append(buffer)
        graph.tensors.append(tensor)
    return flatbuffer.serialize(model)


@pytest.mark.parametrize(("tensors", "expected"), [
    # 1, -8, 0, 7 and 2, the lower half of a byte first; the last half is empty.
    ([("int4", [5], bytes([0x81, 0x70, 0x02]))], (5, 4, 20)),
    ([("int4", [2, 2], bytes([0x00, 0xF0]))], (4, 1, 16)),
    ([("int8", [3], bytes([1, 0, 255]))], (3, 2, 24)),
    ([("float16", [2], bytes([0, 60, 0, 0]))], (2, 1, 32)),
    ([("int32", [1], bytes(4)), ("int8", [1], b"\x05")], (1, 1, 8)),  # a shape
    ([("int16", [2], bytes(4)), ("int8", [1], b"\x05")], (1, 1, 8)),
])
def test_counts_by_hand(tensors, expected, tmp_path):
    assert of_bytes(hand_made(*tensors), tmp_path) == dict(
        zip(("parameters", "nonzeros", "bits"), expected, strict=True))


def test_zeros_stay_zeros_in_int8(tmp_path):
    own = dense(zeros=3000, units=64, width=64)
    after = of_bytes(tflite.convert(own), tmp_path)
    assert after["nonzeros"] == 64 * 64 + 64 - 3000


def test_a_buffer_that_two_tensors_share_counts_once(tmp_path):
    layer = keras.layers.Dense(8)
    x = keras.Input([8])
    own = keras.Model(x, layer(keras.layers.ReLU()(layer(x))))
    layer.set_weights([np.arange(1, 65).reshape([8, 8]), np.ones(8)])
    after = of_bytes(tflite.convert(own, "float32"), tmp_path)
    assert after["parameters"] == cost.of_model(own)["parameters"] == 72


def test_pruning_shows_in_gzip_and_not_in_the_file(tmp_path):
    sizes = []
    random = np.random.default_rng(0)
    for kept in (1.0, 0.1):
        own = dense(zeros=0, units=128, width=128)
        kernel = random.normal(size=[128, 128]) * (random.random([128, 128]) < kept)
        own.layers[0].set_weights([kernel, np.ones(128)])
        path = tmp_path / f"{kept}.tflite"
        path.write_bytes(tflite.convert(own, "float32"))
        sizes.append(cost.of_file(path))
        assert sizes[-1]["file_bytes"] == path.stat().st_size
    full, pruned = sizes
    assert pruned["file_bytes"] == full["file_bytes"]
    assert full["gzip_bytes"] > 0.8 * full["file_bytes"]
    assert pruned["gzip_bytes"] < 0.3 * pruned["file_bytes"]


@pytest.mark.parametrize(("after", "expected"), [
    ((100, 80, 3200), (1.0, 1.0, 1.0)),
    ((100, 40, 3200), (1.0, 0.5, 1.0)),
    ((100, 80, 800), (1.0, 1.0, 0.25)),
    ((50, 40, 1600), (0.5, 0.5, 1.0)),
    ((50, 20, 400), (0.5, 0.25, 0.25)),
])
def test_ratios_are_after_over_before(after, expected):
    def count(values):
        return dict(zip(("parameters", "nonzeros", "bits"), values, strict=True))

    ratios = cost.ratios(count(after), count((100, 80, 3200)))
    assert ratios == dict(zip(("alpha", "beta", "gamma"), expected, strict=True))


def test_the_own_directory_and_the_model_count_alike(tiny_model, tmp_path):
    model.save(tiny_model, tmp_path)
    assert cost.of_model(model.load(tmp_path)) == cost.of_model(tiny_model)


@pytest.mark.parametrize("contents", [b"", b"TFL3", b"not a model at all", bytes(64)])
def test_refuses_a_file_that_is_no_tflite(contents, tmp_path):
    with pytest.raises(ValueError, match="Received: .*model.tflite"):
        of_bytes(contents, tmp_path)


def test_refuses_a_truncated_file(tmp_path):
    contents = tflite.convert(dense(zeros=0, units=64, width=64), "float32")
    with pytest.raises(ValueError, match="Received: .*model.tflite"):
        of_bytes(contents[:len(contents) // 2], tmp_path)


@pytest.mark.parametrize("function", [cost.of_tflite, cost.of_file])
def test_refuses_a_missing_file(function, tmp_path):
    with pytest.raises(ValueError, match="No such file.*Received: .*nowhere.tflite"):
        function(tmp_path / "nowhere.tflite")
