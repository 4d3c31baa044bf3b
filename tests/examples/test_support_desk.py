"""The help desk: its threshold, what it hands over, and the file that waits."""

from __future__ import annotations

import json
import math

import desk
import numpy as np
import pytest
from starlette.testclient import TestClient

from tfopt import data
from tfopt.serve import Bundle
from tfopt.serve.app import App
from tfopt.serve.settings import Settings

TEXTS = ["a great film", "bad", "it was not really good, this movie!", "the"]


@pytest.mark.parametrize("quality, threshold", [
    (1.0, 0.8), (0.76, 0.8), (0.75, 0.6), (0.5, 0.6)])
def test_the_threshold_is_the_least_that_has_the_quality(quality, threshold):
    scores, right = np.array([0.6, 0.9, 0.7, 0.8]), np.array([1, 1, 0, 1], bool)
    assert desk.threshold_for(quality, scores, right) == threshold


def test_messages_of_one_score_are_answered_all_or_none():
    scores, right = np.array([0.9, 0.9, 0.8]), np.array([True, False, True])
    assert desk.threshold_for(1.0, scores, right) == math.inf
    assert desk.threshold_for(0.6, scores, right) == 0.8


def test_no_lower_threshold_has_the_quality():
    random = np.random.default_rng(0)
    scores = np.round(random.uniform(0.1, 1, 500), 2)
    right = random.uniform(size=500) < scores
    found = desk.threshold_for(0.8, scores, right)

    def share(threshold):
        return right[scores >= threshold].mean()

    assert share(found) >= 0.8
    assert 0.1 < found < 0.9
    assert all(share(lower) < 0.8 for lower in np.unique(scores[scores < found]))


def test_the_table_shows_what_is_answered_and_right_held_out_too():
    scores = np.array([0.6, 0.9, 0.7, 0.8, 0.95, 0.5])
    right = np.array([0, 1, 1, 1, 1, 0], bool)
    lines = [line.split() for line in desk.table(1.0, scores, right).splitlines()]
    assert ["0.0", "100.0%", "0.667"] in lines and ["0.9", "33.3%", "1.000"] in lines
    assert ["0.700000", "66.7%", "1.000"] in lines
    # 0.6, 0.7 and 0.95 have the others' threshold, 0.8; and those 0.7.
    assert lines[-1] == ["held", "out", "50.0%", "1.000"]


@pytest.fixture
def serve(moods, tmp_path):
    """Makes a client of a desk, of a threshold and a size of the file that waits."""
    clients = []

    def open_client(threshold, most_bytes=10_000):
        app = App(Settings(directory=str(moods), threads=1, deadline_ms=60_000.0,
                           max_letters=100))
        client = TestClient(desk.desk(app, threshold, tmp_path / "waiting.jsonl",
                                      most_bytes))
        clients.append(client.__enter__())
        return client

    yield open_client
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def middle(moods):
    """A threshold that some of the texts reach."""
    scores = sorted(answer["score"] for answer in Bundle.open(moods).predict(TEXTS))
    assert scores[1] < scores[2]
    return (scores[1] + scores[2]) / 2


def test_what_the_model_is_not_sure_of_waits_for_a_person(serve, middle, tmp_path):
    client = serve(middle)
    found = client.post("/ask", json={"texts": TEXTS}).json()["answers"]
    plain = client.post("/predict", json={"texts": TEXTS}).json()["answers"]
    assert [{**answer, "handed_over": answer["score"] < middle}
            for answer in plain] == found
    assert sum(answer["handed_over"] for answer in found) == 2
    waiting = tmp_path / "waiting.jsonl"
    lines = [json.loads(line) for line in waiting.read_text().splitlines()]
    assert [(line["text"], line["label"], line["confidence"]) for line in lines] == [
        (text, answer["label"], answer["score"])
        for text, answer in zip(TEXTS, found, strict=True) if answer["handed_over"]]
    assert data.read_texts(waiting).texts == [line["text"] for line in lines]


def test_who_takes_the_messages_renames_the_file(serve, tmp_path):
    client, waiting = serve(2.0), tmp_path / "waiting.jsonl"
    for text in ("bad", "good"):
        assert client.post("/ask", json={"texts": [text]}).status_code == 200
        assert data.read_texts(waiting).texts == [text]
        waiting.rename(tmp_path / f"{text}.jsonl")


