"""The Keras BERT: equal to its reference, to its config, and to its fast wiring."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

from tfopt import model, switches, train
from tfopt.backend import keras, tf
from tfopt.model import attention, layer_names, layers
from tfopt.model.anatomy import Anatomy
from tfopt.model.layer_names import layer_name
from tfopt.types import INPUT_NAMES

UNEQUAL = model.EncoderConfig(
    vocab_size=60, hidden_size=24, num_heads=(3, 1, 2), intermediate_sizes=(40, 16, 7),
    head_size=8, max_positions=32, type_vocab_size=3, activation="gelu_tanh",
    layer_norm_epsilon=1e-6, hidden_dropout=0.2, attention_dropout=0.3,
    initializer_range=0.05)
HEAD = model.Head(outputs=4, dropout=0.4)
# A layer without attention, one without ffn, one with neither.
HOLLOW = UNEQUAL.replace(num_heads=(0, 2, 0), intermediate_sizes=(16, 0, 0))
SMALL = model.EncoderConfig.uniform(
    hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32, vocab_size=60)


def inputs_of(batch, tokens, lengths=None, vocab_size=60, seed=0):
    """Random inputs <int32>[B, T], of which the first `lengths` are visible."""
    random = np.random.default_rng(seed)
    lengths = np.array(lengths or [tokens] * batch)[:, None]
    places = np.arange(tokens)[None]
    visible = places < lengths
    return {
        "input_ids": random.integers(1, vocab_size, [batch, tokens]) * visible,
        "attention_mask": visible.astype(np.int32),
        "token_type_ids": (visible & (places > lengths // 2)).astype(np.int32),
    }


@functools.cache
def built(config, seed=0):
    """A model that no test may change."""
    return model.build(config, HEAD, seed)


def difference(first, second):
    return float(np.abs(np.asarray(first) - np.asarray(second)).max())


@pytest.fixture(scope="module")
def tiny(tiny_dir):
    """The tiny checkpoint as a model that no test may change."""
    return model.load(tiny_dir)


@pytest.fixture(scope="module")
def minilm():
    """Hidden states and the pooler's output of all-MiniLM-L6-v2."""
    bert = model.load("minilm")
    return keras.Model(bert.inputs, [*Anatomy.of(bert).hidden_states,
                                     bert.get_layer(layer_names.POOLER).output])


def test_tiny_hidden_states_and_logits_are_the_references(tiny, tiny_outputs):
    probe = keras.Model(tiny.inputs,
                        [*Anatomy.of(tiny).hidden_states, tiny.output])
    *states, logits = probe({name: tiny_outputs[name] for name in INPUT_NAMES})
    expected = tiny_outputs["hidden_states"]
    visible = tiny_outputs["attention_mask"].astype(bool)
    assert len(states) == len(expected) == 4
    assert not visible.all()
    for state, reference in zip(states, expected, strict=True):
        assert difference(state[visible], reference[visible]) < 1e-4
    assert difference(logits, tiny_outputs["logits"]) < 1e-4


def test_minilm_outputs_are_the_references(minilm, minilm_outputs):
    *states, pooled = minilm({name: minilm_outputs[name] for name in INPUT_NAMES})
    visible = minilm_outputs["attention_mask"].astype(bool)
    assert difference(states[-1][visible],
                      minilm_outputs["last_hidden_state"][visible]) < 1e-4
    assert difference(pooled, minilm_outputs["pooler_output"]) < 1e-4
    # Over all positions, the hidden ones too.
    means = [np.abs(state).mean() for state in states]
    assert difference(means, minilm_outputs["hidden_mean_abs"]) < 1e-4


def test_a_pair_has_the_reference_outputs(minilm, minilm_outputs):
    states = minilm({name: minilm_outputs[f"pair_{name}"] for name in INPUT_NAMES})
    assert minilm_outputs["pair_token_type_ids"].max() == 1
    assert difference(states[-2], minilm_outputs["pair_last_hidden_state"]) < 1e-4


def test_the_signature_is_three_inputs_and_logits(tiny):
    assert {t.name: (tuple(t.shape), t.dtype) for t in tiny.inputs} == {
        name: ((None, None), tf.int32) for name in INPUT_NAMES}
    assert tuple(tiny.output.shape) == (None, 3)
    assert tiny.output.dtype == tf.float32


@pytest.mark.parametrize("config", [
    SMALL, UNEQUAL, HOLLOW,
    *(SMALL.replace(activation=name) for name in ("gelu_tanh", "relu", "silu")),
    SMALL.replace(num_heads=(2,), intermediate_sizes=(5,), hidden_dropout=0.0),
    SMALL.replace(head_size=3),
], ids=["small", "unequal", "hollow", "gelu_tanh", "relu", "silu", "one_layer",
        "head_size"])
