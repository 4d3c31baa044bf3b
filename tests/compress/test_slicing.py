"""Cutting: what is left of kernels, and of what they compute."""

from __future__ import annotations

import numpy as np
import pytest

from tfopt import model as models
from tfopt.backend import keras
from tfopt.compress import Context
from tfopt.compress.passes.low_rank import LowRank
from tfopt.compress.structure.slicing import Kept, cut, drop_empty_layers

CONFIG = models.EncoderConfig.uniform(
    hidden_size=12, num_layers=2, num_heads=3, intermediate_size=8, vocab_size=50,
    max_positions=16)
HEAD = models.Head(outputs=3)
ALL = Kept.all_of(CONFIG)
KEPT = Kept(heads=((0, 2), (1,)), neurons=((0, 5, 7), (2,)))


@pytest.fixture(scope="module")
def before():
    """A model whose every weight, biases too, is of consequence."""
    made = models.build(CONFIG, HEAD)
    random = np.random.default_rng(0)
    made.set_weights([0.5 * random.normal(size=w.shape) for w in made.get_weights()])
    return made


def inputs() -> dict[str, np.ndarray]:
    ids = np.random.default_rng(1).integers(0, 50, [3, 9]).astype(np.int32)
    mask = np.ones_like(ids)
    mask[1, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask,
            "token_type_ids": np.zeros_like(ids)}


def silence(model, kept: Kept) -> None:
    """Sets to 0 what the units that go give to the residual stream."""
    for i in range(CONFIG.num_layers):
        for role, own, count in (("attention_output", kept.heads[i], 3),
                                 ("ffn_output", kept.neurons[i], 8)):
            kernel = model.get_layer(f"layer_{i}_{role}").kernel
            rows = kernel.numpy().reshape([count, -1])
            rows[sorted(set(range(count)) - set(own))] = 0
            kernel.assign(rows.reshape(kernel.shape))


def test_kernels_are_sliced_by_unit(before):
    small = cut(before, KEPT)
    for i in range(2):
        heads, neurons = list(KEPT.heads[i]), list(KEPT.neurons[i])

        def pair(role, i=i):
            return [model.get_layer(f"layer_{i}_{role}").get_weights()
                    for model in (before, small)]

        for role in ("query", "key", "value"):
            (kernel, bias), (own_kernel, own_bias) = pair(role)
            np.testing.assert_array_equal(
                own_kernel, kernel.reshape(12, 3, 4)[:, heads].reshape(12, -1))
            np.testing.assert_array_equal(own_bias,
                                          bias.reshape(3, 4)[heads].ravel())
        (kernel, bias), (own_kernel, own_bias) = pair("attention_output")
        np.testing.assert_array_equal(
            own_kernel, kernel.reshape(3, 4, 12)[heads].reshape(-1, 12))
        np.testing.assert_array_equal(own_bias, bias)
        (kernel, bias), (own_kernel, own_bias) = pair("intermediate")
        np.testing.assert_array_equal(own_kernel, kernel[:, neurons])
        np.testing.assert_array_equal(own_bias, bias[neurons])
        (kernel, bias), (own_kernel, own_bias) = pair("ffn_output")
        np.testing.assert_array_equal(own_kernel, kernel[neurons])
        np.testing.assert_array_equal(own_bias, bias)
    sliced = ("query", "key", "value", "intermediate", "_output")
    for layer in before.layers:
        if not layer.name.endswith(sliced):
            for ours, theirs in zip(small.get_layer(layer.name).get_weights(),
                                    layer.get_weights(), strict=True):
                np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("kept", [
    ALL, KEPT,
    Kept(heads=((), (0, 1)), neurons=((1, 2), ())),
    Kept(heads=((2,), ()), neurons=((), (0,))),
    Kept(heads=((), ()), neurons=((), ())),
])
def test_units_that_give_nothing_may_go(before, kept):
    silent = cut(before, ALL)
    silence(silent, kept)
    small = cut(silent, kept)
    assert models.config_of(small).num_heads == tuple(map(len, kept.heads))
    assert models.config_of(small).intermediate_sizes == tuple(
        map(len, kept.neurons))
    np.testing.assert_allclose(small(inputs()), silent(inputs()), atol=1e-5)


def test_units_that_give_something_are_missed(before):
    whole = before(inputs()).numpy()
    assert np.abs(cut(before, KEPT)(inputs()) - whole).max() > 0.1
    np.testing.assert_array_equal(cut(before, ALL)(inputs()), whole)


