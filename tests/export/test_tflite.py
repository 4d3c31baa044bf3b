"""Conversion: the numbers of Keras, built-in operations, open and fixed lengths."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema

from tfopt import model
from tfopt.backend import keras, tf
from tfopt.compress.passes.magnitude import Magnitude
from tfopt.export import tflite
from tfopt.export.interpreter import Interpreter
from tfopt.measure import cost
from tfopt.types import INPUT_NAMES

# Logits of the tiny checkpoint are of size 0.1 to 0.6.
TOLERANCES = {"float32": 1e-5, "float16": 2e-3, "dynamic_wi8_afp32": 3e-2,
              "sparse_float32": 1e-5}


@pytest.fixture(scope="module")
def bert(tiny_dir):
    return model.load(tiny_dir)


@pytest.fixture(scope="module")
def converted(bert):
    """(scheme, length) -> the bytes; each made once."""
    made = {}

    def convert(scheme, length=None):
        if (scheme, length) not in made:
            made[scheme, length] = tflite.convert(bert, scheme, length=length)
        return made[scheme, length]

    return convert


def run(contents: bytes, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Runs one example through plain LiteRT: logits <float32>[C]."""
    runner = litert.Interpreter(model_content=contents).get_signature_runner(
        "serving_default")
    return runner(**inputs)["logits"][0]


def natural(outputs, row: int) -> dict[str, np.ndarray]:
    """One example without its padding, <int32>[1, T] each."""
    count = outputs["attention_mask"][row].sum()
    return {name: outputs[name][row:row + 1, :count] for name in INPUT_NAMES}


def graph(contents: bytes):
    return schema.ModelT.InitFromPackedBuf(contents, 0)


def dense(units=3, **kwargs):
    features = keras.Input([8], name="features")
    return keras.Model(features, keras.layers.Dense(units, **kwargs)(features))


@pytest.mark.parametrize("scheme", tflite.SCHEMES)
def test_agrees_with_keras_at_natural_lengths(scheme, converted, bert, tiny_outputs):
    for row in range(len(tiny_outputs["logits"])):
        inputs = natural(tiny_outputs, row)
        np.testing.assert_allclose(run(converted(scheme), inputs), bert(inputs)[0],
                                   rtol=0, atol=TOLERANCES[scheme])


def test_float32_agrees_with_the_reference(converted, tiny_outputs):
    for row, expected in enumerate(tiny_outputs["logits"]):
        np.testing.assert_allclose(
            run(converted("float32"), natural(tiny_outputs, row)), expected, atol=1e-5)


def test_every_scheme_is_smaller_than_the_one_before(converted):
    sizes = [len(converted(scheme)) for scheme in
             ("float32", "float16", "dynamic_wi8_afp32")]
    assert sizes[0] > 1.4 * sizes[1] > 1.4 * 1.2 * sizes[2]


@pytest.mark.parametrize(("length", "shape", "signature"), [
    (None, [1, 1], [1, -1]), (24, [1, 24], [1, 24])])
def test_the_length_is_open_unless_fixed(length, shape, signature, converted):
    interpreter = litert.Interpreter(model_content=converted("float32", length))
    for details in interpreter.get_input_details():
        assert details["shape"].tolist() == shape
        assert details["shape_signature"].tolist() == signature
        assert details["dtype"] == np.int32


def test_a_fixed_length_ignores_the_padding(converted, tiny_outputs):
    row = tiny_outputs["attention_mask"].sum(axis=1).argmin()
    padded = {name: tiny_outputs[name][row:row + 1] for name in INPUT_NAMES}
    assert padded["attention_mask"].sum() < 24
    np.testing.assert_allclose(run(converted("float32", 24), padded),
                               tiny_outputs["logits"][row], atol=1e-5)


@pytest.mark.parametrize("scheme", tflite.SCHEMES)
def test_signature_names_inputs_and_logits(scheme, converted):
    signatures = litert.Interpreter(
        model_content=converted(scheme)).get_signature_list()
    assert list(signatures) == ["serving_default"]
    assert sorted(signatures["serving_default"]["inputs"]) == sorted(INPUT_NAMES)
    assert signatures["serving_default"]["outputs"] == ["logits"]


@pytest.mark.parametrize("scheme", tflite.SCHEMES)
def test_only_builtin_operations(scheme, converted):
    codes = graph(converted(scheme)).operatorCodes
    assert codes
    for code in codes:
        assert code.customCode is None
        assert code.builtinCode != schema.BuiltinOperator.CUSTOM


@pytest.mark.parametrize(("scheme", "expected"), [
    ("float32", schema.TensorType.FLOAT32),
    ("float16", schema.TensorType.FLOAT16),
    ("dynamic_wi8_afp32", schema.TensorType.INT8)])
