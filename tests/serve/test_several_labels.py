"""Several labels a text in service: protocols, metrics, logs, drift, a ladder."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from serving import serving, until

from tfopt import data, model, tasks
from tfopt.export import tflite
from tfopt.pipeline import laddering
from tfopt.serve import Bundle, cascade, log_file
from tfopt.serve.ladder import Ladder
from tfopt.serve.map_batches import Answers
from tfopt.serve.observation import NO_LABEL, observe
from tfopt.serve.reference import LABEL, Drift, Reference
from tfopt.serve.rungs import Rung

TASK = tasks.named("multi_label")(labels=("bad", "fine", "good"), threshold=0.6)
TEXTS = ["a great film", "bad", "it was not really good", "it"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_dir):
    """A ladder of two rungs, which differ in their threshold."""
    place = tmp_path_factory.mktemp("several") / "tiny"
    contents = tflite.convert(model.build(
        model.EncoderConfig.uniform(
            hidden_size=8, num_layers=1, num_heads=2, intermediate_size=8,
            vocab_size=103, max_positions=64, initializer_range=0.5), TASK.head()))
    for name, task in (("1x", TASK), ("2x", dataclasses.replace(TASK, threshold=0.4))):
        Bundle.write(place / name, task=task, tokenizer=data.tokenizer_from(tiny_dir),
                     max_length=32, scheme="float32", model=contents)
        bundle = Bundle.open(place / name, 1)
        Reference.of(observe(task, bundle.outputs(TEXTS), bundle.encode(TEXTS).ids,
                             None)).write(place / name)
    Ladder(place=place, monitor="micro_f1", rungs=tuple(
        Rung(name=name, directory=name, quality=quality, p50_ms=p50)
        for name, quality, p50 in (("1x", 0.9, 2.0), ("2x", 0.8, 1.0)))).write()
    return place


@pytest.fixture(scope="module")
def bundle(place):
    return Bundle.open(place / "1x", 1)


def test_each_rung_answers_by_its_own_threshold(place, bundle, tmp_path):
    log, kept = tmp_path / "log.jsonl", tmp_path / "kept.jsonl"
    with serving(place, request_log=str(log), keep_uncertain=str(kept)) as client:
        answers = client.post("/predict", json={"texts": TEXTS}).json()["answers"]
        found = client.post("/v2/models/tiny/infer", json={
            "inputs": [{"name": "text", "shape": [4], "datatype": "BYTES",
                        "data": TEXTS}], "parameters": {"variant": "2x"}}).json()
        until(lambda: log.exists() and len(log.read_text().splitlines()) == 8)
        metrics = client.get("/metrics").text
    for answer, own in zip(answers, bundle.predict(TEXTS), strict=True):
        assert answer["labels"] == own["labels"] and answer["variant"] == "1x"
    outputs = {output["name"]: output for output in found["outputs"]}
    assert outputs["labels"]["datatype"] == "BYTES"
    second = Bundle.open(place / "2x", 1).predict(TEXTS)
    assert [json.loads(one) for one in outputs["labels"]["data"]] == [
        own["labels"] for own in second]
    assert outputs["probabilities"]["shape"] == [4, 3]
    assert [own["labels"] for own in second] != [answer["labels"] for answer in answers]
    lines = list(log_file.read(log))
    said = {label for line in lines for label in line.seen.words}
    assert said <= {*TASK.labels, NO_LABEL}
    for label in said:
        assert f'label="{label}"' in metrics
    rates = {panel.title: panel for panel in log_file.panels(lines)}[
        "answers per second, by label"].series
    assert {*rates} == said
    first, = (row for row in map(json.loads, kept.read_text().splitlines())
              if row["text"] == TEXTS[0])
    assert isinstance(first["label"], list)


def test_a_reference_keeps_all_labels_and_drift_counts_each(place):
    reference = Reference.read(place / "1x")
    assert len(reference.label) == len(TEXTS)
    assert all(isinstance(places, list) and places for places in reference.label)
    drift = Drift(reference, window=40)
    one = observe(TASK, np.array([[9.0, 9.0, 9.0]]), [[2, 3]], None)[0]
    none = observe(TASK, np.array([[-9.0, -9.0, -9.0]]), [[2, 3]], None)[0]
    assert one.words == TASK.labels and none.words == (NO_LABEL,)
    for _ in range(40):
        drift.add(one)
    every, _ = drift.values()[LABEL]
    counts = [sum(word in [reference.labels[i] for i in places]
                  for places in reference.label) for word in TASK.labels]
    total = sum(map(len, reference.label))
    assert every == pytest.approx(sum(
        abs(1 / 3 - count / total) for count in counts) / 2 + (
        total - sum(counts)) / total / 2)
    for _ in range(40):  # the others leave the window with all their labels
        drift.add(none)
    share = sum(reference.labels[i] == NO_LABEL for places in reference.label
                for i in places) / total
    assert drift.values()[LABEL][0] == pytest.approx(1 - share)


def test_a_column_of_labels_is_json(place):
    found = Answers(str(place / "1x"))({"text": np.array(TEXTS)})
    assert [json.loads(one) for one in found["labels"]] == [
        own["labels"] for own in Bundle.open(place / "1x", 1).predict(TEXTS)]


def test_there_is_no_cascade_and_it_says_why(place):
    outputs, targets = np.zeros([40, 3]), [[0, 1, 0, 0]] * 40
    assert cascade.choose(TASK, outputs, outputs, targets, 1.0) is None
    from tfopt import Job

    job = Job(task="multi_label", out_dir="nowhere")
    assert laddering._on_the_cascade(Ladder.read(place), job) == (
        "No cascade: of several labels, each with a probability of its own, no one "
        "number tells whether an answer is sure.")
