"""Heads of somebody's own on an encoder, and layers that no pass reaches into."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import tfopt
from tfopt import compress, data, functional
from tfopt import model as models
from tfopt.backend import keras, tf
from tfopt.compress import Context, Recipe
from tfopt.export import flatbuffer, tflite
from tfopt.pipeline import stages
from tfopt.train import Settings

CONFIG = models.EncoderConfig.uniform(
    hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64, vocab_size=103,
    max_positions=64, initializer_range=0.3)
# What is built anew of an encoder's own layers knows no other head.
BUILT_ANEW = {"structured", "student", "hidden_width"}
PASSES = compress.all_passes()


def on_top(within: bool) -> keras.Model:
    """A head on an encoder, which is a layer of its own or not."""
    bert = models.build(CONFIG, models.Head(outputs=8, pooler=None), seed=1)
    if within:
        inputs = {name: keras.Input([None], dtype=tf.int32, name=name)
                  for name in bert.input_names}
        x = bert(inputs)
    else:
        inputs, x = bert.input, bert.output
    return keras.Model(inputs, keras.layers.Dense(3, name="own")(
        tf.nn.relu(x)), name="on_top")


class Tokenizer:
    """One that can do without all ids but the first five."""

    def removable(self):
        return dict.fromkeys(range(5, 103), 1)

    def keeping(self, rows):
        return self


@pytest.fixture(scope="module")
def context(tiny_examples) -> Context:
    return Context(train=data.Batches(*tiny_examples, batch_size=8, shuffle_seed=0),
                   settings=Settings(epochs=1, learning_rate=1e-3),
                   resources={"tokenizer": Tokenizer()})


@pytest.mark.parametrize("name, within", [
    *((name, True) for name in sorted(set(PASSES) - {"none", "taylor", "fisher"})),
    *((name, False) for name in sorted(BUILT_ANEW))])
def test_a_pass_reaches_the_encoder_or_says_that_it_cannot(name, within, context):
    given, recipe = on_top(within), Recipe(passes=(PASSES[name].example(),))
    before = given.get_weights()
    if name in BUILT_ANEW:
        with pytest.raises(ValueError, match="another head stands on it.*'own'"):
            compress.run(given, recipe, context)
        return
    outcome, = compress.run(given, recipe, context)
    flat = functional.flat(given)
    assert set(outcome.touched) <= {layer.name for layer in flat.layers}
    encoder = {layer.name for layer in models.build(CONFIG).layers}
    assert set(outcome.touched) & encoder
    assert outcome.model.get_layer("own").get_weights()[0].shape == (8, 3)
    for now, then in zip(given.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_one_line_prunes_the_encoder_within():
    small = tfopt.compress_model(on_top(True), 0.5)
    for i in range(CONFIG.num_layers):
        for role in ("query", "attention_output", "ffn_output"):
            kernel = small.get_layer(f"layer_{i}_{role}").kernel.numpy()
            assert np.mean(kernel == 0) == 0.5
    assert np.all(small.get_layer("own").kernel.numpy())


def test_a_quantized_encoder_within_has_its_own_integers(context):
    """Of a model that holds a trained one, the file has what was trained."""
    bert = models.build(CONFIG, models.Head(outputs=8, pooler=None), seed=1)
    outcome, = compress.run(bert, Recipe(passes=(tfopt.QuantizationAware(),)),
                            Context(train=context.train, settings=context.settings))
    inputs = {name: keras.Input([None], dtype=tf.int32, name=name)
              for name in bert.input_names}
    given = keras.Model(inputs, keras.layers.Dense(3, name="own")(
        outcome.model(inputs)))
    contents = tflite.convert(given)
    model = flatbuffer.parse(contents)
    trained = outcome.model.get_layer("layer_0_query")
    scale = np.abs(trained.kernel.numpy()).max(axis=0) / 127
    expected = np.round(trained.kernel.numpy() / scale).T
    found = [flatbuffer.stored(model, tensor).view(np.int8).reshape(tensor.shape)
             for operation in flatbuffer.operations(model, "FULLY_CONNECTED")
             for tensor in [model.subgraphs[0].tensors[operation.inputs[1]]]
             if "layer_0_query" in tensor.name.decode()]
    assert len(found) == 1
    np.testing.assert_array_equal(found[0], expected)


@pytest.mark.parametrize("layer, kind", [
    (keras.layers.TimeDistributed(keras.layers.Dense(4)), "TimeDistributed of Dense"),
    (keras.layers.SeparableConv1D(4, 2), "SeparableConv1D"),
    (keras.layers.LSTM(4, return_sequences=True), "LSTM"),
    (keras.layers.GRU(4, return_sequences=True), "GRU"),
    (keras.layers.SimpleRNN(4, return_sequences=True), "SimpleRNN"),
    (keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True)),
     "Bidirectional of LSTM"),
    (keras.layers.EinsumDense("abc,cd->abd", [None, 4]), "EinsumDense"),
    (keras.layers.MultiHeadAttention(2, 4), "MultiHeadAttention"),
    (keras.layers.TimeDistributed(keras.Sequential([keras.layers.Dense(4)])),
     "TimeDistributed of Sequential"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_not_reached_is_told(layer, kind, caplog):
    inputs = keras.Input([6, 8])
    x = layer(inputs, inputs) if kind == "MultiHeadAttention" else layer(inputs)
    given = keras.Model(inputs, keras.layers.Dense(64, name="reached")(x))
    why = f"no pass of this kind reaches the kernels of a {kind}"
    with caplog.at_level(logging.WARNING):
        tfopt.compress_model(given, 0.5)
    assert f"leaves out: {layer.name} ({why})" in caplog.text
    for step in (tfopt.Magnitude.example(), tfopt.LowRank.example(),
                 tfopt.Truncate.example()):
        outcome = step.outcome(given, given) if isinstance(
            step, tfopt.Magnitude) else step.apply(
                functional.copy_model(given), Context())
        assert outcome.skipped[layer.name] == why
        assert why in stages.skipped_in_words(outcome.skipped)
    caplog.clear()
    tfopt.compress_model(given, 0.5, only=("reached",))
    assert "leaves out" not in caplog.text
    with pytest.raises(ValueError) as caught:
        tfopt.compress_model(keras.Model(inputs, x), 0.5)
    assert kind in str(caught.value)


def test_an_expression_alone_is_no_list_of_letters():
    for make in (lambda: tfopt.Magnitude(final_sparsity=0.5, only="query"),
                 lambda: tfopt.LowRank(rank=4, leave="query"),
                 lambda: tfopt.Truncate(threshold=0.1, only="query"),
                 lambda: tfopt.SparseDense(leave="query"),
                 lambda: tfopt.QuantizationAware(only="query"),
                 lambda: compress.from_fields({"pass": "magnitude", "only": "query",
                                               "final_sparsity": 0.5}),
                 lambda: Recipe(passes=(PASSES["none"](),), exports="float32")):
        with pytest.raises(ValueError, match="must be a list.*Received: "):
            make()
