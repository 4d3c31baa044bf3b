"""all-MiniLM-L6-v2's vectors of texts against the reference: Keras and LiteRT."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tfopt
from tfopt import data, model
from tfopt.export.interpreter import Interpreter
from tfopt.tasks.embedding import Embedding


@pytest.fixture(scope="module")
def reference(tiny_dir):
    with np.load(tiny_dir.parent / "minilm_embeddings.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def loaded():
    return model.load("minilm", head=Embedding().head())


def test_ids_are_the_references(reference, tiny_dir):
    known = json.loads((tiny_dir.parent / "family_token_ids.json").read_text(
        encoding="utf-8"))
    texts = [*known["texts"], *(first for first, _ in known["pairs"])]
    encoded = data.tokenizer_from(model.directory("minilm")).encode(texts)
    expected = [row[mask > 0].tolist() for row, mask in zip(
        reference["input_ids"], reference["attention_mask"], strict=True)]
    assert encoded.ids == expected


def test_vectors_are_the_references(loaded, reference):
    inputs = {"input_ids": reference["input_ids"],
              "attention_mask": reference["attention_mask"],
              "token_type_ids": np.zeros_like(reference["input_ids"])}
    found = Embedding().vectors(loaded(inputs).numpy())
    np.testing.assert_allclose(found, reference["embeddings"], atol=1e-4)


@pytest.mark.parametrize("scheme, least", [("float32", 1 - 1e-6),
                                           ("dynamic_wi8_afp32", 0.99)])
def test_exported_they_are_the_same_at_natural_length(loaded, reference, tmp_path,
                                                      scheme, least):
    path = tmp_path / "model.tflite"
    path.write_bytes(tfopt.convert(loaded, scheme))
    runner = Interpreter(path, num_threads=1)
    found = Embedding().vectors(np.stack([
        runner.run(ids[mask > 0].tolist()) for ids, mask in zip(
            reference["input_ids"], reference["attention_mask"], strict=True)]))
    cosines = np.sum(found * reference["embeddings"], axis=1)
    assert cosines.min() > least
