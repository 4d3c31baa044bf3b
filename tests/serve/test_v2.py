"""The Open Inference Protocol, and /predict: what is read, given and refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from serving import serving

from tfopt import data, model, tasks
from tfopt.export import tflite
from tfopt.serve import Bundle

TEXTS = ["a great film", "bad", ""]
INFER = "/v2/models/tiny/infer"


def tensor(name, values, shape=None, datatype="BYTES", **fields):
    return {"name": name, "shape": shape or list(np.shape(values)),
            "datatype": datatype, "data": values, **fields}


def asked(client, *inputs, path=INFER, status=200, **fields):
    answer = client.post(path, json={"inputs": list(inputs), **fields})
    assert answer.status_code == status, answer.text
    return answer.json()


def outputs(found):
    return {output["name"]: np.reshape(output["data"], output["shape"])
            for output in found["outputs"]}


def test_texts_get_all_outputs_of_the_best_variant(client, bundles):
    found = asked(client, tensor("text", TEXTS), id="7")
    assert (found["model_name"], found["model_version"], found["id"]) == (
        "tiny", "1", "7")
    assert [(output["name"], output["datatype"], output["shape"])
            for output in found["outputs"]] == [
        ("logits", "FP32", [3, 3]), ("probabilities", "FP32", [3, 3]),
        ("label", "BYTES", [3]), ("score", "FP32", [3]), ("variant", "BYTES", [3])]
    values, bundle = outputs(found), bundles["whole"]
    np.testing.assert_array_equal(np.float32(values["logits"]), bundle.outputs(TEXTS))
    answers = bundle.predict(TEXTS)
    assert values["label"].tolist() == [answer["label"] for answer in answers]
    assert values["score"].tolist() == [answer["score"] for answer in answers]
    assert values["probabilities"].tolist() == [
        [answer["scores"][label] for label in bundle.task.labels] for answer in answers]
    assert values["variant"].tolist() == ["whole"] * 3
    assert 0 < found["parameters"]["milliseconds"] < 60_000


def test_only_outputs_that_are_asked_for_are_given(client):
    found = asked(client, tensor("text", ["bad"]),
                  outputs=[{"name": "variant"}, {"name": "label"}])
    assert [output["name"] for output in found["outputs"]] == ["variant", "label"]
    assert "id" not in found


def test_a_variant_and_a_version_may_be_named(client, bundles):
    found = asked(client, tensor("text", TEXTS), parameters={"variant": "half"},
                  path="/v2/models/tiny/versions/1/infer")
    values = outputs(found)
    assert values["variant"].tolist() == ["half"] * 3
    np.testing.assert_array_equal(np.float32(values["logits"]),
                                  bundles["half"].outputs(TEXTS))


def test_pairs_and_columns_are_read(client, bundles):
    expected = bundles["whole"].outputs(["a film", "bad"], ["good", "it was"])
    for shape in ([2], [2, 1]):
        found = asked(client, tensor("text", ["a film", "bad"], shape),
                      tensor("pair", ["good", "it was"], shape))
        np.testing.assert_array_equal(np.float32(outputs(found)["logits"]), expected)
    nested = asked(client, tensor("text", [["a film"], ["bad"]]),
                   tensor("pair", [["good"], ["it was"]]))
    np.testing.assert_array_equal(np.float32(outputs(nested)["logits"]), expected)


def test_ids_are_read_with_masks_and_segments(client, bundles):
    whole = bundles["whole"]
    encoded = whole.encode(["a film", "it was not really good"], ["good", "bad"])
    most = max(map(len, encoded.ids))
    rows = [ids + [0] * (most - len(ids)) for ids in encoded.ids]
    masks = [[1] * len(ids) + [0] * (most - len(ids)) for ids in encoded.ids]
    segments = [[0] * first + [1] * (len(ids) - first) + [0] * (most - len(ids))
                for ids, first in zip(encoded.ids, encoded.first_lengths, strict=True)]
    assert len({*map(len, encoded.ids)}) == 2
    found = asked(client, tensor("input_ids", rows, datatype="INT32"),
                  tensor("attention_mask", masks, datatype="INT32"),
                  tensor("token_type_ids", segments, datatype="INT32"))
    np.testing.assert_array_equal(
        np.float32(outputs(found)["logits"]),
        whole.outputs(["a film", "it was not really good"], ["good", "bad"]))
    alone = asked(client, tensor("input_ids", encoded.ids[:1], datatype="INT32"))
    np.testing.assert_array_equal(np.float32(outputs(alone)["logits"])[0],
                                  whole.run(encoded.ids[0]))


TEXT = tensor("text", ["bad"])
IDS = tensor("input_ids", [[2, 5, 3]], datatype="INT32")


def ids(name, values):
    return tensor(name, values, datatype="INT32")


@pytest.mark.parametrize(("body", "received"), [
    ({}, "inputs=None"), ({"inputs": []}, "inputs=[]"),
    ({"inputs": {"text": "a"}}, "inputs={'text': 'a'}"),
    ({"inputs": ["text"]}, "'text'"), ({"inputs": [{}]}, "{}"),
    ({"inputs": [TEXT | {"name": "txt"}]}, "'data': ['bad']}"),
    ({"inputs": [TEXT, TEXT]}, "text twice"),
    ({"inputs": [tensor("pair", ["bad"])]}, "pair"),
    ({"inputs": [TEXT, IDS]}, "text, input_ids"),
    ({"inputs": [IDS, tensor("pair", ["bad"])]}, "input_ids, pair"),
    ({"inputs": [TEXT | {"datatype": "INT32"}]}, "'INT32'"),
    ({"inputs": [TEXT | {"datatype": None}]}, "None"),
    ({"inputs": [TEXT | {"shape": [2]}]}, "1"),
    ({"inputs": [TEXT | {"shape": [1, 2]}]}, "shape=[1, 2]"),
    ({"inputs": [TEXT | {"shape": []}]}, "shape=[]"),
    ({"inputs": [TEXT | {"shape": [-1]}]}, "shape=[-1]"),
    ({"inputs": [TEXT | {"shape": [True]}]}, "shape=[True]"),
    ({"inputs": [TEXT | {"shape": [1.0]}]}, "shape=[1.0]"),
    ({"inputs": [TEXT | {"shape": "1"}]}, "shape='1'"),
    ({"inputs": [TEXT | {"shape": [1 << 40]}]}, "shape=[1099511627776]"),
    ({"inputs": [TEXT | {"shape": [0], "data": []}]}, "shape=[0]"),
    ({"inputs": [TEXT | {"data": [3]}]}, "text=[3]"),
    ({"inputs": [TEXT | {"data": "bad"}]}, "'bad'"),
    ({"inputs": [TEXT | {"data": None}]}, "none"),
    ({"inputs": [TEXT | {"data": [["bad"]]}]}, "[['bad']]"),
    ({"inputs": [TEXT | {"binary_data_size": 3}]}, "'binary_data_size'"),
    ({"inputs": [TEXT, tensor("pair", ["a", "b"])]}, "1 texts, 2 pairs"),
    ({"inputs": [TEXT], "outputs": "label"}, "outputs='label'"),
    ({"inputs": [TEXT], "outputs": [{"name": "embedding"}]},
     "outputs=[{'name': 'embedding'}]"),
    ({"inputs": [TEXT], "outputs": ["label"]}, "outputs=['label']"),
    ({"inputs": [TEXT], "outputs": [{"name": ["label"]}]},
     "outputs=[{'name': ['label']}]"),
    ({"inputs": [TEXT], "parameters": 3}, "parameters=3"),
    ({"inputs": [TEXT], "parameters": {"deadline": 3}}, "'deadline'"),
    ({"inputs": [TEXT], "parameters": {"deadline_ms": 0}}, "deadline_ms=0"),
    ({"inputs": [TEXT], "parameters": {"deadline_ms": -1}}, "deadline_ms=-1"),
    ({"inputs": [TEXT], "parameters": {"deadline_ms": True}}, "deadline_ms=True"),
    ({"inputs": [TEXT], "parameters": {"deadline_ms": "5"}}, "deadline_ms='5'"),
    ({"inputs": [TEXT], "parameters": {"deadline_ms": 1e9}},
     "deadline_ms=1000000000.0"),
    ({"inputs": [TEXT], "parameters": {"variant": 3}}, "variant=3"),
    ({"inputs": [TEXT], "parameters": {"binary_data_output": True}},
     "binary_data_output"),
    ({"inputs": [TEXT], "id": 3}, "id=3"), ({"inputs": [TEXT], "texts": []}, "'texts'"),
    ({"inputs": [IDS | {"shape": [3]}]}, "shape=[3]"),
    ({"inputs": [IDS | {"shape": [3, 1], "data": [[1, 2, 3]]}]}, "[[1, 2, 3]]"),
    ({"inputs": [IDS | {"data": [[2, "5", 3]]}]}, "[2, '5', 3]"),
    ({"inputs": [IDS | {"data": [[2, True, 3]]}]}, "[2, True, 3]"),
    ({"inputs": [IDS | {"data": [[2, 1 << 31, 3]]}]}, "[2, 2147483648, 3]"),
    ({"inputs": [IDS | {"data": [[2, 103, 3]]}]}, "2 to 103"),
    ({"inputs": [IDS | {"data": [[2, -1, 3]]}]}, "-1 to 3"),
    ({"inputs": [ids("input_ids", [[2] * 33])]}, "33"),
    ({"inputs": [IDS, ids("attention_mask", [[1, 1]])]}, "another length"),
    ({"inputs": [IDS, ids("attention_mask", [[1, 1, 1], [1, 1, 1]])]},
     "2 texts for 1, or another length"),
    ({"inputs": [IDS, ids("attention_mask", [[0, 0, 0]])]}, "[0, 0, 0]"),
    ({"inputs": [IDS, ids("attention_mask", [[1, 0, 1]])]}, "[1, 0, 1]"),
    ({"inputs": [IDS, ids("attention_mask", [[2, 1, 1]])]}, "[2, 1, 1]"),
    ({"inputs": [IDS, ids("token_type_ids", [[1, 0, 0]])]}, "[1, 0, 0]"),
    ({"inputs": [IDS, ids("token_type_ids", [[0, 0, 7]])]}, "[0, 0, 7]"),
])
def test_what_is_wrong_is_told_in_a_sentence(client, body, received):
    answer = client.post(INFER, json=body)
    assert answer.status_code == 400, answer.text
    said = answer.json()["error"]
    assert "Received: " in said and said.endswith(received), said


@pytest.mark.parametrize(("body", "received"), [
    (b"", "the body: Expecting value"), (b"{", "the body: Expecting"),
    (b"[]", "the body: list"), (b"\xff{}", "the body: 'utf-8' codec"),
    (b'{"texts": ["\xe9"]}', "the body: 'utf-8' codec"),
    (b'{"texts": ["\\ud800"]}', "half of a character, '\\ud800'"),
    (b'{"texts": ["a"], "texts": ["b"]}', "'texts' twice"),
    (b'{"deadline_ms": NaN, "texts": ["a"]}', "NaN is no number"),
    (b'{"deadline_ms": 1e999, "texts": ["a"]}', "1e999 is no number"),
    (b'{"texts": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested too deeply"),
    (b'{"texts": []}', "texts=[]"), (b'{"texts": "a"}', "texts='a'"),
    (b'{"texts": [1]}', "texts=[1]"), (b'{}', "texts=None"),
    (b'{"text": ["a"]}', "'text'"),
    (b'{"texts": ["a"], "pairs": []}', "pairs=[]"),
    (b'{"texts": ["a"], "pairs": ["b", "c"]}', "1 texts, 2 pairs"),
    (b'{"texts": ["a"], "model": 3}', "model=3"),
    (b'{"texts": ["a"], "deadline_ms": 0}', "deadline_ms=0"),
    (b'{"texts": ["a"], "deadline_ms": ' + b"9" * 400 + b"}", "deadline_ms=999"),
    (b'{"texts": ["a"], "deadline_ms": ' + b"9" * 5000 + b"}", "limit (4300 digits)"),
])
@pytest.mark.parametrize("path", ["/predict", INFER])
def test_a_body_that_is_wrong_is_told_in_a_sentence(client, path, body, received):
    answer = client.post(path, content=body)
    said = answer.json()["error"]
    assert answer.status_code == 400
    assert "Received: " in said
    if path == "/predict":
        assert received in said


def test_predict_gives_the_tasks_own_answers(client, bundles):
    found = client.post("/predict", json={"texts": TEXTS, "model": "tiny",
                                          "variant": "half"}).json()
    assert found["model"] == "tiny"
    assert found["answers"] == [answer | {"variant": "half"}
                                for answer in bundles["half"].predict(TEXTS)]
    pairs = client.post("/predict", json={"texts": ["a"], "pairs": ["good ☕"]}).json()
    assert pairs["answers"] == [bundles["whole"].predict(["a"], ["good ☕"])[0]
                                | {"variant": "whole"}]


@pytest.mark.parametrize(("path", "body", "said"), [
    ("/v2/models/other/infer", {}, "in service: tiny. Received: 'other'"),
    ("/v2/models/tiny/versions/2/infer", {}, "in service is 1. Received: 2"),
    (INFER, {"parameters": {"variant": "5x"}}, "whole, half. Received: '5x'"),
    ("/predict", {"model": "other"}, "in service: tiny. Received: 'other'"),
    ("/predict", {"variant": "5x"}, "whole, half. Received: '5x'")])
def test_what_is_not_there_is_not_found(client, path, body, said):
    whole = {"texts": ["a"]} if path == "/predict" else {"inputs": [TEXT]}
    answer = client.post(path, json=whole | body)
    assert answer.status_code == 404
    assert answer.json()["error"].endswith(said)


def test_a_deadline_that_cannot_be_kept_is_refused(client):
    answer = client.post(INFER, json={"inputs": [TEXT],
                                      "parameters": {"deadline_ms": 1e-6}})
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert "a deadline of 1e-06 ms, where" in answer.json()["error"]


def test_a_failure_of_the_service_is_told_without_its_details(client, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(client.service, "submit", fail)
    answer = client.post("/predict", json={"texts": ["a"]})
    assert answer.status_code == 500
    assert answer.json()["error"].endswith("Received: ZeroDivisionError, which its log "
                                           "has in full")


def test_a_model_says_what_it_reads_and_gives(client):
    found = client.get("/v2/models/tiny").json()
    assert found == client.get("/v2/models/tiny/versions/1").json()
    assert (found["name"], found["versions"]) == ("tiny", ["1"])
    assert found["inputs"][:3] == [
        {"name": "text", "datatype": "BYTES", "shape": [-1]},
        {"name": "pair", "datatype": "BYTES", "shape": [-1]},
        {"name": "input_ids", "datatype": "INT32", "shape": [-1, -1]}]
    assert found["outputs"][:2] == [
        {"name": "logits", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]}]
    assert found["parameters"] == {
        "task": "classification", "labels": ["bad", "fine", "good"],
        "variants": ["whole", "half"], "cascade": []}


def test_health_and_the_server(client):
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2/models/tiny/ready").json() == {"name": "tiny", "ready": True}
    assert client.get("/v2/models/tiny/versions/3/ready").status_code == 404
    found = client.get("/v2").json()
    assert (found["name"], found["extensions"]) == ("tfopt", ["model_repository"])


def test_a_regression_gives_a_score(tmp_path, tiny_dir):
    task = tasks.named("regression")()
    Bundle.write(tmp_path, task=task, tokenizer=data.tokenizer_from(tiny_dir),
                 max_length=32, scheme="float32", model=tflite.convert(model.build(
                     model.EncoderConfig.uniform(
                         hidden_size=8, num_layers=1, num_heads=2, intermediate_size=8,
                         vocab_size=103, max_positions=64), task.head())))
    with serving(tmp_path) as client:
        found = outputs(asked(client, tensor("text", TEXTS),
                              path=f"/v2/models/{tmp_path.name}/infer"))
        assert list(found) == ["logits", "score", "variant"]
        np.testing.assert_array_equal(np.float32(found["score"]),
                                      Bundle.open(tmp_path).outputs(TEXTS)[:, 0])
        assert "tfopt_tokens_count" in client.get("/metrics").text


def test_answers_are_json_of_utf_8(client):
    answer = client.post("/predict", json={"texts": ["a"]})
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.content)
    json.loads(answer.content.decode())
