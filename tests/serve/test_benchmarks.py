"""The benchmarks of the server, run as a user runs them, on a tiny ladder."""

from __future__ import annotations

import json

import benchmark_runs
import http_clients
import pytest
import serve_load
from http_clients import Reply


def figures(path):
    return json.loads(path.read_text())["figures"]


def test_overhead_is_of_http_against_a_process(tiny_ladder, tmp_path):
    target = tmp_path / "figures.json"
    benchmark_runs.run("serve_overhead", "--smoke", "--clients=4",
                       f"--bundle={tiny_ladder}", f"--report={target}")
    found = figures(target)
    one, many = found["tfopt"]["one_client"], found["tfopt"]["many_clients"]
    assert 0 < one["in_process_p50_ms"] < one["http_p50_ms"] < 1000
    assert 0 < one["overhead_p50_ms"] == pytest.approx(
        one["http_p50_ms"] - one["in_process_p50_ms"])
    assert 0 < many["http_over_bare"] == pytest.approx(
        many["http_texts_per_s"] / many["bare_texts_per_s"])
    assert 1 <= many["p99_over_p50"] < 1000
    assert 1e7 < found["memory_bytes"]["resident"] < 1e9


def test_load_is_of_a_ladder_against_its_rungs(tiny_ladder, bundles, tmp_path):
    target, picture = tmp_path / "figures.json", tmp_path / "load.png"
    texts = tmp_path / "texts.tsv"
    asked = ["a great film", "not good", "bad", "it was really good", "film"] * 4
    texts.write_text("text\tlabel\n" + "".join(
        f"{text}\t{answer['label']}\n" for text, answer in zip(
            asked, bundles["whole"].predict(asked), strict=True)))
    benchmark_runs.run("serve_load", "--smoke", "--loads=0.5", "--deadlines=1000",
                       f"--ladder={tiny_ladder}", f"--eval_file={texts}",
                       f"--picture={picture}", f"--report={target}")
    found = figures(target)
    by_contender = found["loads"]["0.5"]
    assert [*by_contender] == ["ladder", "whole", "half"]
    for mine in by_contender.values():
        assert mine["failed"] == 0  # late or refused some may be, on a busy machine
        assert 0 <= mine["late"] <= 1 and 0 <= mine["refused"] <= 1
        assert mine["requests"] == by_contender["ladder"]["requests"] > 10
        assert sum(mine["variants"].values()) == pytest.approx(1)
        assert 0 <= mine["effective_accuracy"] <= mine["accuracy_in_time"] <= 1
    assert by_contender["whole"]["accuracy_in_time"] == 1  # the labels are its own
    assert [*by_contender["half"]["variants"]] == ["half"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_reloading_and_ending_lose_nothing(tiny_ladder, tmp_path):
    target = tmp_path / "figures.json"
    benchmark_runs.run("serve_reload", "--smoke", f"--bundle={tiny_ladder}",
                       f"--report={target}")
    found = figures(target)
    reloads = found["reloads"]
    assert (reloads["failed"], reloads["wrong"], reloads["failed_loads"]) == (0, 0, 0)
    assert reloads["requests"] >= 200
    assert found["sigterm"]["lost"] == found["sigterm"]["exit_status"] == 0
    assert found["sigterm"]["got"] > 0
    assert {"after_10", "after_200"} <= set(found["memory"])
    assert 0.1 < found["start_to_ready_s"] < 60


def test_what_came_of_requests_is_told_apart():
    def reply(number, status, seconds, body):
        return Reply(number, status, 0.0, seconds, body)

    def answer(label):
        return json.dumps({"outputs": [{"data": [label]}, {"data": ["1x"]}]}).encode()

    replies = [
        reply(0, 200, 0.01, answer("good")), reply(1, 200, 0.01, answer("bad")),
        reply(2, 200, 0.20, answer("good")),  # late
        reply(3, 503, 0.20, b'{"error": "... 100 ms, which have passed"}'),  # late, too
        reply(4, 503, 0.01, b'{"error": "..."}'), reply(5, 500, 0.01, b"{}")]
    found = serve_load.judged(replies, ["good"] * 6, 0.1)
    assert (found["requests"], found["failed"]) == (6, 1)
    assert found["refused"] == pytest.approx(1 / 6)
    assert found["late"] == pytest.approx(2 / 5)
    assert found["effective_accuracy"] == pytest.approx(1 / 6)
    assert found["accuracy_in_time"] == pytest.approx(1 / 2)
    assert found["variants"] == {"1x": 1.0}


def test_arrivals_are_random_and_the_same_each_time():
    times = serve_load.poisson(200.0, 10.0, 3)
    assert times == serve_load.poisson(200.0, 10.0, 3) == sorted(times)
    assert len(times) == pytest.approx(2000, rel=0.1)
    assert times != serve_load.poisson(200.0, 10.0, 4)


def test_a_request_is_made_of_the_protocol():
    head, body = http_clients.infer("a", "b", variant="1x").split(b"\r\n\r\n")
    assert head.startswith(b"POST /v2/models/a/infer HTTP/1.1\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body)["parameters"] == {"variant": "1x"}
