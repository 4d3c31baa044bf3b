"""Conversion: the numbers of Keras, built-in operations, open and fixed lengths."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema
from reading import count, operations, run, weights

from tfopt import model
from tfopt.backend import keras, tf
from tfopt.compress.passes.magnitude import Magnitude
from tfopt.export import ranges, tflite
from tfopt.export.interpreter import Interpreter
from tfopt.measure import cost
from tfopt.model import inference_layers
from tfopt.types import INPUT_NAMES

# Logits of the tiny checkpoint are of size 0.1 to 0.6.
TOLERANCES = {"float32": 1e-5, "float16": 2e-3, "dynamic_wi8_afp32": 3e-2,
              "weight_only_wi8_afp32": 3e-2, "static_wi8_ai8": 3e-2,
              "static_wi8_ai16": 3e-2, "integer_wi8_ai8": 6e-2,
              "dynamic_wi4b32_afp32": 2e-1, "dynamic_wi4_afp32": 3e-1,
              "sparse_float32": 1e-5}
QUANTIZED = [scheme for scheme in tflite.SCHEMES if "_wi" in scheme]
STATIC = [scheme for scheme in QUANTIZED if tflite.needs_calibration(scheme)]


@pytest.fixture(scope="module")
def bert(tiny_dir):
    return model.load(tiny_dir)


@pytest.fixture(scope="module")
def converted(bert, tiny_outputs):
    """(scheme, length) -> the bytes; each made once."""
    rows = range(len(tiny_outputs["logits"]))
    calibration = [natural(tiny_outputs, row) for row in rows]
    graph = functools.cache(lambda length: tflite.float_graph(bert, length=length))

    @functools.cache
    def convert(scheme, length=None):
        if scheme not in QUANTIZED:
            return tflite.convert(bert, scheme, length=length)
        return tflite.quantize(graph(length), scheme, calibration=calibration)

    return convert


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


# Of a fixed length, in float and integers: largest |logit - that of the open length|.
# Between static ranges, scores of hidden positions are only some ten below the others.
OF_PADDING = {"float32": 1e-5, "dynamic_wi8_afp32": 3e-2, "static_wi8_ai8": 3e-2,
              "static_wi8_ai16": 1e-2, "integer_wi8_ai8": 5e-2}


@pytest.mark.parametrize("scheme", OF_PADDING)
def test_a_fixed_length_ignores_the_padding(scheme, converted, tiny_outputs):
    for row, tokens in enumerate(tiny_outputs["attention_mask"].sum(axis=1)):
        padded = {name: tiny_outputs[name][row:row + 1] for name in INPUT_NAMES}
        logits = run(converted(scheme, 24), padded)
        np.testing.assert_allclose(logits, tiny_outputs["logits"][row], rtol=0,
                                   atol=TOLERANCES[scheme])
        np.testing.assert_allclose(
            logits, run(converted(scheme), natural(tiny_outputs, row)), rtol=0,
            atol=OF_PADDING[scheme], err_msg=f"{tokens} tokens")
        # What is hidden does not matter, whatever it is.
        other = padded["input_ids"].copy()
        other[0, tokens:] = 7
        again = run(converted(scheme, 24), {**padded, "input_ids": other})
        np.testing.assert_allclose(again, logits, rtol=0, atol=OF_PADDING[scheme])


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
    ("float32", schema.TensorType.FLOAT32), ("float16", schema.TensorType.FLOAT16),
    *((scheme, schema.TensorType.INT8) for scheme in QUANTIZED if "wi8" in scheme),
    ("dynamic_wi4b32_afp32", schema.TensorType.INT4),
    ("dynamic_wi4_afp32", schema.TensorType.INT4)])
def test_weights_are_of_the_scheme_and_so_is_the_embedding(scheme, expected, converted,
                                                           bert):
    table = list(bert.get_layer("token_embedding").weights[0].shape)
    ffn = [80, 32]  # the first kernel; TFLite keeps it as [out, in]
    content = graph(converted(scheme))
    types = [(list(tensor.shape), tensor.type)
             for tensor in content.subgraphs[0].tensors
             if content.buffers[tensor.buffer].data is not None]
    assert [kind for shape, kind in types if shape == table] == [expected]
    assert [kind for shape, kind in types if shape == ffn] == [expected] * 3


# Products of the small BERT of two layers, 14 in all, by their arithmetic; the integer
# weights of "weight_only" are widened by an operation of their own.
PRODUCTS = {
    "dynamic_wi8_afp32": {"hybrid": 14},
    "weight_only_wi8_afp32": {"float": 14},
    "static_wi8_ai8": {"int8": 10, "hybrid": 4},  # those of the ffn
    "static_wi8_ai16": {"int16": 14},
    "integer_wi8_ai8": {"int8": 14},
    "dynamic_wi4b32_afp32": {"hybrid": 14},
    "dynamic_wi4_afp32": {"hybrid": 14},
}
CURVED = ("SOFTMAX", "GELU", "TANH", "RSQRT", "BATCH_MATMUL", "ADD", "MUL", "MEAN")


@pytest.mark.parametrize("scheme", QUANTIZED)
def test_which_operations_are_in_integers(scheme, quantized):
    contents = quantized(scheme)
    assert count(contents, "FULLY_CONNECTED") == PRODUCTS[scheme]
    lookups = operations(contents, "EMBEDDING_LOOKUP")
    if scheme == "integer_wi8_ai8":
        assert not lookups
        assert count(contents, "GATHER") == {"int8": 4}  # tables, and the mask
        assert set(count(contents, *CURVED)) == {"int8"}
        return
    bits = "int4" if "wi4" in scheme else "int8"
    assert [operation.constants for operation in lookups] == [(bits,)] * 3
    assert set(count(contents, *CURVED)) == {"float"}
    assert count(contents, "DEQUANTIZE") == {
        "static_wi8_ai8": {"float": 10}, "static_wi8_ai16": {"float": 14},
        "weight_only_wi8_afp32": {"hybrid": 14}}.get(scheme, {})


@pytest.mark.parametrize("length", [None, 24])
def test_an_integer_graph_computes_nothing_in_float(length, quantized):
    contents = quantized("integer_wi8_ai8", length)
    for operation in operations(contents):
        assert {*operation.inputs, *operation.outputs, *operation.constants} <= {
            "int8", "int32"}, operation
    interpreter = litert.Interpreter(model_content=contents)
    assert {d["dtype"] for d in interpreter.get_input_details()} == {np.int32}
    output, = interpreter.get_output_details()
    assert output["dtype"] == np.int8
    assert output["quantization"][0] > 0


@pytest.mark.parametrize("scheme", QUANTIZED)
def test_kernels_and_tables_are_those_of_keras(scheme, quantized, small_bert):
    """What is before a product, and behind it, is not folded into its kernel."""
    contents, checked = quantized(scheme), 0
    for layer in small_bert.layers:
        if isinstance(layer, keras.layers.Dense):
            kernel = layer.kernel.numpy().T
        elif "embedding" in layer.name and len(layer.weights) == 1:
            kernel = layer.get_weights()[0]
        else:
            continue
        found, checked = weights(contents, layer.name), checked + 1
        # Blocks are of tables alone where kernels have a scale for each channel.
        blocks = "wi4" in scheme and kernel.shape[1] % 32 == 0 and (
            "b32" in scheme or "embedding" in layer.name)
        small = blocks or "wi4_" in scheme
        assert found.dtype == ("int4" if small else "int8"), layer.name
        if "query" in layer.name:  # it has the scale of the scores in it
            kernel = kernel / 4
        if "integer" in scheme and "embedding" in layer.name:
            low, high = min(kernel.min(), 0), max(kernel.max(), 0)
            scale = (high - low) / 255  # one for all rows, as GATHER has it
            np.testing.assert_allclose(found.scales, [scale], rtol=1e-6)
            np.testing.assert_array_equal(found.zeros, [np.round(-128 - low / scale)])
            assert np.abs(found.numbers() - kernel).max() < 0.51 * scale
            continue
        rows = kernel.reshape([len(kernel), -1, 32 if blocks else kernel.shape[1]])
        scales = np.abs(rows).max(axis=-1) / np.float32(7 if small else 127)
        if blocks:
            scales = tf.cast(tf.cast(scales, tf.bfloat16), tf.float32).numpy()
        np.testing.assert_allclose(found.scales, scales.ravel(), rtol=1e-6)
        np.testing.assert_array_equal(
            found.stored, np.round(rows / scales[..., None]).reshape(kernel.shape),
            err_msg=layer.name)
    assert checked == 2 * 6 + 2 + 3


@pytest.mark.usefixtures("converted_anew")
def test_without_keeping_apart_the_converter_folds(small_bert, monkeypatch):
    """Gamma and beta of a LayerNorm would go into the kernels behind it."""
    monkeypatch.setattr(inference_layers.KeepApart, "call", lambda self, inputs: inputs)
    contents = tflite.convert(small_bert)
    folded = 0
    for name in ("layer_0_key", "layer_0_value", "layer_0_intermediate", "pooler"):
        kernel = small_bert.get_layer(name).kernel.numpy().T
        scales = np.abs(kernel).max(axis=1, keepdims=True) / np.float32(127)
        folded += (weights(contents, name).stored != np.round(kernel / scales)).any()
    assert folded


@pytest.mark.parametrize("scheme", QUANTIZED)
def test_a_bert_of_trained_size_agrees_with_keras(scheme, quantized, small_bert,
                                                  examples):
    """Logits are of size 0.1 to 0.8; examples are those of the calibration."""
    errors = [np.abs(run(quantized(scheme), example) - small_bert(example)[0]).max()
              for example in examples]
    assert max(errors) < SMALL_TOLERANCES[scheme]
    assert max(errors) > 1e-4  # something is rounded


SMALL_TOLERANCES = {
    "dynamic_wi8_afp32": 0.04, "weight_only_wi8_afp32": 0.02, "static_wi8_ai8": 0.04,
    "static_wi8_ai16": 0.02, "integer_wi8_ai8": 0.1, "dynamic_wi4b32_afp32": 0.25,
    "dynamic_wi4_afp32": 0.3}


def _of(graph, scheme: str, layer: str) -> str:
    """The name of a layer's operation."""
    name, = (name for name in tflite.operations(graph, scheme) if f"/{layer}/" in name)
    return name