def test_weights_are_of_the_scheme_and_so_is_the_embedding(scheme, expected, converted,
                                                           bert):
    table = list(bert.get_layer("token_embedding").weights[0].shape)
    ffn = [80, 32]  # TFLite keeps kernels as [out, in]
    content = graph(converted(scheme))
    types = [(list(tensor.shape), tensor.type)
             for tensor in content.subgraphs[0].tensors
             if content.buffers[tensor.buffer].data is not None]
    assert [kind for shape, kind in types if shape == table] == [expected]
    assert [kind for shape, kind in types if shape == ffn] == [expected] * 3


def test_int8_weights_are_quantized_per_output_channel(converted):
    tensors = graph(converted("dynamic_wi8_afp32")).subgraphs[0].tensors
    scales = [len(tensor.quantization.scale) for tensor in tensors
              if list(tensor.shape) == [80, 32]]
    assert scales == [80] * 3


def test_the_model_is_left_as_it_was(bert, converted):
    before = bert.get_config(), bert.get_weights()
    tflite.convert(bert, "float32", length=4)
    assert bert.get_config() == before[0]
    for now, was in zip(bert.get_weights(), before[1], strict=True):
        np.testing.assert_array_equal(now, was)


def test_converts_a_users_own_model():
    own = dense(bias_initializer=keras.initializers.Constant([1.0, 2.0, 3.0]))
    features = np.linspace(-1, 1, 8, dtype=np.float32)[np.newaxis]
    np.testing.assert_allclose(
        run(tflite.convert(own, "float32"), {"features": features}), own(features)[0],
        atol=1e-6)


def test_length_fills_every_open_axis_of_a_users_own_model():
    steps = keras.Input([None, 4], name="steps")
    own = keras.Model(steps, keras.layers.GlobalAveragePooling1D()(steps))
    details = litert.Interpreter(model_content=tflite.convert(
        own, "float32", length=7)).get_input_details()
    assert details[0]["shape_signature"].tolist() == [1, 7, 4]


@pytest.mark.parametrize(("arguments", "received"), [
    ({"scheme": "int3"}, "'int3'"),
    ({"scheme": "float32", "length": 0}, "length=0"),
    ({"scheme": "float32", "length": -1}, "length=-1")])
def test_refuses_an_unknown_scheme_and_a_bad_length(arguments, received):
    with pytest.raises(ValueError, match=f"Received: {received}"):
        tflite.convert(dense(), **arguments)


@pytest.mark.parametrize("scheme", ["float64", "", "Float32"])
def test_check_scheme_names_the_known_ones(scheme):
    with pytest.raises(ValueError, match=f"dynamic_wi8_afp32.*Received: '{scheme}'"):
        tflite.check_scheme(scheme)


def _python(x):
    return tf.ensure_shape(tf.py_function(lambda y: y, [x], tf.float32), [None, 4, 4])


@pytest.mark.parametrize(("function", "operation"), [
    (lambda x: tf.linalg.svd(x)[0], "Svd"), (_python, "EagerPyFunc")])
def test_an_operation_that_tflite_lacks_is_named_in_one_line(function, operation):
    x = keras.Input([4, 4])
    own = keras.Model(x, keras.layers.Lambda(function)(x), name="own")
    with pytest.raises(ValueError, match="Received: model 'own'") as error:
        tflite.convert(own, "float32")
    assert f"'tf.{operation}'" in str(error.value)
    assert "\n" not in str(error.value)


def test_refuses_a_subclassed_model_and_several_outputs():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    own = Subclassed()
    own(tf.zeros([1, 2]))
    with pytest.raises(ValueError, match="functional.*Received: Subclassed"):
        tflite.convert(own, "float32")
    x = keras.Input([2])
    with pytest.raises(ValueError, match="one output.*Received: "):
        tflite.convert(keras.Model(x, [x, x + 1.0]), "float32")


@pytest.mark.parametrize("pattern", ["unstructured", "4x1"])
def test_a_sparse_file_holds_the_nonzeros_alone(pattern, tmp_path):
    bert = model.build(model.BertConfig.uniform(
        hidden_size=64, num_layers=2, num_heads=2, intermediate_size=256,
        vocab_size=103, max_positions=64, num_labels=3, initializer_range=0.2))
    pruned = Magnitude(final_sparsity=0.8, pattern=pattern).prune_at_once(bert)
    sparse, dense = tmp_path / "sparse", tmp_path / "dense"
    sparse.write_bytes(tflite.convert(pruned, "sparse_float32"))
    dense.write_bytes(tflite.convert(pruned, "float32"))
    ids = np.arange(4, 25)
    inputs = {"input_ids": ids[None], "attention_mask": np.ones([1, 21], np.int32),
              "token_type_ids": np.zeros([1, 21], np.int32)}
    np.testing.assert_allclose(Interpreter(sparse, num_threads=1).run(ids, 21),
                               pruned(inputs)[0], atol=1e-5)
    # As many weights, of which as many zeros; but fewer bits.
    counts = cost.of_tflite(sparse), cost.of_tflite(dense)
    for figure in ("parameters", "nonzeros"):
        assert counts[0][figure] == counts[1][figure]
    assert counts[0]["bits"] < 0.6 * counts[1]["bits"]
    assert sparse.stat().st_size < 0.6 * dense.stat().st_size
