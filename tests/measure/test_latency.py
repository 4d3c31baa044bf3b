"""Timing: real worker processes, and the arithmetic with workers of known speed."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from tfopt import model
from tfopt.export import tflite
from tfopt.measure import latency

IDS = [[2, *range(10, 10 + length), 3] for length in (1, 4, 9, 20)]
FIRST = [len(example) for example in IDS]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """A small BERT as a Keras directory and as a `.tflite`."""
    place = tmp_path_factory.mktemp("artifacts")
    bert = model.build(model.EncoderConfig.uniform(
        hidden_size=16, num_layers=1, num_heads=2, intermediate_size=24,
        vocab_size=103, max_positions=64))
    model.save(bert, place / "keras")
    (place / "small.tflite").write_bytes(tflite.convert(bert))
    return {"keras": place / "keras", "tflite": place / "small.tflite"}


@pytest.fixture(scope="module")
def figures(artifacts):
    """Both timed by real workers, once."""
    return latency.measure(artifacts, IDS, FIRST, num_threads=1, rounds=2, texts=4,
                           max_tokens=32)


@pytest.mark.parametrize("name", ["keras", "tflite"])
def test_real_figures_are_whole_and_sane(name, figures):
    mine = figures[name]
    assert set(mine) == {"latency_p50_ms", "latency_spread", "latency_p90_ms",
                         "latency_t16_ms", "latency_t32_ms", "throughput_per_s",
                         "peak_rss_bytes", "num_threads"}
    assert mine["num_threads"] == 1
    assert 1e-3 < mine["latency_p50_ms"] <= mine["latency_p90_ms"] < 1e3
    assert 1 < mine["throughput_per_s"] < 1e6
    assert 5e6 < mine["peak_rss_bytes"] < 8e9


def test_a_tflite_is_faster_and_smaller_than_keras(figures):
    for metric in ("latency_p50_ms", "latency_t16_ms", "latency_t32_ms"):
        assert figures["tflite"][metric] < figures["keras"][metric]
    assert figures["tflite"]["throughput_per_s"] > figures["keras"]["throughput_per_s"]
    # No TensorFlow in the process of a .tflite.
    assert (figures["tflite"]["peak_rss_bytes"]
            < 0.5 * figures["keras"]["peak_rss_bytes"])


@pytest.mark.parametrize("contents", [b"no model at all", None])
def test_a_broken_artifact_is_named(contents, artifacts, tmp_path):
    path = tmp_path / "broken.tflite"
    if contents is not None:
        path.write_bytes(contents)
    with pytest.raises(ValueError, match="Received: .*broken.tflite"):
        latency.measure({"good": artifacts["tflite"], "broken": path}, IDS, FIRST)


def test_a_request_that_ends_a_worker_is_told_and_all_end(artifacts, monkeypatch):
    started = []

    def start(*args, **kwargs):
        started.append(popen(*args, **kwargs))
        return started[-1]

    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", start)
    both = {"a": artifacts["tflite"], "b": artifacts["tflite"]}
    with pytest.raises(ValueError, match="small.tflite.*Received: 128 tokens"):
        latency.measure(both, IDS, FIRST, max_tokens=128)
    # Each with one thread and with two; the first is asked first.
    assert [process.returncode for process in started] == [1, 0, 0, 0]


def test_a_worker_times_each_example_of_a_pair(artifacts):
    with latency.started({"tflite": (artifacts["tflite"], 1)}) as running:
        seconds = running["tflite"].time([[2, 10, 3, 11, 3]] * 3, [3, 3, 5])
    assert seconds.shape == (3,)
    assert (seconds > 0).all()


class Stopwatch:
    """Stands in for `TimedArtifact`: a time an example, by a plan; notes its turns."""

    turns: list[tuple[str, int]] = []

    def __init__(self, artifact, num_threads):
        self.artifact, self.num_threads = artifact, num_threads
        self.peak_rss_bytes = 1000
        self._requests = 0

    def time(self, ids, first_lengths):
        assert len(ids) == len(first_lengths)
        Stopwatch.turns.append((self.artifact, len(ids[0])))
        self._requests += 1
        self.peak_rss_bytes += 1
        warming_up = self._requests <= 2
        seconds = np.array([len(example) for example in ids]) * 1e-3
        if len({len(example) for example in ids}) == 1:
            seconds[0] = 50.0  # the change of length
        return seconds + (99.0 if warming_up else 0.0)

    def close(self):
        """Has nothing to close."""


@pytest.fixture
def stopwatch(monkeypatch):
    monkeypatch.setattr(latency, "TimedArtifact", Stopwatch)
    monkeypatch.setattr(Stopwatch, "turns", [])
    return Stopwatch


def test_medians_leave_out_warm_up_and_changes_of_length(stopwatch):
    figures = latency.measure({"a": "a"}, IDS, FIRST, rounds=3, max_tokens=16)["a"]
    lengths = [3, 6, 11, 22]  # a millisecond a token
    assert figures == pytest.approx({
        "latency_p50_ms": 8.5, "latency_spread": 0.0,
        "latency_p90_ms": np.percentile(lengths * 3, 90),
        "latency_t16_ms": 16.0,
        "throughput_per_s": 4 / (sum(lengths) * 1e-3),
        "peak_rss_bytes": 1000 + 2 * 4, "num_threads": 2})


def test_the_spread_is_of_the_medians_of_the_rounds(stopwatch, monkeypatch):
    """Round by round a request takes 1, 1.1, 1.2 times as long."""
    time = Stopwatch.time

    def slower(self, *asked):
        seconds = time(self, *asked)
        return seconds * (1 + 0.1 * ((self._requests - 1) // 2 - 1))

    monkeypatch.setattr(Stopwatch, "time", slower)
    lengths = [9, 10, 10, 11]
    asked = {"ids": [[2] * n for n in lengths], "first_lengths": lengths,
             "max_tokens": 16}
    found = latency.measure({"a": "a"}, **asked, rounds=3)["a"]
    assert found["latency_spread"] == pytest.approx(0.2 / 1.1)
    assert "latency_spread" not in latency.measure({"a": "a"}, **asked, rounds=1)["a"]


def test_lengths_that_are_not_asked_for_are_not_timed(stopwatch):
    found = latency.measure({"a": "a"}, IDS, FIRST, rounds=2, token_counts=())["a"]
    assert not [name for name in found if name.startswith("latency_t")]
    assert stopwatch.turns == [("a", 3)] * 3


@pytest.mark.parametrize(("slowed", "fastest"), [(1, 2), (2, 1)])
def test_a_tflite_counts_with_the_threads_that_are_fastest(stopwatch, monkeypatch,
                                                           slowed, fastest):
    time = Stopwatch.time
    monkeypatch.setattr(Stopwatch, "time", lambda self, *asked: time(self, *asked) * (
        1.5 if self.num_threads == slowed else 1.0))
    figures = latency.measure({"a": "a.tflite", "keras": "k"}, IDS, FIRST, rounds=3,
                              max_tokens=16)
    assert figures["a"]["num_threads"] == fastest
    assert figures["a"]["latency_p50_ms"] == pytest.approx(8.5)
    assert figures["keras"]["num_threads"] == 2


def test_artifacts_take_turns_in_every_round(stopwatch):
    latency.measure({"a": "a", "b": "b"}, IDS, FIRST, rounds=2, max_tokens=16)
    first, second = [("a", 3), ("a", 16)], [("b", 3), ("b", 16)]
    assert stopwatch.turns == (first + second) * 3


@pytest.mark.parametrize(("max_tokens", "counts"), [
    (8, []), (16, [16]), (100, [16, 32, 64]), (512, [16, 32, 64, 128])])
def test_token_counts_above_the_maximum_are_left_out(max_tokens, counts, stopwatch):
    figures = latency.measure({"a": "a"}, IDS, FIRST, rounds=1, max_tokens=max_tokens)
    assert [name for name in figures["a"] if name.startswith("latency_t")] == [
        f"latency_t{count}_ms" for count in counts]


def test_texts_are_spread_evenly(stopwatch):
    ids = [[2] * length for length in range(1, 101)]
    figures = latency.measure({"a": "a"}, ids, list(range(1, 101)), rounds=1, texts=3,
                              max_tokens=16)["a"]
    assert figures["throughput_per_s"] == pytest.approx(3 / ((1 + 50 + 100) * 1e-3))