@pytest.mark.parametrize("scheme", ["dynamic_wi8_afp32", "static_wi8_ai8",
                                    "dynamic_wi4b32_afp32"])
@pytest.mark.parametrize("layer", ["layer_0_key", "layer_1_ffn_output",
                                   "token_embedding"])
def test_what_is_left_stays_in_float_and_nothing_else(scheme, layer, small_graph,
                                                      quantized, small_bert, examples):
    graph = small_graph()
    left = tflite.quantize(graph, scheme, calibration=examples,
                           leave=[_of(graph, scheme, layer)])
    own = weights(left, layer)
    assert own.dtype == "float32"
    np.testing.assert_array_equal(
        own.stored, small_bert.get_layer(layer).get_weights()[0] if "emb" in layer
        else small_bert.get_layer(layer).kernel.numpy().T)
    for other in ("layer_0_query", "layer_1_key", "position_embedding", "pooler"):
        assert weights(left, other).dtype == weights(quantized(scheme), other).dtype


@pytest.mark.parametrize("scheme", ["dynamic_wi8_afp32", "static_wi8_ai16",
                                    "dynamic_wi4b32_afp32"])
@pytest.mark.parametrize("layer", ["layer_0_key", "layer_1_ffn_output",
                                   "token_embedding"])
def test_alone_quantizes_that_and_nothing_else(scheme, layer, small_graph, quantized,
                                               examples):
    graph = small_graph()
    alone = tflite.quantize(graph, scheme, calibration=examples,
                            alone=[_of(graph, scheme, layer)])
    kinds = ("FULLY_CONNECTED", "EMBEDDING_LOOKUP")
    arithmetic = count(alone, *kinds)
    assert arithmetic.pop("float") == 16
    assert sum(arithmetic.values()) == 1
    np.testing.assert_array_equal(weights(alone, layer).stored,
                                  weights(quantized(scheme), layer).stored)


