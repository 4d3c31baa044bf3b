"""The benchmark of threads, run as a user runs it, and what it makes of its figures."""

from __future__ import annotations

import json

import benchmark_runs
import pytest

from tfopt import data, model, tasks
from tfopt.export import tflite
from tfopt.serve import Bundle


def test_copies_are_held_against_one_interpreter(tiny_dir, tmp_path):
    task = tasks.named("classification")(labels=("bad", "good"))
    tiny = model.EncoderConfig.uniform(
        hidden_size=8, num_layers=1, num_heads=2, intermediate_size=8, vocab_size=103,
        max_positions=64)
    Bundle.write(tmp_path / "bundle", task=task, max_length=16, scheme="float32",
                 tokenizer=data.tokenizer_from(tiny_dir),
                 model=tflite.convert(model.build(tiny, task.head())))
    target = tmp_path / "figures.json"
    benchmark_runs.run("threads", "--smoke", "--clients=3",
                       f"--bundle={tmp_path / 'bundle'}", f"--report={target}")
    found = json.loads(target.read_text())["figures"]
    assert (found["texts"], found["clients"], found["equal_answers"]) == (40, 3, True)
    for name in ("one_interpreter", "one_with_threads", "copies"):
        mine = found[name]
        assert 0 < mine["one_client"]["p50_ms"] <= mine["one_client"]["p90_ms"] < 1e3
        assert 1 < mine["texts_per_s"] < 1e6
        assert 1e7 < mine["memory_bytes"] < 1e9
    assert found["one_interpreter"]["throughput_over_one_interpreter"] == 1
    assert found["bytes_of_a_copy"] == pytest.approx(
        found["copies"]["memory_bytes"] - found["one_interpreter"]["memory_bytes"])
