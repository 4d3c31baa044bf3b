"""Bundles of tiny models with random weights, for the applications."""

from __future__ import annotations

import pytest

from tfopt import data, model, tasks
from tfopt.export import tflite
from tfopt.serve import Bundle
from tfopt.tasks.embedding import Embedding


@pytest.fixture(scope="session")
def write_bundle(tmp_path_factory, tiny_dir):
    """Writes a bundle of a task, and gives its directory."""
    made = {}

    def write(task):
        directory, head = tmp_path_factory.mktemp("bundle"), task.head()
        if head not in made:
            made[head] = tflite.convert(model.build(model.EncoderConfig.uniform(
                hidden_size=8, num_layers=1, num_heads=2, intermediate_size=8,
                vocab_size=103, max_positions=64, initializer_range=0.5), head))
        Bundle.write(directory, task=task, tokenizer=data.tokenizer_from(tiny_dir),
                     max_length=32, scheme="float32", model=made[head])
        return directory

    return write


@pytest.fixture(scope="session")
def moods(write_bundle):
    """The directory of a classifier of moods."""
    return write_bundle(tasks.named("classification")(
        labels=("negative", "neutral", "positive")))


@pytest.fixture(scope="session")
def vectors(write_bundle):
    """The directory of a model of vectors."""
    return write_bundle(Embedding())
