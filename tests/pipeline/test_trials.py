"""Copies and weights of labels that are found by trials on a held-out part of train."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import tfopt
from tfopt import data, model, pipeline, train
from tfopt.pipeline import trials
from tfopt.pipeline.options import Data
from tfopt.pipeline.teacher_options import Teacher
from tfopt.pipeline.teachers import LoadedTeacher

ROWS = [(text, label) for text, label in (
    ("a great film", "good"), ("bad bad film", "bad"), ("it is great", "good"),
    ("it is bad", "bad"), ("so great", "good")) for _ in range(8)]
SETTINGS = train.Distillation()


@pytest.fixture
def tuning(tmp_path, tiny_dir) -> tfopt.Job:
    file = tmp_path / "train.tsv"
    file.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n"
                                              for text, label in ROWS))
    return tfopt.Job(model=tiny_dir, train=file, dev=file, data=Data(max_length=12),
                     settings=train.Settings(epochs=8), batching=pipeline.Batching(
                         batch_size=8), out_dir=tmp_path / "out",
                     teacher=Teacher(augment="auto", hard_weight="auto"))


@pytest.fixture
def teacher(tuning) -> LoadedTeacher:
    return LoadedTeacher(model=model.load(tuning.model))


def test_the_best_value_is_kept_and_said(tuning, teacher, tmp_path, monkeypatch):
    asked = []

    def value(tuning, settings, dataset, teacher, state, name, tried):
        asked.append((name, tried, tuning.teacher.copies))
        return {"augment": {4: 0.9, 12: 0.9}, "hard_weight": {2.0: 0.9}}[name].get(
            tried, 0.5)

    monkeypatch.setattr(trials, "_value", value)
    dataset = tuning.dataset()
    assert len(dataset.texts) == 40  # without copies as yet
    found, settings, taught = trials.chosen(tuning, SETTINGS, dataset, teacher,
                                            tmp_path)
    assert (found.teacher.augment, found.teacher.hard_weight) == (4, 2.0)
    assert settings == dataclasses.replace(SETTINGS, hard_weight=2.0)
    assert len(taught.texts) == len(taught.transfer_set) == 5 * 40
    assert asked == [("augment", n, 0) for n in (0, 1, 4, 12)] + [
        ("hard_weight", n, 4) for n in (0.5, 0.0, 2.0)]
    assert taught.notes[-2] == (
        "--augment=4 was found by trials of 25% of the training: accuracy on a "
        "held-out part of train was 0.5000 with 0, 0.5000 with 1, 0.9000 with 4, "
        "0.9000 with 12.")
    trials.chosen(tuning, SETTINGS, dataset, teacher, tmp_path)
    assert len(asked) == 7  # a killed run has found them before


def test_each_value_is_learned_for_as_long(tuning, teacher, tmp_path, monkeypatch):
    seen, real = [], train.fit

    def fit(keras_model, batches, dev, settings, *, goal):
        seen.append((len(batches), settings.epochs, goal.settings.hard_weight))
        return real(keras_model, batches, dev, settings, goal=goal) if (
            len(seen) == 2) else []  # once is enough to see that it can be trained

    monkeypatch.setattr(train, "fit", fit)
    monkeypatch.setitem(trials.TRIED, "augment", (0, 12))
    monkeypatch.setitem(trials.TRIED, "hard_weight", (0.5,))
    found, *_ = trials.chosen(tuning, SETTINGS, tuning.dataset(), teacher, tmp_path)
    assert found.teacher.augment in (0, 12)
    # A quarter of eight epochs of the 36 examples that are not held out.
    assert seen == [(72, 1, 0.5)] * 3


def test_without_anything_to_find_nothing_is_tried(tuning, teacher, tmp_path):
    plain = dataclasses.replace(tuning, teacher=Teacher(augment=1))
    dataset = plain.dataset()
    assert trials.chosen(plain, SETTINGS, dataset, teacher, tmp_path) == (
        plain, SETTINGS, dataset)
    assert not list(tmp_path.glob("trials"))


def test_what_cannot_be_tried_is_refused(tuning, teacher, tmp_path):
    dataset = tuning.dataset()
    with pytest.raises(ValueError, match="checkpoint that the baseline was made of. "
                                         "Received: --model_dir=random:bert_tiny"):
        trials.chosen(dataclasses.replace(tuning, model="random:bert_tiny"), SETTINGS,
                      dataset, teacher, tmp_path)
    vectors = dataclasses.replace(dataset, task=tfopt.tasks.named("embedding")())
    with pytest.raises(ValueError, match="labels to judge by. Received: "
                                         "--task=embedding"):
        trials.chosen(tuning, SETTINGS, vectors, teacher, tmp_path)


def test_a_part_of_batches_may_repeat_examples():
    encoded = data.Encoded(ids=[[1, 2, 3], [4, 5], [6]], first_lengths=[3, 2, 1])
    batches = data.Batches(encoded, [0, 1, 2], batch_size=2)
    part = batches.part(np.array([2, 0, 2]))
    rows = {}
    for places, x in part.each_once():
        rows |= zip(places.tolist(), x["input_ids"][:, 0].numpy().tolist(), strict=True)
    assert rows == {0: 6, 1: 1, 2: 6}
    assert part.targets.tolist() == [2, 0, 2] and len(part) == 3 and len(batches) == 3
    assert part.steps_per_epoch == 2
