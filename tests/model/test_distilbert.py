"""DistilBERT against the reference's hidden states and logits: Keras and LiteRT."""

from __future__ import annotations

import numpy as np
import pytest

import tfopt
from tfopt import model
from tfopt.backend import keras
from tfopt.export.interpreter import Interpreter
from tfopt.model import inference
from tfopt.model.anatomy import Anatomy


@pytest.fixture(scope="module")
def directory(tiny_dir):
    return tiny_dir.parent / "tiny_distilbert"


@pytest.fixture(scope="module")
def reference(tiny_dir) -> dict[str, np.ndarray]:
    """Of nine texts, and with "pair_" before it, of three pairs."""
    with np.load(tiny_dir.parent / "tiny_distilbert_outputs.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def loaded(directory):
    return model.load(directory)


def test_it_has_no_segments_and_the_head_of_the_checkpoint(loaded):
    assert {tensor.name for tensor in loaded.inputs} == {"input_ids", "attention_mask"}
    assert model.config_of(loaded).type_vocab_size == 0
    assert model.head_of(loaded) == model.Head(outputs=3, pooler="relu", dropout=0.2)


@pytest.mark.parametrize("kind", ["", "pair_"])
def test_hidden_states_and_logits_are_the_reference(loaded, reference, kind):
    inputs = {name: reference[kind + name].astype(np.int32)
              for name in ("input_ids", "attention_mask")}
    seen = keras.Model(loaded.inputs, [*Anatomy.of(loaded).hidden_states,
                                       loaded.output])
    *states, logits = seen(inputs)
    visible = inputs["attention_mask"] > 0
    expected = reference[f"{kind}hidden_states"]
    assert len(states) == len(expected)
    for ours, theirs in zip(states, expected, strict=True):
        np.testing.assert_allclose(ours.numpy()[visible], theirs[visible], atol=1e-4)
    np.testing.assert_allclose(logits, reference[f"{kind}logits"], atol=1e-4)


def test_exported_it_computes_the_same(loaded, reference, tmp_path):
    assert inference.supports(loaded) is None
    path = tmp_path / "model.tflite"
    path.write_bytes(tfopt.convert(loaded, "float32"))
    runner = Interpreter(path, num_threads=1)
    for ids, mask, logits in zip(reference["input_ids"], reference["attention_mask"],
                                 reference["logits"], strict=True):
        ours = runner.run(ids[mask > 0].tolist())
        np.testing.assert_allclose(ours, logits, atol=1e-4)
