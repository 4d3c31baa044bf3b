"""`tfopt.quantize_model`: one line from a model to a quantized `.tflite`."""

from __future__ import annotations

import numpy as np
import pytest

import tfopt
from tfopt import compress, model
from tfopt.backend import tf
from tfopt.export import calibrate, flatbuffer
from tfopt.train import Settings

CONFIG = model.EncoderConfig.uniform(
    hidden_size=32, num_layers=1, num_heads=2, intermediate_size=64, vocab_size=103,
    max_positions=64, initializer_range=0.2)
HEAD = model.Head(outputs=3)


@pytest.fixture(scope="module")
def bert():
    return model.build(CONFIG, HEAD, seed=1)


@pytest.fixture(scope="module")
def examples() -> list:
    ids = [[2, 30, 40, 3], [2, 50, 60, 70, 3]]
    return calibrate.examples_of(ids, [4, 5])


def weight_types(contents: bytes) -> set[str]:
    parsed = flatbuffer.parse(contents)
    return {flatbuffer.dtype(parsed.subgraphs[0].tensors[operation.inputs[1]])
            for operation in flatbuffer.operations(parsed, "FULLY_CONNECTED")}


def test_by_default_it_is_dynamic_int8_without_training(bert):
    before = bert.get_weights()
    contents = tfopt.quantize_model(bert)
    assert weight_types(contents) == {"int8"}
    # But for a number that the converter gives a function.
    assert len(contents) == len(tfopt.convert(bert, "dynamic_wi8_afp32"))
    for now, then in zip(bert.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_static_ranges_need_examples(bert, examples):
    assert weight_types(tfopt.quantize_model(
        bert, "static_wi8_ai8", calibration=examples)) == {"int8"}
    for wrong in (None, [], examples[:1]):
        with pytest.raises(ValueError, match="examples.*Received: "):
            tfopt.quantize_model(bert, "static_wi8_ai8", calibration=wrong)


def test_with_data_it_trains(bert, tiny_examples):
    encoded, class_ids = tiny_examples
    rows = [row[:8] + [0] * (8 - len(row)) for row in encoded.ids]
    ids = np.array(rows, np.int32)
    data = tf.data.Dataset.from_tensor_slices((
        {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int32),
         "token_type_ids": np.zeros_like(ids)}, np.array(class_ids))).batch(8)
    trained = tfopt.quantize_model(bert, "dynamic_wi4b32_afp32", train=data,
                                   settings=Settings(epochs=1, learning_rate=1e-3),
                                   leave=("classifier",))
    after = tfopt.quantize_model(bert, "dynamic_wi4b32_afp32")
    assert weight_types(trained) == {"int4"}
    assert trained != after


def test_what_is_wrong_is_told(bert, tiny_batches):
    with pytest.raises(ValueError, match="Received: 'int3'"):
        tfopt.quantize_model(bert, "int3")
    with pytest.raises(ValueError, match="Received: leave"):
        tfopt.quantize_model(bert, leave=("pooler",))
    with pytest.raises(ValueError, match="Received: .*scheme='float16'"):
        tfopt.quantize_model(bert, "float16", train=tiny_batches)
    step = tfopt.QuantizationAware()
    quantized, = compress.run(bert, compress.Recipe(passes=(step,)), compress.Context(
        train=tiny_batches, settings=Settings(epochs=1)))
    with pytest.raises(ValueError, match="quantized already.*Received: 'bert'"):
        tfopt.quantize_model(quantized.model)