def test_alone_with_nothing_is_the_float_graph(small_graph, examples):
    contents = tflite.quantize(small_graph(), "dynamic_wi8_afp32", alone=[])
    assert set(count(contents)) == {"float", "int32"}
    np.testing.assert_allclose(run(contents, examples[3]),
                               run(small_graph().contents, examples[3]), atol=1e-6)


@pytest.mark.parametrize("scheme", QUANTIZED)
def test_operations_are_those_that_the_scheme_quantizes(scheme, small_graph, quantized,
                                                        examples):
    found = tflite.operations(small_graph(), scheme, calibration=examples)
    assert found.items() <= {o.name: o.kind for o in operations(quantized(scheme))
                             }.items()
    kinds = {kind: list(found.values()).count(kind) for kind in found.values()}
    if scheme == "integer_wi8_ai8":
        assert kinds["GATHER"] == 4 and kinds["SOFTMAX"] == 2
    else:
        assert kinds == {"FULLY_CONNECTED": 14, "EMBEDDING_LOOKUP": 3}


def massive_bert(small_bert) -> keras.Model:
    """A copy, two of whose channels are large where an ffn ends."""
    bert = keras.models.clone_model(small_bert)
    bert.set_weights(small_bert.get_weights())
    layer = bert.get_layer("layer_0_ffn_output")
    kernel, bias = layer.get_weights()
    kernel[:, [3, 17]] *= 40.0
    layer.set_weights([kernel, bias])
    return bert


