"""Layers that round: alone, saved and loaded, and without what they add."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tfopt import model
from tfopt.backend import keras, tf
from tfopt.model import fake_quant, layers
from tfopt.model.quantized_layers import (
    QUANTIZED,
    Grid,
    Quantized,
    QuantizedAdd,
    QuantizedAttention,
    QuantizedDense,
    QuantizedEmbedding,
    QuantizedNorm,
    QuantizedPositions,
)

RANGE = Grid("static", -2.0, 3.0)
WIDE = Grid("static", -1.0, 1.0, channels=(1, 3), channels_low=-90.0,
            channels_high=80.0)
KINDS = {
    "dense": QuantizedDense(4, "relu", grids={
        "input": Grid("per_token"), "output": RANGE, "activation": WIDE},
        weight_bits=4, weight_block=32),
    "embedding": QuantizedEmbedding(9, 4, grids={"rows": Grid("rows")}, weight_bits=8),
    "positions": QuantizedPositions(7, grids={"rows": Grid("rows", bits=4, block=32)}),
    "add": QuantizedAdd(grids={"output": WIDE}),
    "norm": QuantizedNorm(epsilon=1e-6, grids={"output": RANGE}),
    "attention": QuantizedAttention(2, 0.1, grids={
        "scores": RANGE, "probabilities": Grid("static", 0.0, 1.0)}),
    "bare": QuantizedDense(4),
}


def test_there_is_one_of_each_layer_of_a_bert():
    assert {type(layer) for layer in KINDS.values()} == set(QUANTIZED.values())
    for plain, kind in QUANTIZED.items():
        assert kind.plain is plain
        assert issubclass(kind, Quantized) and issubclass(kind, plain)


@pytest.mark.parametrize("name", KINDS)
def test_the_config_gives_the_layer_back(name):
    layer = KINDS[name]
    config = json.loads(json.dumps(layer.get_config()))  # as a file keeps it
    again = type(layer).from_config(config)
    assert again.get_config() == layer.get_config()
    assert again.grids == layer.grids
    assert (again.weight_bits, again.weight_block) == (layer.weight_bits,
                                                       layer.weight_block)


@pytest.mark.parametrize("name", KINDS)
def test_the_plain_config_is_of_the_plain_layer(name):
    layer = KINDS[name]
    plain = layer.plain.from_config(layer.plain_config())
    assert type(plain) is layer.plain
    assert plain.get_config() == layer.plain_config()
    assert not set(plain.get_config()) & {"grids", "weight_bits", "weight_block"}


def test_a_grid_of_channels_rounds_each_by_its_own():
    x = np.array([[0.5, 85.0, 5.0, -100.0]], np.float32)
    rounded = WIDE(tf.constant(x)).numpy()[0]
    # Steps of 2 / 255 and of 170 / 255; beyond a range, its end.
    np.testing.assert_allclose(rounded[[0, 2]], [64 * 2 / 255, 1.0], atol=0.5 * 2 / 255)
    np.testing.assert_allclose(rounded[[1, 3]], [80.0, -90.0], atol=0.5 * 170 / 255)
    np.testing.assert_allclose(
        rounded[[1, 3]], fake_quant.between(tf.constant([85.0, -100.0]), -90.0, 80.0))
    np.testing.assert_allclose(
        rounded[[0, 2]], fake_quant.between(tf.constant([0.5, 5.0]), -1.0, 1.0))


@pytest.mark.parametrize(("grid", "function"), [
    (Grid("per_token"), fake_quant.per_token),
    (Grid("rows"), lambda x: fake_quant.symmetric(x, 8, -1)),
    (Grid("rows", bits=4, block=32), lambda x: fake_quant.symmetric(x, 4, -1, 32)),
    (RANGE, lambda x: fake_quant.between(x, -2.0, 3.0))])
def test_a_grid_rounds_as_its_kind(grid, function):
    x = tf.constant(np.random.default_rng(0).normal(size=[3, 64]).astype(np.float32))
    np.testing.assert_array_equal(grid(x), function(x))


def steps(low: float, high: float):
    return lambda x: fake_quant.between(tf.constant(x, tf.float32), low, high).numpy()


def test_a_dense_rounds_at_its_three_points():
    layer = QuantizedDense(3, "tanh", bias_initializer="ones", grids={
        "input": Grid("static", -1.0, 1.0), "output": Grid("static", -2.0, 2.0),
        "activation": Grid("static", -0.5, 0.5)})
    x = np.random.default_rng(0).normal(size=[6, 4]).astype(np.float32)
    y = layer(x)
    kernel, bias = layer.get_weights()
    expected = steps(-0.5, 0.5)(np.tanh(steps(-2, 2)(
        steps(-1, 1)(x) @ kernel + bias)))
    np.testing.assert_allclose(y, expected, atol=1e-6)
    # Of more axes too.
    np.testing.assert_allclose(layer(x.reshape([2, 3, 4])), np.reshape(y, [2, 3, 3]),
                               atol=1e-6)


def test_tables_round_the_rows_they_look_up():
    embedding = QuantizedEmbedding(9, 8, grids={"rows": Grid("rows")})
    rows = embedding(np.array([[1, 4]]))
    np.testing.assert_array_equal(rows[0], fake_quant.symmetric(
        tf.gather(embedding.embeddings, [1, 4]), 8, -1))
    positions = QuantizedPositions(9, grids={"rows": Grid("rows")})
    x = tf.ones([2, 3, 8])
    expected = 1 + fake_quant.symmetric(positions(x) * 0 + positions.table[:3], 8, -1)
    np.testing.assert_allclose(positions(x), expected, atol=1e-7)
    flat = positions([tf.ones([6, 8]), tf.constant([0, 1, 2] * 2)])
    np.testing.assert_allclose(tf.reshape(flat, [2, 3, 8]), positions(x), atol=1e-7)


def test_sums_norms_and_attention_round_what_they_give():
    x = np.random.default_rng(1).normal(size=[2, 5, 8]).astype(np.float32)
    np.testing.assert_allclose(QuantizedAdd(grids={"output": RANGE})([x, x]),
                               steps(-2, 3)(2 * x), atol=1e-6)
    np.testing.assert_allclose(QuantizedNorm(grids={"output": RANGE})(x),
                               steps(-2, 3)(layers.LayerNorm()(x)), atol=1e-6)
    own = QuantizedAttention(2, grids={
        "scores": Grid("static", -1.0, 1.0), "probabilities": Grid("static", 0.0, 1.0),
        "output": Grid("static", -0.5, 0.5)})
    mask = np.array([[1] * 5, [1] * 3 + [0] * 2])

    def heads(y):
        return y.reshape([2, 5, 2, 4]).transpose([0, 2, 1, 3])

    scores = steps(-1, 1)(heads(x * 0.5) @ heads(x).swapaxes(2, 3))
    scores = scores + np.where(mask, 0.0, -100.0)[:, None, None]
    chances = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    context = (steps(0, 1)(chances) @ heads(x)).transpose([0, 2, 1, 3])
    np.testing.assert_allclose(own([x, x, x, mask]),
                               steps(-0.5, 0.5)(context.reshape([2, 5, 8])), atol=1e-5)


def test_a_hook_comes_before_a_grid():
    layer = QuantizedAdd(grids={"output": RANGE})
    layer.hooks = {"output": lambda x: x + 1.0}
    np.testing.assert_array_equal(layer([tf.zeros([2]), tf.zeros([2])]), [1.0, 1.0])


def test_half_precision_is_rounded_in_float32():
    whole = Grid("static", -128.0, 127.0)
    layer = QuantizedAdd(grids={"output": whole}, dtype="float16")
    y = layer([tf.constant([0.3], tf.float16), tf.constant([99.4], tf.float16)])
    assert y.dtype == tf.float16
    np.testing.assert_array_equal(y, [100.0])


@pytest.fixture(scope="module")
def quantized_bert():
    """A small BERT, of whose every layer something is rounded."""
    plain = model.build(model.EncoderConfig.uniform(
        hidden_size=32, num_layers=2, num_heads=2, intermediate_size=48, vocab_size=60,
        max_positions=40, initializer_range=0.2), model.Head(outputs=3))

    def quantized(layer):
        kind = QUANTIZED.get(type(layer))
        if kind is None:
            return type(layer).from_config(layer.get_config())
        grid = Grid("rows") if kind.points == ("rows",) else Grid("static", -2.0, 2.0)
        return kind.from_config({**layer.get_config(), "weight_bits": 8, "grids": {
            kind.points[0]: grid}})

    made = keras.models.clone_model(plain, clone_function=quantized)
    made.set_weights(plain.get_weights())
    return plain, made


INPUTS = {"input_ids": np.arange(4, 22).reshape([2, 9]),
          "attention_mask": np.array([[1] * 9, [1] * 5 + [0] * 4]),
          "token_type_ids": np.zeros([2, 9], np.int32)}


def test_quantized_layers_are_found_by_name(quantized_bert):
    plain, made = quantized_bert
    assert not model.quantized_layers_of(plain)
    found = model.quantized_layers_of(made)
    assert len(found) == 3 + 1 + 2 * (6 + 1 + 2 + 2) + 1 + 2  # a sum of embeddings, too
    assert all(made.get_layer(name) is layer for name, layer in found.items())
    assert model.config_of(made) == model.config_of(plain)


def test_saved_and_loaded_it_rounds_the_same(quantized_bert, tmp_path):
    _, made = quantized_bert
    model.save(made, tmp_path)
    loaded = model.load(tmp_path)
    np.testing.assert_array_equal(loaded(INPUTS), made(INPUTS))
    before, after = map(model.quantized_layers_of, (made, loaded))
    assert {name: layer.get_config() for name, layer in after.items()} == {
        name: layer.get_config() for name, layer in before.items()}


def test_a_plain_copy_rounds_nothing_and_shares_nothing(quantized_bert):
    plain, made = quantized_bert
    copy = model.plain_copy(made)
    assert not model.quantized_layers_of(copy)
    assert [type(layer) for layer in copy.layers] == [type(layer)
                                                      for layer in plain.layers]
    np.testing.assert_array_equal(copy(INPUTS), plain(INPUTS))
    assert np.abs(made(INPUTS) - plain(INPUTS)).max() > 1e-3
    own = {id(weight) for weight in made.weights}
    assert not any(id(weight) in own for weight in copy.weights)
