"""Heads: their rules, what they read, and the same numbers by the fast wiring."""

from __future__ import annotations

import numpy as np
import pytest

from tfopt import model
from tfopt.backend import keras
from tfopt.model import Head, layer_names
from tfopt.model.anatomy import Anatomy

CONFIG = model.EncoderConfig.uniform(
    hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32, vocab_size=60,
    max_positions=32, initializer_range=0.3)
HEADS = [Head(), Head(outputs=5, pooler="relu", dropout=0.2), Head(pooler=None),
         Head(outputs=None), Head(outputs=None, reads="mean", pooler=None, dropout=0.0),
         Head(reads="mean"), Head(outputs=7, reads="all", pooler=None),
         Head(reads="all", pooler="gelu_tanh")]
LENGTHS = np.array([[9], [4], [1]])
VISIBLE = np.arange(9)[None] < LENGTHS
INPUTS = {"input_ids": np.arange(27).reshape(3, 9) % 50,
          "attention_mask": VISIBLE.astype(np.int32),
          "token_type_ids": np.zeros([3, 9], np.int32)}


@pytest.mark.parametrize(("field", "value"), [
    *(("outputs", value) for value in (0, -1, 1.5, "2", True)),
    *(("reads", value) for value in ("last", None)),
    *(("pooler", value) for value in ("softmax", "")),
    *(("dropout", value) for value in (-0.1, 1, None, "0.1"))])
def test_a_broken_rule_names_its_field(field, value):
    with pytest.raises(ValueError, match=f"^`{field}` must be .*{field}={value!r}$"):
        Head(**{field: value})


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_the_head_is_read_back_and_wired_fast_to_the_same_output(head):
    bert = model.build(CONFIG, head, seed=1)
    clone = keras.Model.from_config(bert.get_config())
    assert model.head_of(bert) == model.head_of(clone) == head
    assert model.config_of(bert) == CONFIG
    expected = bert(INPUTS).numpy()
    width = head.outputs or CONFIG.hidden_size
    assert expected.shape == ((3, 9, width) if head.reads == "all" else (3, width))
    seen = VISIBLE if head.reads == "all" else slice(None)
    fast = model.for_inference(bert)
    assert fast is not bert
    np.testing.assert_allclose(fast(INPUTS).numpy()[seen], expected[seen], atol=1e-5)


def test_the_mean_is_of_visible_tokens():
    bert = model.build(CONFIG, Head(outputs=None, reads="mean", pooler=None))
    states = keras.Model(bert.inputs, Anatomy.of(bert).hidden_states[-1])(INPUTS)
    states = states.numpy()
    expected = [states[i, :n].mean(axis=0) for i, (n,) in enumerate(LENGTHS)]
    np.testing.assert_allclose(bert(INPUTS), expected, atol=1e-6)


def test_only_a_head_of_the_first_token_may_leave_the_others_out():
    shallow = CONFIG.replace(num_heads=[2], intermediate_sizes=[4])
    for head in HEADS[3:6]:
        found = {layer.name for layer in model.build(shallow, head).layers}
        assert (layer_names.HEAD_TOKENS in found) == (head.reads == "first")


@pytest.fixture(scope="module")
def trained(tiny_dir):
    return model.load(tiny_dir)


@pytest.mark.parametrize(("head", "kept"), [
    # Tuples: a set's text, by which processes compare their tests, has no fixed order.
    (Head(outputs=3), ("pooler", "classifier")), (Head(outputs=4), ("pooler",)),
    (Head(outputs=3, dropout=0.5), ("pooler", "classifier")),
    (Head(outputs=3, pooler=None), ()), (Head(outputs=3, reads="mean"), ()),
    (Head(outputs=None), ("pooler",))], ids=str)
def test_a_checkpoint_is_loaded_with_another_head(tiny_dir, trained, head, kept):
    check(trained, model.load(tiny_dir, head=head, seed=4), head, kept)


def test_a_saved_model_is_loaded_with_another_head(trained, tmp_path):
    model.save(trained, tmp_path)
    head = Head(outputs=4)
    check(trained, model.load(tmp_path, head=head, seed=4), head, {"pooler"})


def check(trained, loaded, head, kept):
    """That of the head just the layers `kept` have the trained weights."""
    assert model.head_of(loaded) == head
    same = {layer.name for layer in loaded.layers if layer.weights and all(
        np.array_equal(a, b) for a, b in zip(
            layer.get_weights(), trained.get_layer(layer.name).get_weights(),
            strict=True))}
    encoder = {layer.name for layer in loaded.layers if layer.weights} - {
        "pooler", "classifier"}
    assert same == encoder | set(kept)


def test_labels_and_head_are_not_both_given(tiny_dir):
    with pytest.raises(ValueError, match="Received: num_labels=2, head=Head"):
        model.load(tiny_dir, num_labels=2, head=Head())