def test_the_config_is_read_back_from_the_layers(config):
    bert = built(config)
    assert model.config_of(bert) == config
    clone = keras.Model.from_config(bert.get_config())
    assert model.config_of(clone) == config
    assert [w.shape for w in clone.weights] == [w.shape for w in bert.weights]


def test_only_a_bert_has_a_config():
    other = keras.Sequential([keras.layers.Dense(2, input_shape=[3], name="mine")])
    with pytest.raises(ValueError, match=r"Received: layers \['mine'\]"):
        model.config_of(other)


@pytest.mark.parametrize("name, function", [
    ("gelu", lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2)))),
    ("gelu_tanh", lambda x: 0.5 * x * (1 + math.tanh(
        math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))),
    ("relu", lambda x: max(x, 0.0)),
    ("silu", lambda x: x / (1 + math.exp(-x))),
])
def test_activations_are_their_formulas(name, function):
    bert = built(SMALL.replace(activation=name))
    activation = bert.get_layer("layer_0_intermediate").activation
    x = [-3.0, -1.0, -0.1, 0.0, 0.5, 2.0]
    np.testing.assert_allclose(
        activation(tf.constant(x)), [function(v) for v in x], atol=1e-6)


@pytest.mark.parametrize("config", [SMALL, UNEQUAL, HOLLOW],
                         ids=["small", "unequal", "hollow"])
@pytest.mark.parametrize("batch, tokens, lengths", [
    (1, 1, None), (1, 7, None), (2, 32, None), (3, 24, [24, 5, 1])])
def test_the_inference_wiring_gives_the_same_logits(config, batch, tokens, lengths):
    bert = built(config.replace(initializer_range=0.3))
    inputs = inputs_of(batch, tokens, lengths)
    expected = bert(inputs, training=False)
    assert np.ptp(expected) > 0.01
    assert difference(model.for_inference(bert)(inputs), expected) < 1e-5


def test_the_inference_wiring_gives_the_reference_logits(tiny, tiny_outputs):
    fast = model.for_inference(tiny)
    logits = fast({name: tiny_outputs[name] for name in INPUT_NAMES})
    assert difference(logits, tiny_outputs["logits"]) < 1e-4
    assert [t.name for t in fast.inputs] == [t.name for t in tiny.inputs]


def test_the_inference_wiring_shares_the_weights(tiny_model, tiny_outputs):
    fast = model.for_inference(tiny_model)
    inputs = {name: tiny_outputs[name] for name in INPUT_NAMES}
    bias = tiny_model.get_layer(layer_names.CLASSIFIER).bias
    bias.assign_add([1.0, 2.0, 3.0])
    assert difference(fast(inputs), tiny_outputs["logits"] + [1, 2, 3]) < 1e-4


def test_the_inference_wiring_leaves_out_dropout(tiny):
    kept = {type(layer) for layer in model.for_inference(tiny).layers}
    assert layers.Dropout not in kept
    assert keras.layers.Dense in kept


def test_a_model_that_is_no_bert_is_exported_as_it_is():
    other = keras.Sequential([keras.layers.Dense(2, input_shape=[3])])
    assert model.for_inference(other) is other
    assert "is no encoder of tfopt's" in model.for_inference.supports(other)


def test_a_bert_with_an_unknown_layer_is_exported_as_it_is(tiny, caplog):
    scaled = keras.layers.Rescaling(2.0, name="mine")(tiny.output)
    changed = keras.Model(tiny.inputs, scaled)
    assert Anatomy.known(changed)
    assert model.for_inference(changed) is changed
    reason = model.for_inference.supports(changed)
    assert reason == "the inference wiring does not know the layers mine"
    assert reason in caplog.text
    assert model.for_inference.supports(tiny) is None


def test_without_segments_there_is_neither_table_nor_input():
    bert = built(SMALL.replace(type_vocab_size=0, family="other"))
    assert model.config_of(bert).type_vocab_size == 0
    assert bert.name == model.config_of(bert).family == "other"
    inputs = inputs_of(2, 10, [10, 7])
    del inputs["token_type_ids"]
    assert sorted(bert.input_names) == sorted(inputs)
    assert layer_names.SEGMENT_EMBEDDING not in {layer.name for layer in bert.layers}
    assert difference(model.for_inference(bert)(inputs), bert(inputs)) < 1e-5


