"""A bundle whose answers are entities: in service, in bulk, on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from serving import serving, until

from tfopt import data, model, tasks
from tfopt.export import tflite
from tfopt.serve import Bundle, bulk
from tfopt.serve.ladder import Ladder
from tfopt.serve.map_batches import Answers
from tfopt.serve.models import open_model
from tfopt.serve.monitor import Monitor
from tfopt.serve.observation import observe
from tfopt.serve.reference import Drift, Reference
from tfopt.serve.shadow import Shadow

TEXTS = ["a great film", "bad", "it was not  good, really"]
TASK = tasks.named("token_classification")(labels=("O", "B-a", "I-a", "B-b"))
INFER = "/v2/models/words/infer"


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_dir):
    """A bundle with random weights, and a reference of its own answers."""
    place = tmp_path_factory.mktemp("tokens") / "words"
    contents = tflite.convert(model.build(model.EncoderConfig.uniform(
        hidden_size=8, num_layers=1, num_heads=2, intermediate_size=8, vocab_size=103,
        max_positions=64, initializer_range=0.9), TASK.head(), seed=3))
    fields = {"task": TASK, "tokenizer": data.tokenizer_from(tiny_dir),
              "max_length": 32, "scheme": "dynamic_wi8_afp32"}
    Bundle.write(place, model=contents, **fields)
    bundle = Bundle.open(place, num_threads=1)
    Bundle.write(place, **fields, reference=Reference.of(observe(
        TASK, bundle.outputs(TEXTS * 8), bundle.encode(TEXTS * 8).ids,
        bundle.tokenizer.unknown_id)))
    return place


@pytest.fixture(scope="module")
def bundle(place):
    return Bundle.open(place, num_threads=1)


@pytest.fixture(scope="module")
def client(place):
    with serving(place) as client:
        yield client


def test_answers_name_places_of_each_text(bundle):
    answers = bundle.predict(TEXTS)
    assert sum(len(answer["spans"]) for answer in answers) > 1
    for text, answer, rows in zip(TEXTS, answers, bundle.outputs(TEXTS), strict=True):
        assert rows.shape == (len(bundle.encode([text]).ids[0]), 4)
        for span in answer["spans"]:
            assert span["text"] == text[span["start"]:span["end"]]
            assert span["label"] in "ab" and 0 < span["score"] <= 1


def test_a_service_answers_by_both_protocols(client, bundle):
    answers = bundle.predict(TEXTS)
    found = client.post("/predict", json={"texts": TEXTS}).json()["answers"]
    assert [answer["spans"] for answer in found] == [
        answer["spans"] for answer in json.loads(json.dumps(answers))]
    about = client.get("/v2/models/words").json()
    assert {output["name"]: output["shape"] for output in about["outputs"]} == {
        "logits": [-1, -1, 4], "spans": [-1], "variant": [-1]}
    body = {"inputs": [{"name": "text", "shape": [3], "datatype": "BYTES",
                        "data": TEXTS}]}
    outputs = {output["name"]: output for output in client.post(
        INFER, json=body).json()["outputs"]}
    assert [json.loads(each) for each in outputs["spans"]["data"]] == [
        answer["spans"] for answer in answers]
    rows = bundle.outputs(TEXTS)
    longest = max(map(len, rows))
    assert outputs["logits"]["shape"] == [3, longest, 4]
    logits = np.reshape(outputs["logits"]["data"], [3, longest, 4])
    for found_rows, own in zip(logits, rows, strict=True):
        np.testing.assert_array_equal(np.float32(found_rows[:len(own)]), own)
        assert not found_rows[len(own):].any()


def test_what_has_no_places_is_refused(client):
    ids = {"inputs": [{"name": "input_ids", "shape": [1, 3], "datatype": "INT32",
                       "data": [2, 9, 3]}]}
    for path, body in ((INFER, ids),
                       ("/predict", {"texts": ["a"], "pairs": ["b"]})):
        answer = client.post(path, json=body)
        assert answer.status_code == 400 and "Received: " in answer.text
    assert client.post("/predict", json={"texts": ["a"]}).status_code == 200


def test_a_service_watches_the_least_sure_token(place, bundle):
    with serving(place) as client:
        client.post("/predict", json={"texts": TEXTS})
        until(lambda: 'tfopt_confidence_count{model="words",variant="words"} 3.0'
              in client.get("/metrics").text)
    seen = observe(TASK, bundle.outputs(TEXTS), bundle.encode(TEXTS).ids, None)
    assert all(0 < one.confidence <= 1 and one.entropy > 0 and one.label is None
               for one in seen)
    drift = Drift(Reference.read(place), window=3)
    for one in seen:
        drift.add(one)
    assert {"confidence", "entropy", "tokens", "unknown"} == set(drift.values())


def test_many_texts_are_answered_in_bulk_and_in_batches(place, bundle, tmp_path):
    output = tmp_path / "answers.jsonl"
    done = bulk.answer(place, [(text, None) for text in TEXTS], output, top_k=3,
                       processes=1)
    assert (done.count, done.failed) == (3, 0)
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    answers = bundle.predict(TEXTS)
    assert [line["text"] for line in lines] == TEXTS
    for line, answer in zip(lines, answers, strict=True):
        assert [span["text"] for span in line["spans"]] == [
            span["text"] for span in answer["spans"]]
        assert all(span["score"] == round(span["score"], 4) for span in line["spans"])
    columns = Answers(place)({"text": np.array(TEXTS)})
    assert [json.loads(each) for each in columns["spans"]] == [
        answer["spans"] for answer in answers]


def test_a_model_of_texts_is_no_bundle_of_words_nor_the_reverse(place, tiny_dir,
                                                                tmp_path):
    fields = {"tokenizer": data.tokenizer_from(tiny_dir), "max_length": 32,
              "scheme": "float32"}
    contents = (place / "model.tflite").read_bytes()
    other = tasks.named("classification")(labels=("a", "b", "c", "d"))
    Bundle.write(tmp_path, model=contents, task=other, **fields)
    with pytest.raises(ValueError, match="output a text, .*Received: one for each tok"):
        Bundle.open(tmp_path, num_threads=1)


def test_no_shadow_and_no_cascade_of_words(place):
    with pytest.raises(ValueError, match="answers a label. Received: .*token_class"):
        Shadow(place, 0.5, Monitor())
    assert Ladder.read(place).cascade is None and TASK.no_cascade
    assert open_model("words", 1, place, copies=1).answers == ("spans",)