def test_massive_channels_are_kept_apart(small_bert, examples, monkeypatch):
    """One range for all would leave the others a few steps."""
    bert = massive_bert(small_bert)
    graph = tflite.float_graph(bert)

    def error(contents):
        return np.mean([np.abs(run(contents, example) - bert(example)[0])
                        for example in examples])

    apart = tflite.quantize(graph, "integer_wi8_ai8", calibration=examples)
    split, = (o for o in operations(apart, "FULLY_CONNECTED") if "massive" in o.name)
    assert split.arithmetic == "int8"
    with monkeypatch.context() as context:
        context.setattr(ranges, "_outlier_channels", lambda contents, seen: {})
        together = tflite.quantize(graph, "integer_wi8_ai8", calibration=examples)
    assert not [o for o in operations(together) if "massive" in o.name]
    assert error(apart) < SMALL_TOLERANCES["integer_wi8_ai8"]
    assert error(together) > 1.25 * error(apart)


@pytest.fixture(scope="module")
def massive_graph(small_bert):
    return tflite.float_graph(massive_bert(small_bert))


def test_operations_of_integers_are_of_the_graph_wired_for_them(massive_graph,
                                                                examples):
    """Where LayerNorm is of other operations, and channels are kept apart."""
    found = tflite.operations(massive_graph, "integer_wi8_ai8", calibration=examples)
    whole = operations(tflite.quantize(massive_graph, "integer_wi8_ai8",
                                       calibration=examples))
    assert found.items() <= {o.name: o.kind for o in whole}.items()
    assert {o.name for o in whole} - set(found) == {  # of the tables, as GATHER
        o.name for o in whole if o.kind == "QUANTIZE"}
    assert any("massive" in name for name in found)