def test_a_blank_message_has_nothing_for_a_person(serve, tmp_path):
    client, texts = serve(2.0), ["", " \n\u2003", "bad"]
    found = client.post("/ask", json={"texts": texts}).json()["answers"]
    assert [answer["handed_over"] for answer in found] == [False, False, True]
    assert data.read_texts(tmp_path / "waiting.jsonl").texts == ["bad"]


def test_more_than_may_wait_is_refused_whole(serve, tmp_path):
    client, waiting = serve(2.0, most_bytes=300), tmp_path / "waiting.jsonl"
    assert client.post("/ask", json={"texts": ["bad", "good"]}).status_code == 200
    before = waiting.read_bytes()
    refused = client.post("/ask", json={"texts": ["bad", "good"]})
    assert refused.status_code == 503 and refused.headers["retry-after"]
    assert refused.json()["error"].startswith("Too many messages wait for a person. ")
    assert waiting.read_bytes() == before


def test_a_full_disk_leaves_whole_lines(tmp_path, full_disk):
    waiting = tmp_path / "waiting.jsonl"
    desk.hand_over([{"text": "first"}], waiting, 10_000)
    with full_disk(40), pytest.raises(OSError):
        desk.hand_over([{"text": "second " * 20}], waiting, 10_000)
    assert waiting.read_text() == '{"text": "first"}\n'


def test_what_the_service_refuses_it_says_itself(serve):
    client = serve(2.0)
    for body, status, said in [(b"{", 400, "JSON"), (b'{"texts": []}', 400, "`texts`"),
                               (b'{"texts": ["%s"]}' % (b"x" * 101), 413, "letters")]:
        refused = client.post("/ask", content=body)
        assert refused.status_code == status and said in refused.json()["error"]
    assert client.get("/ask").status_code == 404
    assert client.get("/v2/health/ready").json() == {"ready": True}


def test_the_page_asks_nobody_but_the_desk(serve):
    page = serve(2.0).get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert 'fetch("ask"' in page.text and "default-src 'none'" in page.text
    assert "http" not in page.text.replace("http-equiv", "")


@pytest.fixture
def dev(moods, tmp_path):
    """Messages, of which the model is right on the two that it is surest of."""
    answers = Bundle.open(moods).predict(TEXTS)
    order = np.argsort([-answer["score"] for answer in answers])
    lines = [f"{TEXTS[at]}\t{answers[at]['label'] if place < 2 else 'other'}"
             for place, at in enumerate(order)]
    file = tmp_path / "dev.tsv"
    file.write_text("\n".join(["text\tlabel", *lines]) + "\n")
    return file


def test_the_command_serves_by_the_threshold_of_dev(moods, dev, tmp_path, monkeypatch,
                                                    capsys):
    served = []
    monkeypatch.setattr(desk.uvicorn, "run",
                        lambda app, **options: served.append((app, options)))
    flags = [f"--bundle={moods}", f"--dev={dev}", "--quality=1"]
    desk.main([*flags, "--table"])
    assert not served and " 50.0%  1.000" in capsys.readouterr().out
    desk.main([*flags, f"--queue={tmp_path / 'q.jsonl'}", "--port=1"])
    (app, options), = served
    assert options["port"] == 1
    with TestClient(app) as client:
        answers = client.post("/ask", json={"texts": TEXTS}).json()["answers"]
    assert sum(answer["handed_over"] for answer in answers) == 2


def test_mistakes_are_one_sentence(moods, vectors, dev, tmp_path):
    flags = [f"--bundle={moods}", f"--dev={dev}"]
    queue = tmp_path / "q.jsonl"
    queue.write_text('{"text": "a"}\nnothing\n')
    cut = tmp_path / "cut.jsonl"
    cut.write_text('{"text": "a"}')
    for given, said in [
            ([*flags, "--quality=1.1"], "--quality must be reached on dev.*1.1"),
            ([*flags, "--quality=0.5", f"--queue={queue}"], f"{queue}:2: .*nothing"),
            ([*flags, "--quality=0.5", f"--queue={cut}"], "a line. Received: .*cut"),
            ([f"--bundle={vectors}"], "--bundle must classify. Received: embedding"),
            ([f"--bundle={tmp_path}"], "A bundle must have")]:
        with pytest.raises(ValueError, match=said):
            desk.main(given)
