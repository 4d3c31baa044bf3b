"""The small layers: positions, what keeps apart, and what is split off."""

from __future__ import annotations

import numpy as np
import pytest

from tfopt import model
from tfopt.backend import keras, tf
from tfopt.model import inference_layers, layers

WIDTH = 8


@pytest.mark.parametrize("batch", [1, 3])
def test_positions_are_counted_in_each_example(batch):
    counted = inference_layers.Positions()(tf.zeros([batch, 4], tf.int32))
    np.testing.assert_array_equal(counted, [0, 1, 2, 3] * batch)


def test_position_embedding_takes_positions():
    layer = layers.PositionEmbedding(6)
    x = np.random.default_rng(0).normal(size=[2, 4, WIDTH]).astype(np.float32)
    whole = layer(x)
    np.testing.assert_allclose(whole, x + layer.table[:4], rtol=1e-6)
    flat = layer([x.reshape([8, WIDTH]), np.array([0, 1, 2, 3] * 2)])
    np.testing.assert_array_equal(np.reshape(flat, whole.shape), whole)
    np.testing.assert_allclose(layer([x[0], np.array([5, 0, 0, 2])]),
                               x[0] + layer.table.numpy()[[5, 0, 0, 2]], rtol=1e-6)


def test_keep_apart_keeps_every_number():
    x = np.array([-1e38, -3.0, 0.0, 2.5, 3e38, np.inf], np.float32)
    np.testing.assert_array_equal(inference_layers.KeepApart()(x), x)


def dense_and_norm(scale: float):
    """A Dense, some of whose channels are larger, and a LayerNorm; all are random."""
    random = np.random.default_rng(1)
    dense, norm = keras.layers.Dense(WIDTH), layers.LayerNorm(epsilon=1e-12)
    dense.build([None, 5])
    norm.build([None, WIDTH])
    kernel, bias = random.normal(size=[5, WIDTH]), random.normal(size=[WIDTH])
    kernel[:, [2, 7]] *= scale
    bias[[2, 7]] *= scale
    dense.set_weights([kernel, bias])
    norm.set_weights(random.normal(1.0, 0.3, [2, WIDTH]))
    x = random.normal(size=[6, 5]).astype(np.float32)
    return dense, norm, x, random.normal(size=[6, WIDTH]).astype(np.float32)


@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.parametrize("channels", [(2, 7), (7, 2), (3,), tuple(range(WIDTH))])
def test_split_dense_gives_a_dense_in_two(channels, scale):
    dense, _, x, _ = dense_and_norm(scale)
    whole = dense(x).numpy()
    main, own = inference_layers.SplitDense(dense, channels)(x)
    np.testing.assert_allclose(own, whole[:, list(channels)], rtol=1e-5, atol=1e-5)
    rest = [i for i in range(WIDTH) if i not in channels]
    np.testing.assert_allclose(main.numpy()[:, rest], whole[:, rest], rtol=1e-5,
                               atol=1e-5)
    np.testing.assert_array_equal(main.numpy()[:, list(channels)], 0.0)


@pytest.mark.parametrize("scale", [1.0, 300.0])
@pytest.mark.parametrize("channels", [(2, 7), (7, 2), (3,)])
def test_integer_norm_gives_the_norm_of_the_sum(channels, scale):
    dense, norm, x, residual = dense_and_norm(scale)
    expected = norm(residual + dense(x))
    main, own = inference_layers.SplitDense(dense, channels)(x)
    y = inference_layers.IntegerNorm(norm, channels)([residual + main, own])
    np.testing.assert_allclose(y, expected, rtol=2e-4, atol=2e-5)


def test_integer_norm_gives_the_norm_of_a_whole_input():
    _, norm, _, residual = dense_and_norm(1.0)
    np.testing.assert_allclose(inference_layers.IntegerNorm(norm)(residual),
                               norm(residual), rtol=2e-5, atol=2e-6)


def test_what_is_split_off_is_in_no_other_tensor():
    """An int8 range of the rest is then that of the rest."""
    dense, _, x, residual = dense_and_norm(300.0)
    main, own = inference_layers.SplitDense(dense, (2, 7))(x)
    assert np.abs(residual + dense(x)).max() > 100
    assert np.abs(residual + main).max() < 15
    assert np.abs(own).max() > 100


@pytest.mark.parametrize("channels", [
    {}, {"layer_0_ffn_output": (3,)},
    {"layer_0_ffn_output": (3, 17), "layer_1_ffn_output": (0,)}])
def test_a_bert_wired_for_inference_with_massive_channels(channels):
    bert = model.build(model.EncoderConfig.uniform(
        hidden_size=32, num_layers=2, num_heads=2, intermediate_size=48, vocab_size=60,
        max_positions=40, initializer_range=0.2), model.Head(outputs=3))
    for name, own in channels.items():
        kernel, bias = bert.get_layer(name).get_weights()
        kernel[:, list(own)] *= 100.0
        bert.get_layer(name).set_weights([kernel, bias + 0.1])
    inputs = {"input_ids": np.arange(4, 22).reshape([2, 9]),
              "attention_mask": np.array([[1] * 9, [1] * 5 + [0] * 4]),
              "token_type_ids": np.array([[0] * 4 + [1] * 5] * 2)}
    wired = model.for_inference(bert, channels, integer=True)
    np.testing.assert_allclose(wired(inputs), bert(inputs), rtol=1e-4, atol=1e-5)
    split = [layer for layer in wired.layers
             if isinstance(layer, inference_layers.SplitDense)]
    assert {layer.name: tuple(layer.channels) for layer in split} == channels
