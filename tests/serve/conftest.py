"""A tiny ladder in service, in this process: two rungs of three classes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from serving import LABELS, RUNGS, serving

from tfopt import data, model, tasks
from tfopt.export import tflite
from tfopt.serve import Bundle
from tfopt.serve.ladder import Ladder
from tfopt.serve.rungs import Cascade, Rung


@pytest.fixture(scope="session")
def tiny_ladder(tmp_path_factory, tiny_dir) -> Path:
    """A ladder of two rungs; the cascade's threshold is 0.6."""
    task = tasks.named("classification")(labels=LABELS)
    place = tmp_path_factory.mktemp("served") / "tiny"
    for name, layers in RUNGS.items():
        contents = tflite.convert(model.build(
            model.EncoderConfig.uniform(
                hidden_size=8, num_layers=layers, num_heads=2, intermediate_size=8,
                vocab_size=103, max_positions=64, initializer_range=0.5), task.head()))
        Bundle.write(place / name, task=task, tokenizer=data.tokenizer_from(tiny_dir),
                     max_length=32, scheme="float32", model=contents)
    Ladder(place=place, monitor="accuracy", rungs=(
        Rung(name="whole", directory="whole", quality=0.9, p50_ms=2.0),
        Rung(name="half", directory="half", quality=0.8, p50_ms=1.0)),
        cascade=Cascade(threshold=0.6, quality=0.89, share_handed_on=0.5)).write()
    return place


@pytest.fixture
def folder(tiny_ladder, tmp_path) -> Path:
    """A folder of two models: `tiny`, the ladder, and `one`, a bundle."""
    shutil.copytree(tiny_ladder, tmp_path / "models" / "tiny")
    shutil.copytree(tiny_ladder / "half", tmp_path / "models" / "one")
    return tmp_path / "models"


@pytest.fixture(scope="session")
def bundles(tiny_ladder) -> dict[str, Bundle]:
    """The rungs, opened outside of any service."""
    return {name: Bundle.open(tiny_ladder / name, num_threads=1) for name in RUNGS}


@pytest.fixture(scope="module")
def client(tiny_ladder):
    """A client of the ladder's service."""
    with serving(tiny_ladder) as client:
        yield client
