"""A teacher of wider vectors than the student's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import tfopt
from tfopt import compress, data, model, pipeline, tasks
from tfopt.pipeline import narrowed
from tfopt.pipeline.options import Data
from tfopt.pipeline.teacher_options import Teacher
from tfopt.tasks.embedding import unit

GOLDENS = Path(__file__).parents[1] / "goldens"
WIDE = 48
WORDS = "a film it is great bad good so more and one".split()


def teacher_in(place: Path) -> Path:
    model.save(model.build(model.EncoderConfig.uniform(
        hidden_size=WIDE, num_layers=1, num_heads=2, intermediate_size=8,
        vocab_size=103, max_positions=64), tasks.named("embedding")().head(), seed=5),
        place)
    data.tokenizer_from(GOLDENS / "tiny_bert").save(place)
    return place


@pytest.fixture
def job(tmp_path):
    def made(texts: int) -> tfopt.Job:
        random = np.random.default_rng(0)
        plain = tmp_path / "texts.txt"
        plain.write_text("".join(f"{' '.join(random.choice(WORDS, 6))} {number}\n"
                                 for number in range(texts)))
        return tfopt.Job(
            model=GOLDENS / "tiny_bert", task="embedding", data=Data(max_length=16),
            batching=pipeline.Batching(batch_size=32), out_dir=tmp_path / "out",
            teacher=Teacher(teacher=teacher_in(tmp_path / "wide"), unlabelled=plain))
    return made


def context(job: tfopt.Job, state: Path) -> compress.Context:
    dataset, settings = job.dataset(), job.distillation()
    return job.with_teacher(
        compress.Context(task=dataset.task, train=dataset.train), dataset, settings,
        state, job.load_teacher(settings, dataset))


def test_most_of_the_wide_vectors_is_learned(job, tmp_path, monkeypatch):
    own = job(150)
    found = context(own, tmp_path / "state").teacher
    wide = model.load(tmp_path / "wide")
    batch = next(iter(own.dataset().train.dataset()))
    inputs = batch[0] if isinstance(batch, tuple) else batch
    vectors = wide(inputs, training=False).numpy()
    narrow = found(inputs, training=False).numpy()
    assert narrow.shape == (len(vectors), 32)
    cosines = unit(vectors) @ unit(vectors).T
    random = np.random.default_rng(1).normal(size=[WIDE, 32])
    errors = [np.abs(unit(rows) @ unit(rows).T - cosines).max()
              for rows in (narrow, vectors @ random)]
    assert errors[0] < 0.2 * errors[1]
    axes = found.get_layer("narrowed").get_weights()[0]
    np.testing.assert_allclose(axes.T @ axes, np.eye(32), atol=1e-5)

    def again(*_):
        raise AssertionError("A killed run goes on with the same directions.")

    monkeypatch.setattr(narrowed, "_axes", again)
    np.testing.assert_array_equal(context(own, tmp_path / "state").teacher.get_layer(
        "narrowed").get_weights()[0], axes)


def test_a_student_of_fewer_numbers_learns_them(job, tmp_path):
    own = job(80)
    found = context(own, tmp_path / "state")
    student = own.load(own.model, own.dataset().task)
    batches, goal = found.training_inputs(student)
    losses = [row["loss"] for row in tfopt.train.fit(
        student, batches, None, dataclasses.replace(own.settings, epochs=6,
                                                    learning_rate=3e-3), goal=goal)]
    assert losses[-1] < 0.7 * losses[0]


def test_too_few_texts_and_damaged_directions_are_refused(job, tmp_path):
    with pytest.raises(ValueError, match="as many texts as .*32. Received: 9 texts"):
        context(job(10), tmp_path / "state")
    (tmp_path / "state").mkdir(exist_ok=True)
    (tmp_path / "state" / "narrowed.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"damaged. Received: .*narrowed.npz"):
        context(job(80), tmp_path / "state")
