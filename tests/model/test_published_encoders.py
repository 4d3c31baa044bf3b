"""Encoders of each family against the reference's states and logits: Keras, LiteRT."""

from __future__ import annotations

import numpy as np
import pytest

import tfopt
from tfopt import model
from tfopt.backend import keras
from tfopt.compress.structure import slicing
from tfopt.compress.structure.slicing import Kept
from tfopt.export.interpreter import Interpreter
from tfopt.model import Head, inference, relative
from tfopt.model.anatomy import Anatomy
from tfopt.types import INPUT_NAMES

HEADS = {
    "tiny_bert_tokens": Head(outputs=3, reads="all", pooler=None, dropout=0.1),
    "tiny_distilbert": Head(outputs=3, pooler="relu", dropout=0.2),
    "tiny_electra": Head(outputs=3, pooler="gelu", dropout=0.1),
    "tiny_mpnet": Head(outputs=3, pooler="tanh", dropout=0.1),
    "tiny_roberta": Head(outputs=3, pooler="tanh", dropout=0.1),
}
SEGMENTS = ("tiny_bert_tokens", "tiny_electra")


@pytest.fixture(scope="module", params=HEADS)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def loaded(name, tiny_dir):
    return model.load(tiny_dir.parent / name)


@pytest.fixture(scope="module")
def reference(name, tiny_dir) -> dict[str, np.ndarray]:
    """Of nine texts, and with "pair_" before it, of three pairs."""
    with np.load(tiny_dir.parent / f"{name}_outputs.npz") as arrays:
        return dict(arrays)


def inputs_of(reference, kind="") -> dict[str, np.ndarray]:
    return {name: reference[kind + name].astype(np.int32) for name in INPUT_NAMES
            if kind + name in reference}


def states_of(loaded, inputs) -> list[np.ndarray]:
    """Hidden states <float>[B, T, D], and the output."""
    seen = keras.Model(loaded.inputs, [*Anatomy.of(loaded).hidden_states,
                                       loaded.output])
    return [state.numpy() for state in seen(inputs)]


def test_inputs_and_the_head_of_the_checkpoint(name, loaded):
    assert {tensor.name for tensor in loaded.inputs} == {
        *INPUT_NAMES[:3 if name in SEGMENTS else 2]}
    assert model.head_of(loaded) == HEADS[name]


@pytest.mark.parametrize("kind", ["", "pair_"])
def test_hidden_states_and_logits_are_the_reference(loaded, reference, kind):
    inputs = inputs_of(reference, kind)
    *states, logits = states_of(loaded, inputs)
    visible = inputs["attention_mask"] > 0
    expected = reference[f"{kind}hidden_states"]
    assert len(states) == len(expected)
    for ours, theirs in zip(states, expected, strict=True):
        np.testing.assert_allclose(ours[visible], theirs[visible], atol=1e-4)
    shown = visible if logits.ndim == 3 else slice(None)
    np.testing.assert_allclose(logits[shown], reference[f"{kind}logits"][shown],
                               atol=1e-4)


@pytest.mark.parametrize("scheme, most", [("float32", 1e-4),
                                          ("dynamic_wi8_afp32", 0.1)])
def test_exported_it_computes_the_same(loaded, reference, tmp_path, scheme, most):
    assert inference.supports(loaded) is None
    path = tmp_path / "model.tflite"
    path.write_bytes(tfopt.convert(loaded, scheme))
    runner = Interpreter(path, num_threads=1)
    scale = np.abs(reference["logits"]).max()
    for ids, mask, logits in zip(reference["input_ids"], reference["attention_mask"],
                                 reference["logits"], strict=True):
        ours = runner.run(ids[mask > 0].tolist())
        theirs = logits[mask > 0] if logits.ndim == 2 else logits
        np.testing.assert_allclose(ours, theirs, atol=most * max(scale, 1.0))


def test_wired_for_inference_it_computes_several_texts_alike(loaded, reference):
    wired = inference.for_inference(loaded)
    inputs = inputs_of(reference)
    shown = (inputs["attention_mask"] > 0 if reference["logits"].ndim == 3
             else slice(None))
    np.testing.assert_allclose(wired(inputs).numpy()[shown], reference["logits"][shown],
                               atol=1e-4)


def test_its_config_builds_a_model_of_its_shapes(loaded):
    config = model.config_of(loaded)
    again = model.build(config, model.head_of(loaded))
    assert [w.shape for w in again.weights] == [w.shape for w in loaded.weights]
    assert model.config_of(again) == config


def test_without_heads_it_computes_what_zeroed_heads_did(loaded, reference):
    config = model.config_of(loaded)
    kept = Kept(heads=((0, 2), (), (1,)), neurons=(tuple(range(40)), (), (0, 5, 7)))
    small = slicing.cut(loaded, kept)
    assert model.config_of(small) == kept.config(config)
    masked = keras.models.clone_model(loaded)
    masked.set_weights(loaded.get_weights())
    for i, layer in enumerate(Anatomy.of(masked).layers):
        for dense, units, width in ((layer.attention.output, kept.heads[i],
                                     config.head_size),
                                    (layer.ffn.output, kept.neurons[i], 1)):
            kernel, bias = dense.get_weights()
            rows = np.isin(np.arange(len(kernel)) // width, units)
            dense.set_weights([kernel * rows[:, np.newaxis], bias])
    inputs = inputs_of(reference)
    shown = inputs["attention_mask"] > 0
    ours, theirs = states_of(small, inputs)[-1], states_of(masked, inputs)[-1]
    if ours.ndim == 3:
        ours, theirs = ours[shown], theirs[shown]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_buckets_of_distances():
    # Of 32, 16 are of later tokens; 8 of each hold one distance, the last is open.
    distances = np.array([0, -1, -7, -8, -16, -32, -127, -500, 1, 8])
    found = relative.bucket_of(distances, 32)
    assert found.tolist() == [0, 1, 7, 8, 10, 12, 15, 15, 17, 24]
