"""Vectors of texts in service: the protocol, /predict, bulk, command, monitoring."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scripts import run
from serving import serving

from tfopt import data, model
from tfopt.export import tflite
from tfopt.serve import Bundle, bulk
from tfopt.serve.observation import observe
from tfopt.serve.reference import Reference
from tfopt.tasks.embedding import Embedding

TEXTS = ["a great film", "bad", "it was not really good, this movie!"]
WIDTH = 8


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_dir):
    directory, task = tmp_path_factory.mktemp("served") / "vectors", Embedding()
    tokenizer = data.tokenizer_from(tiny_dir)
    contents = tflite.convert(model.build(model.EncoderConfig.uniform(
        hidden_size=WIDTH, num_layers=1, num_heads=2, intermediate_size=8,
        vocab_size=103, max_positions=64, initializer_range=0.5), task.head()))
    ids = tokenizer.encode(TEXTS).ids
    Bundle.write(directory, task=task, tokenizer=tokenizer, max_length=32,
                 scheme="float32", model=contents, reference=Reference.of(observe(
                     task, np.ones([3, WIDTH]), ids, tokenizer.unknown_id)))
    return directory


@pytest.fixture(scope="module")
def vectors(place):
    return Bundle.open(place, num_threads=1).embed(TEXTS)


@pytest.fixture(scope="module")
def client(place):
    with serving(place) as client:
        yield client


def test_the_protocol_has_an_output_of_a_vector_a_text(client, vectors):
    described = client.get("/v2/models/vectors").json()
    assert [(output["name"], output["datatype"], output["shape"])
            for output in described["outputs"]] == [
        ("embedding", "FP32", [-1, WIDTH]), ("variant", "BYTES", [-1])]
    found = client.post("/v2/models/vectors/infer", json={"inputs": [
        {"name": "text", "shape": [3], "datatype": "BYTES", "data": TEXTS}]}).json()
    output, _ = found["outputs"]
    assert (output["name"], output["shape"]) == ("embedding", [3, WIDTH])
    np.testing.assert_allclose(np.reshape(output["data"], [3, WIDTH]), vectors,
                               atol=1e-6)


def test_predict_gives_vectors_and_pairs_are_refused(client, vectors):
    found = client.post("/predict", json={"texts": TEXTS}).json()
    np.testing.assert_allclose([answer["embedding"] for answer in found["answers"]],
                               vectors, atol=1e-6)
    refused = client.post("/predict", json={"texts": ["a"], "pairs": ["b"]})
    assert refused.status_code == 400
    assert "ask for each text. Received: pairs for vectors" in refused.text


def test_signals_of_probabilities_are_absent(place, client):
    reference = Reference.read(place)
    assert set(reference.numbers) == {"tokens", "unknown"} and not reference.labels
    assert client.post("/predict", json={"texts": TEXTS}).status_code == 200
    assert client.get("/metrics").status_code == 200


def test_many_texts_get_lines_of_whole_vectors(place, vectors, tmp_path):
    output = tmp_path / "vectors.jsonl"
    bulk.answer(place, [(text, None) for text in TEXTS], output, processes=1)
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["text"] for line in lines] == TEXTS
    np.testing.assert_allclose([line["embedding"] for line in lines], vectors,
                               atol=1e-6)


def test_the_command_gives_vectors_and_of_pairs_their_cosine(place, vectors):
    done = run("predict", f"--bundle={place}", f"--text={TEXTS[0]}")
    np.testing.assert_allclose(json.loads(done.stdout)["embedding"], vectors[0],
                               atol=1e-6)
    done = run("predict", f"--bundle={place}", f"--text={TEXTS[0]}",
               f"--text_pair={TEXTS[1]}")
    answer = json.loads(done.stdout)
    assert answer["pair"] == TEXTS[1]
    assert answer["score"] == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-4)


def test_another_task_has_no_vectors(tiny_ladder):
    with pytest.raises(ValueError, match="Received: one of Classification"):
        Bundle.open(tiny_ladder / "half", num_threads=1).embed(["a"])


def test_a_model_of_another_width_is_refused(place):
    fields = json.loads((place / "bundle.json").read_text())["task"]
    assert fields["width"] == 0  # the model tells it
    bundle = Bundle.open(place, num_threads=1)
    assert bundle.task.outputs == WIDTH
    with pytest.raises(ValueError, match=f"Received: {WIDTH} outputs"):
        Bundle(bundle._interpreter, task=Embedding(width=9), max_length=9, fields={},
               tokenizer=bundle.tokenizer)