def test_an_anatomy_names_every_part(tiny):
    parts = Anatomy.of(tiny)
    assert [layer.name for layer in parts.layers[1].all] == [
        f"layer_1_{role}" for role in (
            "query", "key", "value", "attention_output", "attention_norm",
            "intermediate", "ffn_output", "ffn_norm")]
    assert [layer.name for layer in parts.stream_readers] == [
        *(f"layer_{i}_{role}" for i in range(3)
          for role in ("query", "key", "value", "intermediate")), "pooler"]
    assert [layer.name for layer in parts.stream_writers] == [
        f"layer_{i}_{role}" for i in range(3)
        for role in ("attention_output", "ffn_output")]
    assert [layer.name for layer in parts.stream_norms] == [
        "embedding_norm", *(f"layer_{i}_{role}" for i in range(3)
                            for role in ("attention_norm", "ffn_norm"))]
    hollow = Anatomy.of(built(HOLLOW)).layers
    assert [layer.attention is None for layer in hollow] == [True, False, True]
    assert [layer.ffn is None for layer in hollow] == [False, True, True]


def test_names_of_tensors_say_whose_they_are():
    assert layer_names.outlier_layer(
        "bert/layer_11_ffn_output/MatMul;x") == "layer_11_ffn_output"
    assert layer_names.outlier_layer("bert/layer_1_intermediate/MatMul") is None
    assert layer_names.is_masked_scores("bert/layer_0_attention/add_1")
    assert not layer_names.is_masked_scores("bert/layer_0_attention_sum/add")
    assert layer_names.renumbered("layer_1_query", (0, 12)) == "layer_12_query"
    assert layer_names.renumbered("pooler", (3,)) == "pooler"
    assert layer_names.role_of("layer_3_query") == "query"
    assert layer_names.role_of("layer_3_mine") is None


def test_the_same_seed_gives_the_same_weights():
    first, second = built(SMALL, seed=3), model.build(SMALL, HEAD, seed=3)
    for a, b in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=a.name)


def test_another_seed_gives_other_weights_everywhere():
    first, second = built(SMALL, seed=3), built(SMALL, seed=4)
    for a, b in zip(first.weights, second.weights, strict=True):
        fresh = any(name in a.name for name in ("kernel", "embeddings"))
        assert np.array_equal(a, b) != fresh, a.name


def test_fresh_weights_differ_between_layers_and_have_the_asked_spread():
    bert = model.build(SMALL.replace(initializer_range=0.5, vocab_size=5000))
    kernels = [bert.get_layer(f"layer_{i}_{role}").kernel.numpy().tobytes()
               for i in range(2) for role in ("query", "key", "value")]
    assert len(set(kernels)) == 6
    table = bert.get_layer(layer_names.TOKEN_EMBEDDING).embeddings.numpy()
    # Cut at two deviations: 0.88 of the spread is left.
    assert 0.42 < table.std() < 0.46


def test_an_absent_block_adds_nothing():
    """As if its output were 0, but for the weights that are not there."""
    hollow = built(UNEQUAL.replace(num_heads=(0, 1, 0), intermediate_sizes=(40, 0, 0)))
    muted = model.build(UNEQUAL, HEAD)
    there = {layer.name for layer in hollow.layers}
    for layer in muted.layers:
        if layer.name in there:
            layer.set_weights(hollow.get_layer(layer.name).get_weights())
        elif layer.name.endswith("_output"):
            layer.set_weights([np.zeros_like(w) for w in layer.get_weights()])
    inputs = inputs_of(2, 10, [10, 7])
    assert difference(hollow(inputs), muted(inputs)) < 1e-6
    assert len(Anatomy.of(hollow).dense) == 4 + 2


@pytest.mark.parametrize("tokens", [12, 16, 32])
def test_padding_does_not_change_logits(tokens):
    bert = built(UNEQUAL.replace(initializer_range=0.3))
    short = inputs_of(2, 10)
    padded = {name: np.pad(x, [(0, 0), (0, tokens - 10)]) for name, x in short.items()}
    padded["input_ids"][:, 10:] = 59  # what is hidden must not matter
    padded["token_type_ids"][:, 10:] = 1
    assert difference(bert(padded), bert(short)) < 1e-5


def test_what_is_visible_does_change_logits():
    bert = built(UNEQUAL.replace(initializer_range=0.3))
    inputs = inputs_of(1, 10)
    for name in INPUT_NAMES:
        changed = {key: x.copy() for key, x in inputs.items()}
        changed[name][0, 9] = 1 - changed[name][0, 9] if name != "input_ids" else 59
        assert difference(bert(changed), bert(inputs)) > 1e-4, name


@pytest.mark.parametrize("heads,neurons", [((2, 1), (16, 8)), ((2, 0), (16, 8)),
                                           ((2, 1), (16, 0)), ((2,), (16,))])
