"""Exports of a model that is trained, to be opened by other programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tfopt
from tfopt import data


@pytest.fixture(scope="session")
def tokenizer():
    """MiniLM's."""
    return data.tokenizer_from("minilm")


@pytest.fixture(scope="session")
def dev():
    """The demo's texts to report on."""
    return data.read(data.DEMO_DEV_FILE)


@pytest.fixture(scope="session")
def labels():
    """The demo's intents."""
    return data.read(data.DEMO_TRAIN_FILE).label_list()


@pytest.fixture(scope="session")
def trained(tokenizer, labels):
    """MiniLM after three epochs of the demo's intents: its scores differ by text."""
    corpus = data.read(data.DEMO_TRAIN_FILE)
    batches = data.Batches(tokenizer.encode(corpus.texts, max_length=64),
                           corpus.class_ids(labels), batch_size=32, shuffle_seed=0)
    model = tfopt.model.load("minilm", num_labels=len(labels))
    tfopt.train.fit(model, batches, settings=tfopt.train.Settings(
        epochs=3, learning_rate=2e-4))
    return model


@pytest.fixture(scope="session")
def export(trained, tokenizer, labels, tmp_path_factory):
    """Writes an export with metadata, each once, and gives its path."""
    made = {}

    def write(scheme="dynamic_wi8_afp32", scores="softmax", **options) -> Path:
        key = scheme, scores, *sorted(options.items())
        if key not in made:
            made[key] = tmp_path_factory.mktemp("export") / "model.tflite"
            made[key].write_bytes(tfopt.add_metadata(
                tfopt.convert(trained, scheme, **options), tokenizer, labels,
                scores=scores))
        return made[key]

    return write


@pytest.fixture(scope="session")
def logits_of(tokenizer):
    """Logits <float>[N, C] of texts by tfopt's own interpreter."""
    def run(file: Path, texts) -> np.ndarray:
        return tfopt.Interpreter(file, num_threads=1, encoder=tokenizer).predict(texts)

    return run
