"""Exports of models of somebody's own: their tables, inputs and calibration."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from ai_edge_litert import interpreter as litert

from tfopt.backend import keras, tf
from tfopt.export import flatbuffer, tflite

ROWS, WIDTH = 3000, 64
TABLE_BYTES = 4 * ROWS * WIDTH
INT8 = [scheme for scheme in tflite.SCHEMES
        if "wi8" in scheme and not scheme.startswith("integer")]
INT4 = [scheme for scheme in tflite.SCHEMES if "wi4" in scheme]


def text_model(ids: keras.layers.Layer) -> keras.Model:
    x = keras.layers.Embedding(ROWS, WIDTH, name="own_table")(ids)
    x = keras.layers.GlobalAveragePooling1D()(x)
    x = keras.layers.Dense(32, "relu")(x)
    return keras.Model(ids, keras.layers.Dense(3)(x))


def run(contents: bytes, ids: np.ndarray) -> np.ndarray:
    interpreter = litert.Interpreter(model_content=contents)
    details, = interpreter.get_input_details()
    interpreter.resize_tensor_input(details["index"], ids.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(details["index"], ids)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def texts(dtype=np.int32) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, ROWS, [1, length]).astype(dtype)
            for length in (5, 9, 12, 5)]


def calibration(model: keras.Model, ids) -> list[dict]:
    return [{model.input_names[0]: value} for value in ids]


@pytest.fixture(scope="module")
def own() -> keras.Model:
    keras.utils.set_random_seed(0)
    return text_model(keras.Input([None], dtype=tf.int32))


@pytest.mark.parametrize("scheme", INT8 + INT4)
def test_a_table_of_ones_own_is_in_integers(scheme, own):
    contents = tflite.convert(own, scheme, calibration=calibration(own, texts()))
    # Beside the numbers, each row has a scale and a zero point; blocks have more.
    size = TABLE_BYTES / 4 + 12 * ROWS if scheme in INT8 else TABLE_BYTES / 6
    assert len(contents) < size + 40_000
    assert tflite.weights_in_float(contents) == {}
    for ids in texts():
        expected = own(ids).numpy()
        tolerance = 0.1 if scheme in INT4 else 0.03
        np.testing.assert_allclose(run(contents, ids), expected,
                                   atol=tolerance * np.abs(expected).max() + 1e-3)


def test_rows_are_those_of_the_table(own):
    """A scale for each row: q = round(w / s), s = max|w| / 127."""
    table = own.get_layer("own_table").get_weights()[0]
    bare = keras.Model(own.input, own.get_layer("own_table").output)
    ids = texts()[1]
    scales = np.abs(table).max(axis=1, keepdims=True) / 127
    expected = (np.round(table / scales) * scales)[ids]
    np.testing.assert_allclose(run(tflite.convert(bare), ids), expected, atol=1e-6)


@pytest.mark.parametrize("ids", [
    lambda: keras.Input([7], dtype=tf.int32),  # fixed
    lambda: keras.Input([None], dtype=tf.int64),
    lambda: keras.Input([None]),  # Keras' default, float32
    lambda: keras.Input([7], dtype=tf.int64),
], ids=["fixed length", "int64", "float32", "int64 of fixed length"])
def test_whatever_the_ids_are(ids):
    given = text_model(ids())
    contents = tflite.convert(given)
    assert tflite.weights_in_float(contents) == {}
    values = np.arange(7)[None].astype(given.input.dtype.as_numpy_dtype)
    np.testing.assert_allclose(run(contents, values), given(values), atol=2e-3)


def test_the_ids_of_a_text_may_be_a_matrix():
    ids = keras.Input([4, 6], dtype=tf.int32)
    x = keras.layers.Embedding(ROWS, WIDTH)(ids)
    x = keras.layers.Flatten()(x)
    given = keras.Model(ids, keras.layers.Dense(3)(x))
    contents = tflite.convert(given)
    assert tflite.weights_in_float(contents) == {}
    values = np.arange(24, dtype=np.int32).reshape(1, 4, 6)
    np.testing.assert_allclose(run(contents, values), given(values), atol=2e-3)


def test_two_tables_of_the_same_ids():
    ids = keras.Input([None], dtype=tf.int32)
    x = keras.layers.Add()([keras.layers.Embedding(ROWS, WIDTH)(ids) for _ in range(2)])
    given = keras.Model(ids, keras.layers.Dense(3)(
        keras.layers.GlobalAveragePooling1D()(x)))
    for scheme in ("dynamic_wi8_afp32", "static_wi8_ai8"):
        contents = tflite.convert(given, scheme,
                                  calibration=calibration(given, texts()))
        assert tflite.weights_in_float(contents) == {}
        np.testing.assert_allclose(run(contents, texts()[0]), given(texts()[0]),
                                   atol=5e-3)


def test_a_table_that_classifies_too():
    """Tied weights: looked up, and multiplied by."""
    ids = keras.Input([None], dtype=tf.int32)
    embedding = keras.layers.Embedding(ROWS, WIDTH)
    x = keras.layers.GlobalAveragePooling1D()(embedding(ids))
    given = keras.Model(ids, keras.layers.Lambda(
        lambda y: tf.matmul(y, embedding.embeddings, transpose_b=True))(x))
    contents = tflite.convert(given)
    assert tflite.weights_in_float(contents) == {}
    np.testing.assert_allclose(run(contents, texts()[0]), given(texts()[0]), atol=2e-3)


def test_what_stays_in_float_is_told(caplog):
    x = keras.Input([8, 64])
    given = keras.Model(x, keras.layers.Dense(3)(keras.layers.LSTM(64)(x)))
    with caplog.at_level(logging.WARNING):
        contents = tflite.convert(given)
    (name, size), = tflite.weights_in_float(contents).items()
    assert size == 4 * (64 + 64) * 4 * 64
    assert name.endswith("(UNIDIRECTIONAL_SEQUENCE_LSTM)")
    assert f"dynamic_wi8_afp32 leaves weights in float32: {name}" in caplog.text


def test_an_own_head_on_an_encoder_leaves_no_table(small_bert, examples):
    inputs = {name: keras.Input([None], dtype=tf.int32, name=name)
              for name in small_bert.input_names}
    given = keras.Model(inputs, keras.layers.Dense(2)(small_bert(inputs)))
    contents = tflite.convert(given)
    tables = [flatbuffer.dtype(model.subgraphs[0].tensors[operation.inputs[1]])
              for model in [flatbuffer.parse(contents)]
              for operation in flatbuffer.operations(model, "EMBEDDING_LOOKUP")]
    assert tables and set(tables) == {"int8"}


GOOD = np.ones([1, 8], np.float32)


@pytest.mark.parametrize("example, rule", [
    ({"x": GOOD}, "there"), ({}, "there"), (GOOD, "there"),
    ({"given": np.full([1, 8], np.nan)}, "of finite numbers"),
    ({"given": np.full([1, 8], np.inf)}, "of finite numbers"),
    ({"given": np.ones([2, 8])}, r"of shape \[1, 8\]"),
    ({"given": np.ones([8])}, r"of shape \[1, 8\]"),
    ({"given": np.ones([1, 9])}, r"of shape \[1, 8\]"),
    ({"given": np.ones([1, 0])}, r"of shape \[1, 8\]"),
    ({"given": "words"}, "of float32"), ({"given": None}, "of float32"),
    ({"given": np.ones([1, 8], complex)}, "of float32"),
], ids=str)
def test_examples_that_are_no_inputs_are_refused(example, rule):
    given = keras.Model(x := keras.Input([8], name="given"), keras.layers.Dense(3)(x))
    with pytest.raises(ValueError, match=f"'given' must be {rule}.*Received: "):
        tflite.convert(given, "static_wi8_ai8",
                       calibration=[{"given": GOOD}, example])


@pytest.mark.parametrize("examples", ["abcd", {"given": GOOD}, iter([{"given": GOOD}]),
                                      7], ids=lambda given: type(given).__name__)
def test_calibration_is_a_list(examples):
    given = keras.Model(x := keras.Input([8], name="given"), keras.layers.Dense(3)(x))
    with pytest.raises(ValueError, match="list of examples.*Received: "):
        tflite.convert(given, "static_wi8_ai8", calibration=examples)


def test_numbers_that_fit_are_taken():
    given = keras.Model(x := keras.Input([8], name="given"), keras.layers.Dense(3)(x))
    for value in (np.ones([1, 8], np.float64), np.ones([1, 8], int), [[1.0] * 8]):
        tflite.convert(given, "static_wi8_ai8",
                       calibration=[{"given": 2 * GOOD}, {"given": value, "more": 1}])


def test_ids_outside_of_the_vocabulary_are_told(own):
    name, = own.input_names
    for wrong, told in ((np.array([[ROWS]]), "refuses an example"),
                        (np.array([[0.5]]), "of int32")):
        with pytest.raises(ValueError, match=f"{told}.*Received: "):
            tflite.convert(own, "static_wi8_ai8", calibration=[
                {name: texts()[0]}, {name: wrong}])
