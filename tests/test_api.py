"""`tfopt.quantize_model`: one line from a model to a quantized `.tflite`."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import interpreter as litert

import tfopt
from tfopt import compress, model
from tfopt.backend import keras, tf
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


X = np.random.default_rng(0).normal(size=[24, 8]).astype(np.float32)
DATA = tf.data.Dataset.from_tensor_slices((X, np.arange(24) % 3))


def of_three() -> keras.Model:
    return keras.Sequential([keras.Input([8]), keras.layers.Dense(3)])


@pytest.mark.parametrize("train, told", [
    ((X, np.arange(24)), r"from_tensor_slices.*Received: tuple"),
    ([X], "from_tensor_slices.*Received: list"), (X, "Received: ndarray"),
    ("train.tsv", "Received: str"), (iter([1]), "Received: list_iterator"),
    (DATA, r"whole batches.*Received: .*\(8,\), \(\)"),
    (DATA.batch(8).repeat(), "cardinality"), (DATA.batch(8).take(0), "cardinality"),
    (DATA.batch(8).map(lambda x, y: x), r"\(inputs, targets\)"),
    (DATA.batch(8).map(lambda x, y: (x, tf.one_hot(y, 3))), r"argmax.*\(None, 3\)"),
], ids=["arrays", "list", "inputs", "file", "iterator", "examples", "endless", "empty",
        "no targets", "one-hot"])
def test_data_of_another_form_is_told_the_way(train, told):
    for call in (lambda: tfopt.compress_model(of_three(), 0.5, train=train),
                 lambda: tfopt.quantize_model(of_three(), train=train),
                 lambda: tfopt.compress_model(of_three(), 0.5, dev=train,
                                              train=DATA.batch(8))):
        with pytest.raises(ValueError, match=f"(?s){told}"):
            call()


@pytest.mark.parametrize("targets", [
    lambda y: y, lambda y: y[:, tf.newaxis], lambda y: tf.cast(y, tf.int32)])
def test_class_numbers_may_be_a_column(targets):
    train = DATA.batch(8).map(lambda x, y: (x, targets(y)))
    small = tfopt.compress_model(of_three(), 0.5, train=train,
                                 settings=Settings(epochs=1))
    assert np.sum(small.get_weights()[0] == 0) == 12


def test_layers_of_mixed_precision_under_float32():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        given = keras.Sequential([
            keras.Input([8]), keras.layers.Dense(16, "relu"), keras.layers.Dense(3)])
    finally:
        keras.mixed_precision.set_global_policy("float32")
    expected = tf.cast(given(X[:1]), tf.float32)
    settings = Settings(epochs=1)
    small = tfopt.compress_model(given, 0.5, train=DATA.batch(8), settings=settings)
    assert np.sum(small.get_weights()[0] == 0) == 64
    for contents in (tfopt.convert(given), tfopt.convert(given, "float32"),
                     tfopt.convert(small), tfopt.quantize_model(given),
                     tfopt.quantize_model(given, train=DATA.batch(8),
                                          settings=settings)):
        assert weight_types(contents) <= {"int8", "float32"}
    run = litert.Interpreter(model_content=tfopt.convert(given)).get_signature_runner()
    name, = given.input_names
    np.testing.assert_allclose(run(**{name: X[:1]})["logits"], expected, atol=0.05)


@pytest.mark.parametrize("change", [lambda y: y + 7, lambda y: y - 1])
def test_classes_that_the_model_has_not_are_told(change):
    train = DATA.batch(8).map(lambda x, y: (x, change(y)))
    with pytest.raises(ValueError, match="class numbers.*Received: .*label value"):
        tfopt.compress_model(of_three(), 0.5, train=train)


def test_ids_outside_of_the_vocabulary_are_told():
    ids = tf.data.Dataset.from_tensors((tf.fill([4, 3], 200), tf.zeros([4], tf.int32)))
    given = keras.Sequential([
        keras.Input([3], dtype=tf.int32), keras.layers.Embedding(50, 8),
        keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="below its vocabulary.*Received: .*indices"):
        tfopt.compress_model(given, 0.5, train=ids)


def test_inputs_in_a_dictionary_are_trained_by_its_keys():
    first, second = keras.Input([8]), keras.Input([8])
    given = keras.Model({"first": first, "other": second}, keras.layers.Dense(3)(
        keras.layers.Concatenate()([first, second])))
    train = DATA.batch(8).map(lambda x, y: ({"first": x, "other": -x}, y))
    settings = Settings(epochs=1)
    small = tfopt.compress_model(given, 0.5, train=train, dev=train, settings=settings)
    assert np.sum(small.get_weights()[0] == 0) == 24
    assert tfopt.quantize_model(given, train=train, settings=settings)
    goal = tfopt.Distillation().goal(given)
    tfopt.train.fit(small, tfopt.api._batches(train), settings=settings, goal=goal)
