"""What is recorded of answers: metrics, the log, uncertain texts, the shadow."""

from __future__ import annotations

import json
import re

import pytest
from serving import serving

from tfopt import data
from tfopt.serve import log_file
from tfopt.serve.uncertain import Uncertain

TEXTS = ["a great film", "bad", "it was not really good", "☕ ☕", "good " * 100]


def ask(client, *texts, status=200, **fields):
    answer = client.post("/predict", json={"texts": list(texts), **fields})
    assert answer.status_code == status
    return answer.json()


def metric(client, name, **labels):
    """The value of a metric; the labels are some of its own."""
    found = []
    for line in client.get("/metrics").text.splitlines():
        match = re.fullmatch(rf"{name}(\{{.*\}})? (\S+)", line)
        if match and all(f'{key}="{value}"' in line for key, value in labels.items()):
            found.append(float(match[2]))
    assert len(found) <= 1, found
    return found[0] if found else None


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_answers_and_refusals_are_counted(tiny_ladder, bundles):
    whole = {"model": "tiny", "variant": "whole"}
    with serving(tiny_ladder) as client:
        for name in ("whole", "half"):
            assert metric(client, "tfopt_variant_loaded", model="tiny", variant=name
                          ) == 1
        ask(client, *TEXTS)
        ask(client, "bad", variant="half")
        assert metric(client, "tfopt_requests_total", code="200", **whole) == 1
        assert metric(client, "tfopt_requests_total", code="200", model="tiny",
                      variant="half") == 1
        assert metric(client, "tfopt_request_seconds_count", **whole) == 1
        assert metric(client, "tfopt_queue_seconds_count", **whole) == 1
        assert metric(client, "tfopt_confidence_count", **whole) == 5
        assert metric(client, "tfopt_tokens_sum", **whole) == sum(
            map(len, bundles["whole"].encode(TEXTS).ids))
        assert metric(client, "tfopt_unknown_pieces_total", **whole) == 2
        assert metric(client, "tfopt_truncated_total", **whole) == 1
        labels = [answer["label"] for answer in bundles["whole"].predict(TEXTS)]
        for label in {*labels}:
            assert metric(client, "tfopt_predictions_total", label=label, **whole
                          ) == labels.count(label)
        assert metric(client, "tfopt_in_flight") == 0
        ask(client, "a", deadline_ms=1e-6, status=503)
        ask(client, 3, status=400)
        ask(client, "a", model="secret words", status=404)
        for reason in ("deadline", "malformed", "unknown"):
            assert metric(client, "tfopt_rejected_total", reason=reason) == 1
        assert "film" not in client.get("/metrics").text
        assert "secret" not in client.get("/metrics").text
        client.post("/v2/repository/models/tiny/unload")
        assert metric(client, "tfopt_variant_loaded", **whole) == 0


def test_the_log_has_a_line_a_text_and_no_text(tiny_ladder, tmp_path, bundles):
    path = tmp_path / "deep" / "log.jsonl"
    for _ in range(2):  # the second adds to it
        with serving(tiny_ladder, request_log=str(path)) as client:
            ask(client, *TEXTS, variant="half")
    found = lines(path)
    assert len(found) == 10
    assert [line["label"] for line in found[:5]] == [
        answer["label"] for answer in bundles["half"].predict(TEXTS)]
    assert set(found[0]) == {
        "time", "model", "version", "variant", "milliseconds", "queue_ms", "confidence",
        "entropy", "tokens", "unknown", "truncated", "label"}
    assert (found[0]["model"], found[0]["version"], found[0]["variant"]) == (
        "tiny", 1, "half")
    assert [line["truncated"] for line in found[:5]] == [False] * 4 + [True]
    assert [line["unknown"] for line in found[:5]] == [0, 0, 0, 2, 0]
    read = [*log_file.read(path)]  # as `tfopt monitor` does
    assert [(line.variant, line.seen.label, line.seen.tokens) for line in read] == [
        (line["variant"], line["label"], line["tokens"]) for line in found]


def test_a_full_disk_costs_the_log_alone(tiny_ladder, tmp_path):
    kept = tmp_path / "kept.jsonl"
    with serving(tiny_ladder, request_log="/dev/full", keep_uncertain=str(kept)
                 ) as client:
        ask(client, "a great film")
        assert client.get("/metrics").status_code == 200
    assert [line["text"] for line in lines(kept)] == ["a great film"]


