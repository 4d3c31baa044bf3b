"""The benchmarks of drift, cascades and bulk, run as a user runs them."""

from __future__ import annotations

import json
import sys

import benchmark_runs
import numpy as np
import pytest

from tfopt import data, model, tasks
from tfopt.export import tflite
from tfopt.serve import Bundle
from tfopt.serve.ladder import Ladder
from tfopt.serve.rungs import Cascade, Rung

TASK = tasks.named("classification")(labels=("bad", "good"))
WORDS = ("good", "bad", "it", "was", "a", "film", "really", "not", "great")


@pytest.fixture(scope="module")
def ladder(tiny_dir, tmp_path_factory):
    """Two rungs of random weights, the fast one of half the width."""
    place = tmp_path_factory.mktemp("ladder")
    rungs = []
    for name, width, p50 in (("1x", 16, 2.0), ("4x", 8, 0.5)):
        Bundle.write(place / name, task=TASK, tokenizer=data.tokenizer_from(tiny_dir),
                     max_length=12, scheme="float32", model=tflite.convert(model.build(
                         model.EncoderConfig.uniform(
                             hidden_size=width, num_layers=1, num_heads=2,
                             intermediate_size=8, vocab_size=103, max_positions=64,
                             initializer_range=0.5), TASK.head())))
        rungs.append(Rung(name=name, directory=name, quality=0.5 + p50 / 10,
                          p50_ms=p50))
    # Chosen anew it would be by times, of which tiny models have much the same.
    Ladder(place=place, rungs=tuple(rungs), monitor="accuracy", cascade=Cascade(
        first="4x", threshold=0.0, quality=0.5, share_handed_on=0.0)).write()
    return place


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "dev.tsv"
    path.write_text("text\tlabel\n" + "".join(
        f"{' '.join(WORDS[(row * 5 + word * word) % 9] for word in range(1 + row % 9))}"
        f"\t{TASK.labels[row % 2]}\n" for row in range(60)))
    return path


def figures(script, target, *flags):
    benchmark_runs.run(script, "--smoke", f"--report={target}", *flags)
    return json.loads(target.read_text())["figures"]


def test_drift_is_counted_by_kind_of_text(ladder, dev, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("really really really really really great great great\n" * 30)
    found = figures("drift", tmp_path / "drift.json", f"--bundle={ladder / '1x'}",
                    f"--dev_file={dev}", f"--off_domain_file={other}", "--window=30")
    alarms = found["alarms"]
    assert set(alarms) == {"clean", "typos", "first_three_words", "off_domain",
                           "clean_held_out"}
    assert alarms["clean"]["any"] == 0.0
    assert alarms["off_domain"]["any"] == 1.0 == alarms["first_three_words"]["any"]
    assert alarms["first_three_words"]["by_signal"]["tokens"] == 1.0


def test_a_cascade_is_timed_beside_its_best_rung(ladder, dev, tmp_path):
    found = figures("cascade", tmp_path / "cascade.json", f"--ladder={ladder}",
                    f"--dev_file={dev}")
    assert found["asked"] == ["4x", "1x"]
    assert found["answered_by"] == {"4x": 1.0, "1x": 0.0}
    assert found["lost"] == pytest.approx(
        found["quality"]["best"] - found["quality"]["cascade"])
    assert found["ratio"] == pytest.approx(
        found["cascade_mean_ms"] / found["best_mean_ms"])


def test_bulk_answers_as_one_by_one(ladder, dev, tmp_path):
    found = figures("bulk_predict", tmp_path / "bulk.json", f"--bundle={ladder / '1x'}",
                    f"--text_file={dev}", "--num_threads=1", "--part=4")
    assert (found["texts"], found["texts_one_by_one"]) == (400, 100)
    assert set(found["ratio_over_one_by_one"]) == {"one_thread", "as_many_as_pay"}
    assert all(0 < ratio < 100 for ratio in found["ratio_over_one_by_one"].values())


def test_typos_change_the_share_of_words_that_they_should(monkeypatch):
    monkeypatch.syspath_prepend(str(benchmark_runs.BENCHMARKS))
    monkeypatch.delitem(sys.modules, "drift", raising=False)
    import drift

    words = ["letters"] * 4000
    found = drift.with_typos(" ".join(words), 0.6, np.random.default_rng(0)).split(" ")
    assert len(found) == len(words)
    changed = np.mean([word != "letters" for word in found])
    # Of swapped letters, and a changed one, some are the same by chance.
    assert 0.5 < changed <= 0.62
    assert drift.with_typos("a b", 1.0, np.random.default_rng(0)) == "a b"