def test_computing_the_first_token_alone_changes_no_logit_and_no_gradient(
        heads, neurons):
    bert = built(UNEQUAL.replace(num_heads=heads, intermediate_sizes=neurons,
                                 initializer_range=0.3))
    last = bert.get_layer(layer_name(len(heads) - 1, layer_names.FFN_NORM))
    inputs, tokens = inputs_of(3, 10), []
    told = last.call

    def slopes():
        with tf.GradientTape() as tape:
            logits = bert(inputs)
            total = tf.reduce_sum(logits ** 2)
        return logits, [tf.convert_to_tensor(slope) for slope in tape.gradient(
            total, bert.trainable_variables, unconnected_gradients="zero")]

    def call(x):
        tokens.append(x.shape[1])
        return told(x)

    object.__setattr__(last, "call", call)
    logits, expected = slopes()
    with switches.on(bert, "first_alone"):
        found_logits, found = slopes()
    assert tokens == [10, 1]
    assert difference(found_logits, logits) < 1e-5
    for slope, theirs in zip(found, expected, strict=True):
        assert difference(slope, theirs) < 1e-4
    assert not bert.get_layer(layer_names.HEAD_TOKENS).first_alone


def test_every_projection_is_a_plain_dense(tiny):
    dense = Anatomy.of(tiny).dense
    assert len(dense) == 3 * 6
    dense += [tiny.get_layer(n) for n in (layer_names.POOLER, layer_names.CLASSIFIER)]
    assert {type(layer) for layer in dense} == {keras.layers.Dense}


def test_every_layer_has_a_known_name(tiny):
    assert not layer_names.unknown(tiny)


def test_the_mask_is_finite_small_and_hides():
    assert -200 <= attention.HIDDEN_SCORE <= -50
    hidden = np.exp(np.float32(attention.HIDDEN_SCORE))
    assert np.float32(1) + hidden == np.float32(1)


def test_attention_is_its_equation():
    random = np.random.default_rng(0)
    query, key, value = random.normal(size=[3, 2, 5, 8]).astype(np.float32)
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]], np.int32)

    def heads(x):  # [B, T, H*K] -> [B, H, T, K]
        return x.reshape(2, 5, 2, 4).transpose(0, 2, 1, 3)

    scores = heads(query) @ heads(key).swapaxes(-1, -2) / 2
    scores[1, :, :, 2:] = -np.inf
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    expected = (weights @ heads(value)).transpose(0, 2, 1, 3).reshape(2, 5, 8)
    received = attention.SelfAttention(2)([query, key, value, mask])
    np.testing.assert_allclose(received, expected, atol=1e-6)


def test_dropout_draws_are_restored_from_a_checkpoint(tmp_path):
    inputs = inputs_of(2, 8)
    bert = model.build(SMALL, HEAD)
    bert(inputs, training=True)
    path = tf.train.Checkpoint(model=bert).write(str(tmp_path / "state"))
    draws = [bert(inputs, training=True).numpy() for _ in range(3)]
    assert difference(draws[0], draws[1]) > 1e-4

    resumed = model.build(SMALL, HEAD, seed=9)
    resumed(inputs, training=True)
    tf.train.Checkpoint(model=resumed).read(path).assert_consumed()
    for draw in draws:
        np.testing.assert_array_equal(resumed(inputs, training=True), draw)


def test_dropout_is_off_outside_of_training():
    bert = built(SMALL)
    inputs = inputs_of(2, 8)
    np.testing.assert_array_equal(bert(inputs), bert(inputs, training=False))
    assert difference(bert(inputs, training=True), bert(inputs)) > 1e-4


def test_mixed_bfloat16_stays_near_float32(tiny, tiny_outputs):
    mixed = train.retype(tiny, "mixed_bfloat16")
    assert mixed.get_layer("layer_0_query").compute_dtype == "bfloat16"
    assert {weight.dtype for weight in mixed.weights} == {tf.float32}
    inputs = {name: tiny_outputs[name] for name in INPUT_NAMES}
    logits = mixed(inputs)
    assert logits.dtype == tf.float32
    assert 0 < difference(logits, tiny_outputs["logits"]) < 0.05
    fast = model.for_inference(mixed)(inputs)
    assert difference(fast, logits) < 0.05


@pytest.mark.parametrize("shape", [[4, 16], [2, 5, 16]])
def test_layer_norm_is_keras_own_and_its_equation(shape):
    random = np.random.default_rng(0)
    x = random.normal(3, 2, shape).astype(np.float32)
    gamma, beta = random.normal(size=[2, 16]).astype(np.float32)
    ours = layers.LayerNorm(epsilon=0.5)
    theirs = keras.layers.LayerNormalization(epsilon=0.5)
    for layer in (ours, theirs):
        layer.build(x.shape)
        layer.set_weights([gamma, beta])
    assert difference(ours(x), theirs(x)) < 1e-5
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.5)
    assert difference(ours(x), normal * gamma + beta) < 1e-5


def test_positions_are_added_from_the_first():
    layer = layers.PositionEmbedding(6)
    x = np.ones([2, 4, 3], np.float32)
    layer.build(x.shape)
    table = np.arange(18, dtype=np.float32).reshape(6, 3)
    layer.set_weights([table])
    np.testing.assert_array_equal(layer(x), x + table[None, :4])