@pytest.mark.parametrize("part", ["layer_0_ffn_norm/", "layer_0_ffn_norm/MatMul_2",
                                  "layer_1_attention_norm/MatMul",
                                  "layer_0_ffn_output/massive/"])
def test_what_is_left_of_an_integer_graph_stays_in_float_and_nothing_else(
        part, massive_graph, examples):
    """A whole LayerNorm with massive channels, products within, a split-off product."""
    leave = [name for name in tflite.operations(
        massive_graph, "integer_wi8_ai8", calibration=examples)
        if name.startswith(f"bert/{part}")]
    left = tflite.quantize(massive_graph, "integer_wi8_ai8", calibration=examples,
                           leave=leave)
    assert leave == [o.name for o in operations(left) if o.arithmetic == "float"
                     and o.kind != "DEQUANTIZE"]
    errors = [np.abs(run(left, example) - massive_graph.model(example)[0]).max()
              for example in examples]
    assert max(errors) < SMALL_TOLERANCES["integer_wi8_ai8"]


def test_operations_of_integers_need_examples(small_graph):
    with pytest.raises(ValueError, match="examples.*Received: calibration=None"):
        tflite.operations(small_graph(), "integer_wi8_ai8")


def test_only_massive_channels_are(quantized):
    assert not [o for o in operations(quantized("integer_wi8_ai8"))
                if "massive" in o.name]


@pytest.mark.parametrize("scheme", STATIC)
@pytest.mark.parametrize("few", [None, 0, 1])
def test_static_schemes_need_examples(scheme, few, small_graph, examples):
    told = "calibration=None" if few is None else few
    with pytest.raises(ValueError, match=f"examples.*Received: {told}$"):
        tflite.quantize(small_graph(), scheme,
                        calibration=None if few is None else examples[:few])


def test_needs_calibration_says_which():
    assert STATIC == ["static_wi8_ai8", "static_wi8_ai16", "integer_wi8_ai8"]


@pytest.mark.parametrize("make", [
    lambda bert, graph, **kwargs: tflite.convert(bert, **kwargs),
    lambda bert, graph, **kwargs: tflite.quantize(graph, **kwargs)],
    ids=["convert", "quantize"])
@pytest.mark.parametrize(("arguments", "received"), [
    ({"scheme": "static_wi8_ai8", "method": "median"}, "method='median'"),
    ({"scheme": "int3"}, "'int3'")])
def test_an_unknown_method_or_scheme_is_refused(make, arguments, received, small_bert,
                                                small_graph, examples):
    with pytest.raises(ValueError, match=f"one of.*Received: {received}"):
        make(small_bert, small_graph(), calibration=examples, **arguments)


@pytest.mark.parametrize("scheme", ["float32", "float16", "sparse_float32"])
def test_quantize_refuses_a_scheme_without_rules(scheme, small_graph):
    with pytest.raises(ValueError, match=f"Received: .*{scheme}"):
        tflite.quantize(small_graph(), scheme)


@pytest.mark.usefixtures("converted_anew")
def test_the_order_of_conversions_changes_no_names(small_bert, examples):
    """Ranges and `leave` go by them; Keras counts fresh layers of a process."""
    first, second = (tflite.float_graph(small_bert) for _ in range(2))
    assert (tflite.operations(first, "dynamic_wi8_afp32")
            == tflite.operations(second, "dynamic_wi8_afp32"))
    assert (tflite.operations(first, "integer_wi8_ai8", calibration=examples)
            == tflite.operations(second, "integer_wi8_ai8", calibration=examples))


@pytest.mark.usefixtures("converted_anew")
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
    bert = model.build(model.EncoderConfig.uniform(
        hidden_size=64, num_layers=2, num_heads=2, intermediate_size=256,
        vocab_size=103, max_positions=64, initializer_range=0.2), model.Head(outputs=3))
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