def test_the_model_given_is_left_as_it_was(before):
    weights = before.get_weights()
    small = cut(before, KEPT)
    small.set_weights([0 * w for w in small.get_weights()])
    for now, then in zip(before.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("second", [
    Kept(heads=((1,), (0,)), neurons=((0, 2), (0,))),
    Kept(heads=((), (0,)), neurons=((0, 1, 2), ())),
])
def test_two_cuts_are_one(before, second):
    both = Kept(**{
        name: tuple(tuple(first[i] for i in own) for first, own in zip(
            getattr(KEPT, name), getattr(second, name), strict=True))
        for name in ("heads", "neurons")})
    twice, once = cut(cut(before, KEPT), second), cut(before, both)
    for ours, theirs in zip(twice.get_weights(), once.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # What is absent stays absent.
    again = cut(twice, Kept.all_of(models.config_of(twice)))
    np.testing.assert_array_equal(again(inputs()), once(inputs()))


@pytest.mark.parametrize(("heads", "neurons", "match"), [
    (((1, 0), (1,)), KEPT.neurons, r"heads .* layer 0 must ascend, below 3.*\[1, 0\]"),
    (((0,), (1, 1)), KEPT.neurons, r"heads that stay in layer 1 .*Received: \[1, 1\]"),
    (((0, 3), (1,)), KEPT.neurons, r"Received: \[0, 3\]"),
    (((0,), (-1, 1)), KEPT.neurons, r"Received: \[-1, 1\]"),
    (KEPT.heads, ((0,), (8,)), r"neurons that stay in layer 1 .* below 8. .*\[8\]"),
    (((0,),), KEPT.neurons, "`heads` .* of 2 layers. Received: 1"),
    (KEPT.heads, ((0,),) * 3, "`neurons` .* of 2 layers. Received: 3"),
])
def test_units_that_are_not_there_are_refused(before, heads, neurons, match):
    with pytest.raises(ValueError, match=match):
        cut(before, Kept(heads=heads, neurons=neurons))


def test_other_models_are_refused(before):
    thin = LowRank(rank=2).apply(before, Context()).model
    with pytest.raises(ValueError, match="Received: layer_0_query of type LowRankDen"):
        cut(thin, KEPT)
    entry = keras.Input([4])
    with pytest.raises(ValueError, match="encoder made by tfopt. Received: "):
        cut(keras.Model(entry, keras.layers.Dense(2)(entry)), KEPT)


HOLLOW = CONFIG.replace(hidden_size=64, head_size=8, num_heads=(0, 2, 0, 0, 0),
                        intermediate_sizes=(0, 8, 0, 5, 0))


@pytest.fixture
def hollow():
    """A model of five layers, of which three have no block."""
    return models.build(HOLLOW, HEAD)


def test_layers_without_a_block_are_dropped(hollow):
    small = drop_empty_layers(hollow)
    assert models.config_of(small) == HOLLOW.replace(num_heads=(2, 0),
                                                     intermediate_sizes=(8, 5))
    # LayerNorm of what is normalized already changes it by its epsilon alone.
    np.testing.assert_allclose(small(inputs()), hollow(inputs()), atol=1e-5)
    names = {layer.name for layer in small.layers}
    assert "layer_1_ffn_norm" in names and "layer_2_ffn_norm" not in names


def test_what_their_norms_did_the_norm_before_does(hollow):
    random = np.random.default_rng(0)
    for layer in hollow.layers:
        if layer.name.endswith("norm"):
            gamma, beta = (random.normal(size=64) for _ in range(2))
            layer.set_weights([1 + 0.3 * gamma, 0.3 * beta])
    small = drop_empty_layers(hollow)
    ignored = drop_empty_layers(hollow)
    for name, before in (("embedding_norm",) * 2, ("layer_0_ffn_norm",
                                                   "layer_1_ffn_norm"),
                         ("layer_1_ffn_norm", "layer_3_ffn_norm")):
        ignored.get_layer(name).set_weights(hollow.get_layer(before).get_weights())
    wanted = hollow(inputs()).numpy()

    def error(model):
        return np.abs(model(inputs()).numpy() - wanted).max()

    assert error(small) < 0.2 * error(ignored)


def test_one_layer_stays():
    gone = models.build(CONFIG.replace(num_heads=(0, 0), intermediate_sizes=(0, 0)),
                        HEAD)
    small = drop_empty_layers(gone)
    assert models.config_of(small).num_heads == (0,)
    np.testing.assert_allclose(small(inputs()), gone(inputs()), atol=1e-5)


def test_a_model_without_empty_layers_is_copied(before):
    copy = drop_empty_layers(before)
    np.testing.assert_array_equal(copy(inputs()), before(inputs()))
    assert copy.layers[-1].kernel is not before.layers[-1].kernel