def test_texts_are_logged_where_it_is_asked_for(tiny_ladder, tmp_path):
    path = tmp_path / "log.jsonl"
    with serving(tiny_ladder, request_log=str(path), log_texts=True) as client:
        ask(client, "a", pairs=["b ☕"])
        client.post("/v2/models/tiny/infer", json={"inputs": [{
            "name": "input_ids", "shape": [1, 3], "datatype": "INT32",
            "data": [2, 5, 3]}]})
    first, second = lines(path)
    assert (first["text"], first["pair"]) == ("a", "b ☕")
    assert "text" not in second


def test_the_least_sure_texts_are_kept(tiny_ladder, tmp_path, bundles):
    path = tmp_path / "unsure.jsonl"
    texts = [f"{word} film" for word in "a great bad it was not really good".split()]
    with serving(tiny_ladder, keep_uncertain=str(path), keep_most=3) as client:
        for text in texts:
            ask(client, text, text)
        ask(client, " ")
    sure = {text: answer["score"] for text, answer in zip(
        texts, bundles["whole"].predict(texts), strict=True)}
    least = sorted(texts, key=sure.get)
    found = lines(path)
    assert [line["text"] for line in found] == least[:3]
    assert found[0]["confidence"] == pytest.approx(sure[least[0]], abs=1e-6)
    assert data.read_texts(path).texts == least[:3]  # what compress distils on
    with serving(tiny_ladder, keep_uncertain=str(path), keep_most=2) as client:
        ask(client, least[-1])
    assert [line["text"] for line in lines(path)] == least[:2]


def test_pairs_are_kept_as_pairs(tiny_ladder, tmp_path):
    path = tmp_path / "unsure.jsonl"
    for _ in range(2):
        with serving(tiny_ladder, keep_uncertain=str(path)) as client:
            ask(client, "a", pairs=["b"])
    line, = lines(path)
    assert (line["text"], line["pair"]) == ("a", "b")


@pytest.mark.parametrize(("name", "contents", "said"), [
    ("a.txt", None, r"end in \.jsonl. Received: .*a\.txt"),
    ("none/../..", None, "end in .jsonl"),
    ("a.jsonl", "{", r"a\.jsonl:1: a line must be a JSON object"),
    ("a.jsonl", '{"text": "a"}', r"a\.jsonl:1: a line must have a text and a conf"),
    ("a.jsonl", f'{{"text": "a", "confidence": {"9" * 400}}}', r"a\.jsonl:1: "),
    ("a.jsonl", '\n{"text": "a", "confidence": 1, "pair": 2}', r"a\.jsonl:2: ")])
def test_a_file_that_holds_other_things_is_not_written_over(
        tmp_path, name, contents, said):
    path = tmp_path / name
    if contents is not None:
        path.write_text(contents)
    with pytest.raises(ValueError, match=said):
        Uncertain(str(path), 3)
    if contents is not None:
        assert path.read_text() == contents


def test_a_shadow_answers_a_sample_too(tiny_ladder, bundles):
    texts = ["a great film", "bad", "it was not really good", "really", "good film"]
    agree = sum(one["label"] == other["label"] for one, other in zip(
        bundles["whole"].predict(texts), bundles["half"].predict(texts), strict=True))
    with serving(tiny_ladder, shadow=str(tiny_ladder / "half"), shadow_fraction=1.0
                 ) as client:
        ask(client, *texts, variant="whole")
        running = client.service._running
        running.recorder.flush()
        running.recorder._sinks[0].close()
        found = {value: metric(client, "tfopt_shadow_total", agrees=value) or 0
                 for value in ("true", "false")}
        running.recorder._sinks = []
    assert found == {"true": agree, "false": 5 - agree}


@pytest.mark.parametrize(("fields", "said"), [
    ({"shadow": "nowhere"}, "must be a directory. Received: nowhere"),
    ({"request_log": "/proc/none/log"}, "be written: .*Received: /proc/none/log"),
    ({"shadow_fraction": 0.0}, r"in \(0, 1\]. Received: shadow_fraction=0.0"),
    ({"deadline_ms": 0.0}, "above 0. Received: deadline_ms=0.0"),
    ({"deadline_ms": "soon"}, "a finite number. Received: deadline_ms='soon'"),
    ({"threads": 0}, "at least 1. Received: threads=0"),
    ({"queue": 0}, "at least 1. Received: queue=0"),
    ({"watch_s": 0.0}, "above 0. Received: watch_s=0.0")])
def test_settings_that_are_wrong_are_told(tiny_ladder, fields, said):
    with pytest.raises(ValueError, match=said), serving(tiny_ladder, **fields):
        pass
