"""The format: bytes there and back, and two edits that keep what is computed."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import interpreter as litert
from reading import operations, run, weights

from tfopt.backend import keras, tf
from tfopt.export import flatbuffer, lookup, tflite
from tfopt.model import inference_layers


def floats(model: keras.Model) -> bytes:
    """What the converter makes, as `join` gets it."""
    serve = tf.function(model, [
        tf.TensorSpec([1, *model.input.shape[1:]], model.input.dtype)])
    return tf.lite.TFLiteConverter.from_concrete_functions(
        [serve.get_concrete_function()], model).convert()


def call(contents: bytes, x: np.ndarray) -> np.ndarray:
    """Runs a file that has no signature."""
    interpreter = litert.Interpreter(model_content=contents)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def kinds(contents: bytes) -> list[str]:
    return [operation.kind for operation in operations(contents)]


@pytest.fixture(scope="module")
def two_products():
    """Dense, a maximum of its own, KeepApart, Dense."""
    x = keras.Input([4])
    y = keras.layers.Dense(5, bias_initializer="ones", name="first")(x)
    y = keras.layers.Lambda(lambda y: tf.maximum(y, -1e38))(y)
    y = inference_layers.KeepApart()(y)
    y = keras.layers.Dense(3, bias_initializer="ones", name="second")(y)
    return keras.Model(x, keras.layers.Lambda(lambda y: tf.maximum(y, 0.5))(y))


def test_bytes_come_back_the_same(small_graph):
    contents = small_graph().contents
    once = flatbuffer.serialize(flatbuffer.parse(contents))
    assert flatbuffer.serialize(flatbuffer.parse(once)) == once
    assert operations(once) == operations(contents)
    np.testing.assert_array_equal(weights(once, "pooler").stored,
                                  weights(contents, "pooler").stored)


def test_names_kinds_dtypes_and_constants(two_products):
    model = flatbuffer.parse(tflite.convert(two_products, "float32"))
    products = list(flatbuffer.operations(model, "FULLY_CONNECTED"))
    assert len(products) == 2
    graph = model.subgraphs[0]
    assert "first" in flatbuffer.output_name(graph, products[0])
    kernel = graph.tensors[products[0].inputs[1]]
    assert flatbuffer.dtype(kernel) == "float32"
    np.testing.assert_array_equal(
        flatbuffer.stored(model, kernel).view(np.float32).reshape(5, 4),
        two_products.get_layer("first").kernel.numpy().T)
    assert flatbuffer.stored(model, graph.tensors[products[0].inputs[0]]) is None


def test_join_takes_the_kept_apart_alone(two_products):
    before = floats(two_products)
    after = flatbuffer.join(before, inference_layers.LOWEST)
    assert kinds(before).count("MAXIMUM") == 3
    assert kinds(after) == ["FULLY_CONNECTED", "MAXIMUM", "FULLY_CONNECTED", "MAXIMUM"]
    x = np.linspace(-1, 1, 4, dtype=np.float32)[None]
    np.testing.assert_allclose(call(after, x), call(before, x), rtol=1e-6)
    np.testing.assert_allclose(call(after, x), two_products(x), rtol=1e-6)


def test_join_leaves_a_file_without_them_as_it_is(two_products):
    joined = flatbuffer.join(floats(two_products), inference_layers.LOWEST)
    assert flatbuffer.join(joined, inference_layers.LOWEST) == joined


def test_kept_apart_are_all_gone_from_a_bert(small_bert):
    assert "MAXIMUM" not in kinds(tflite.float_graph(small_bert).contents)


def test_every_table_is_looked_up(small_graph, small_bert, examples):
    contents = small_graph().contents
    after = lookup.look_embeddings_up(contents)
    # The fourth is the mask's, of two numbers.
    assert kinds(contents).count("GATHER") == 4
    assert kinds(after).count("GATHER") == 1
    assert kinds(after).count("EMBEDDING_LOOKUP") == 3
    np.testing.assert_array_equal(run(after, examples[5]), run(contents, examples[5]))
    np.testing.assert_array_equal(weights(after, "token_embedding").stored,
                                  small_bert.get_layer("token_embedding").get_weights()[0])


TABLE = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize(("gather", "replaced"), [
    (lambda ids: tf.gather(TABLE, ids[0]), True),
    (lambda ids: tf.gather(TABLE, ids), True),  # by a matrix
    (lambda ids: tf.gather(TABLE, ids[0], axis=1), False),
    (lambda ids: tf.gather(TABLE[0], ids[0]), False),
    (lambda ids: tf.gather(TABLE * tf.cast(ids[0, :1], tf.float32), ids[0]), False),
    (lambda ids: tf.gather(TABLE.astype(np.int32), ids[0]), False),
    (lambda ids: tf.gather(TABLE, tf.cast(ids[0], tf.int64)), True),
    (lambda ids: tf.gather(TABLE, tf.cast(ids, tf.int64)), True),
    (lambda ids: tf.gather(TABLE[None], ids, batch_dims=1), False),
], ids=["rows", "by a matrix", "columns", "of a vector", "of what is computed",
        "of integers", "by int64", "by a matrix of int64", "of a row's own"])
def test_only_rows_of_a_constant_matrix_are_looked_up(gather, replaced):
    x = keras.Input([2], dtype=tf.int32)
    own = floats(keras.Model(x, keras.layers.Lambda(gather)(x)))
    after = lookup.look_embeddings_up(own)
    assert ("EMBEDDING_LOOKUP" in kinds(after)) is replaced
    assert ("GATHER" in kinds(after)) is not replaced
    ids = np.array([[2, 1]], np.int32)
    np.testing.assert_array_equal(call(after, ids), call(own, ids))


@pytest.mark.parametrize("contents", [
    b"", b"TFL3", b"a text of some length", bytes(64), bytes(4) + b"TFL4" + bytes(64)],
    ids=["empty", "short", "text", "zeros", "another version"])
def test_what_is_no_tflite_is_refused(contents):
    with pytest.raises(ValueError, match="'TFL3'. Received: b'"):
        flatbuffer.parse(contents)


@pytest.mark.parametrize("part", [0.0005, 0.05, 0.5, 0.95])
def test_what_is_truncated_is_refused(part, small_graph):
    whole = small_graph().contents
    with pytest.raises(ValueError, match="Received: "):
        flatbuffer.parse(whole[:int(part * len(whole))])


def test_a_header_alone_is_refused():
    with pytest.raises(ValueError, match="damaged. Received: 108 bytes"):
        flatbuffer.parse(b"\xff\xff\x00\x00TFL3" + bytes(100))
