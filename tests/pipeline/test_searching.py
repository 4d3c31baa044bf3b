"""A search for the best of many goals, on tiny models."""

from __future__ import annotations

import dataclasses
import functools
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

import pytest

import tfopt
from tfopt import pipeline, train
from tfopt.compress.costs import multiplications
from tfopt.pipeline import (
    recipes,
    search_report,
    search_space,
    search_trial,
    searching,
    timing,
)
from tfopt.pipeline.options import Data
from tfopt.pipeline.search_space import Range, Space, Values
from tfopt.serve.ladder import Ladder

optuna = pytest.importorskip("optuna")

SPACE = {"recipe": ["int8", "structured"], "target_speedup": {"low": 1.2, "high": 3.0},
         "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
ROWS = [(text, label) for text, label in (
    ("a great film", "good"), ("bad bad film", "bad"), ("it is great", "good"),
    ("it is bad", "bad"), ("so great", "good")) for _ in range(8)]


def constant_times(artifacts, *_, **__):
    return {name: {"latency_p50_ms": float(len(Path(path).read_bytes())
                                           if Path(path).is_file() else 1e9)}
            for name, path in artifacts.items()}


@pytest.fixture
def job(tmp_path, tiny_dir, monkeypatch) -> tfopt.Job:
    """Nothing is timed: a request takes as long as its file is, or its products."""
    monkeypatch.setattr(timing, "times", constant_times)
    monkeypatch.setattr("tfopt.pipeline.costs.costs", lambda *_, **__: multiplications)
    return job_in(tmp_path, tiny_dir)


def job_in(tmp_path: Path, tiny_dir: Path) -> tfopt.Job:
    file = tmp_path / "train.tsv"
    file.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n"
                                              for text, label in ROWS))
    (tmp_path / "dev.tsv").write_text("text\tlabel\na great film\tgood\nbad\tbad\n")
    return tfopt.Job(
        model=tiny_dir, train=file, dev=tmp_path / "dev.tsv", data=Data(max_length=12),
        settings=train.Settings(epochs=2, learning_rate=1e-3),
        batching=pipeline.Batching(batch_size=8), out_dir=tmp_path / "out")


@pytest.fixture
def quick(monkeypatch) -> list[str]:
    """No trial is trained: its figures are of its speed. Gives the names as tried."""
    tried: list[str] = []
    monkeypatch.setattr(search_trial, "figures", functools.partial(made_up, tried))
    monkeypatch.setattr(searching, "_ended", only_reported)
    return tried


def made_up(tried: list[str], job: tfopt.Job, watch=None) -> dict[str, float]:
    tried.append(Path(job.out_dir).name)
    speed = job.targets.target_speedup or 1.0
    if speed > 100:
        raise ValueError("The target is out of reach. Received: 900x")
    return {"accuracy": 1 - speed / 100, "macro_f1": 0.5, "latency_p50_ms": 1 / speed,
            "file_bytes": 100.0}


def only_reported(study, goals, job, road, out, baseline):
    searching.front_of(study)
    search_report.write(study, goals, out)


def space_file(directory: Path, fields=SPACE) -> Path:
    place = directory / "space.json"
    place.write_text(json.dumps(fields))
    return place


def trials_of(out: Path) -> list[dict]:
    return json.loads((out / "search.json").read_text())["trials"]


def test_a_search_leaves_a_ladder_of_what_no_other_trial_beats(job, tmp_path, caplog):
    found = tfopt.Search(job=job, space=space_file(tmp_path), trials=5,
                         goals=("accuracy", "latency_p50_ms")).run()
    out = Path(job.out_dir)
    trials = trials_of(out)
    assert len(trials) == 5
    # Known recipes first, the richer one at the three speeds of a recipe.
    assert [trial["params"]["recipe"] for trial in trials[:4]] == [
        "structured"] * 3 + ["int8"]
    assert [trial["params"]["target_speedup"] for trial in trials[:3]] == [1.5, 2, 3]
    made = [trial for trial in trials if trial["state"] == "complete"]
    assert len(made) >= 4

    def beaten(one, other):
        (a, t), (b, u) = ([each["figures"][name] for name in (
            "accuracy", "latency_p50_ms")] for each in (one, other))
        return b >= a and u <= t and (b, u) != (a, t)

    front = {trial["name"] for trial in made
             if not any(beaten(trial, other) for other in made)}
    assert {trial["name"] for trial in made if trial["on_front"]} == front
    rungs = {rung.name for rung in found.ladder.rungs}
    assert rungs and rungs <= front
    assert {path.name for path in out.glob("t0*")} == front
    for name in rungs:
        answer, = tfopt.serve.Bundle.open(out / name).predict(["a great film"])
        assert answer["label"] in ("good", "bad")
    assert Ladder.read(out).best.name in front
    assert "A search of 5 trials for accuracy, latency_p50_ms" in found.report
    assert "| t000 " in (out / "search.md").read_text()


def test_a_killed_search_goes_on_and_does_nothing_twice(job, quick, tmp_path,
                                                        monkeypatch):
    whole = search_trial.figures

    def killed(job, watch=None):
        if len(quick) == 1:
            quick.append("killed")
            raise KeyboardInterrupt
        return whole(job, watch)

    monkeypatch.setattr(search_trial, "figures", killed)
    search = tfopt.Search(job=job, space=space_file(tmp_path), trials=4,
                          goals=("accuracy", "file_bytes"))
    with pytest.raises(KeyboardInterrupt):
        search.run()
    monkeypatch.setattr(tfopt.Job, "train_model", None)  # the baseline is there
    search.run()
    assert quick == ["t000", "killed", "t001", "t002", "t003"]
    assert len(trials_of(Path(job.out_dir))) == 4
    search.run()  # a search that is done
    assert len(quick) == 5


def test_another_search_is_refused_in_the_same_directory(job, quick, tmp_path):
    search = tfopt.Search(job=job, space=space_file(tmp_path), trials=1)
    search.run()
    for change in ({"goals": ("accuracy", "file_bytes")},
                   {"space": space_file(tmp_path, {"recipe": ["int8"]})}):
        with pytest.raises(ValueError, match="holds another run"):
            dataclasses.replace(search, **change).run()
    (Path(job.out_dir) / "search.journal").write_text('{"op_code": 99}\n')
    with pytest.raises(ValueError, match=r"damaged. Received: .*search.journal"):
        dataclasses.replace(search, space=space_file(tmp_path)).run()


def test_what_cannot_be_made_or_was_made_is_said_and_passed_over(job, quick, tmp_path):
    fields = {"recipe": ["structured"], "target_speedup": [1.5, 900.0]}
    tfopt.Search(job=job, space=space_file(tmp_path, fields), trials=6,
                 goals=("accuracy", "latency_p50_ms")).run()
    failed = [trial for trial in trials_of(Path(job.out_dir))
              if trial["state"] == "fail"]
    assert {trial["why"][:24] for trial in failed} == {
        "The target is out of rea", "it is t000 once more", "it is t001 once more"}
    assert sum("once more" in trial["why"] for trial in failed) == 60  # and then ends


def test_minutes_end_a_search(job, quick, tmp_path):
    with pytest.raises(ValueError, match="can be made. Received: no trial within"):
        tfopt.Search(job=job, space=space_file(tmp_path), trials=9, minutes=0.0).run()
    assert not quick


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_after_known_recipes_the_sampler_chooses(sampler, job, quick, tmp_path):
    tfopt.Search(job=job, space=space_file(tmp_path), trials=16, sampler=sampler,
                 goals=("accuracy", "latency_p50_ms")).run()
    found = trials_of(Path(job.out_dir))
    assert len(quick) == 16
    speeds = [trial["params"].get("target_speedup", 1.2) for trial in found]
    assert min(speeds) >= 1.2 and max(speeds) <= 3.0


@pytest.mark.parametrize(("goals", "received"), [
    (("speed",), "--goals=speed"), (("accuracy", "accuracy"), "accuracy,accuracy")])
def test_a_goal_that_no_trial_has_is_refused_before_any_work(goals, received, job):
    with pytest.raises(ValueError, match=f"--goals must be of .*{received}"):
        tfopt.Search(job=job, goals=goals).run()
    assert not Path(job.out_dir).exists()


def test_a_ladder_beside_a_search_is_refused(job):
    with pytest.raises(ValueError, match="Received: --ladder=1,2"):
        tfopt.Search(job=dataclasses.replace(job, ladder=(1, 2))).run()


def test_without_optuna_there_is_one_sentence(job, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match="needs optuna: pip install 'tfopt.search.'"):
        tfopt.Search(job=job).run()


@pytest.mark.parametrize(("fields", "said"), [
    ({"recipe": ["int8"], "speed": [1]}, "has the fields recipe.*with 'speed'"),
    ({"target_speedup": [2]}, "a list of recipes.*without one"),
    ({"recipe": "int8"}, "'recipe' of a space must be a list of names"),
    ({"recipe": ["none such"]}, "must be a file or one of"),
    ({"recipe": ["int8", "int8"]}, "each once"),
    ({"recipe": ["int8"], "target_speedup": {"low": 3, "high": 2}}, "'low' < 'high'"),
    ({"recipe": ["int8"], "target_speedup": {"low": 0.5, "high": 2}}, "from 1 on"),
    ({"recipe": ["int8"], "learning_rate": {"low": 1e-4}}, "'learning_rate' of a"),
    ({"recipe": ["int8"], "epochs": [1.5]}, "'epochs' of a space"),
    ({"recipe": ["int8"], "hard_weight": [True]}, "'hard_weight' of a space"),
])
def test_a_space_that_is_none_is_refused(fields, said, tmp_path):
    place = space_file(tmp_path, fields)
    with pytest.raises(ValueError, match=said) as caught:
        Space.load(place)
    assert "Received: " in str(caught.value)
    place.write_text("[1")
    with pytest.raises(ValueError, match=r"space\.json"):
        Space.load(place)
    with pytest.raises(ValueError, match="--space must be a file"):
        Space.load(tmp_path / "missing.json")


def test_values_are_taken_to_the_nearest_that_a_space_has():
    assert Range(1.0, 3.0).nearest(5) == 3.0
    assert Range(1, 9, whole=True).nearest(2.6) == 3
    assert Values((0.0, 0.5, 2.0)).nearest(0.7) == 0.5
    assert Values(("a", "b")).nearest("b") == "b"
    assert Values(("a", "b")).nearest("c") == "a"


def test_a_trial_is_the_job_with_what_it_tries(job):
    params = {"recipe": "structured_distilled_quantized", "target_speedup": 2.5,
              "epochs": 7, "learning_rate": 3e-4, "hard_weight": 0.25, "augment": 2,
              "scheme": "dynamic_wi4b32_afp32"}
    own = search_space.applied(job, params)
    assert own.recipe.exports == ("dynamic_wi4b32_afp32",)
    assert own.recipe.passes[1].scheme == "dynamic_wi4b32_afp32"
    assert own.targets.target_speedup == 2.5
    assert (own.settings.epochs, own.settings.learning_rate) == (7, 3e-4)
    assert (own.teacher.hard_weight, own.teacher.augment) == (0.25, 2)


@pytest.mark.parametrize("name", recipes.names())
def test_each_recipe_can_be_searched(name, job):
    fields = Space.default(job).to_json() | {"recipe": [name]}
    for params in Space.from_fields(fields, "one").known(job):
        assert search_space.applied(job, params).recipe.passes


class Noted:
    """A study of finished trials, and a trial of it."""

    def __init__(self, others, speed=2.0):
        self.params, self.user_attrs = {"target_speedup": speed}, {}
        self._others = [
            optuna.trial.create_trial(
                params={"target_speedup": own}, values=[0.5],
                distributions={"target_speedup":
                               optuna.distributions.FloatDistribution(1, 9)},
                user_attrs={"epochs": values})
            for own, values in others]

    def get_trials(self, **_):
        return self._others

    def set_user_attr(self, name, value):
        self.user_attrs[name] = list(value)


def test_a_trial_that_is_behind_those_no_slower_is_stopped(job):
    task = job.dataset().task
    no_slower = [(speed, [0.5, value]) for speed, value in (
        (2.0, 0.6), (3.0, 0.7), (4.0, 0.8), (9.0, 0.9))]
    slower = [(1.0, [0.9, 0.99])] * 9
    for others, values, stops in (
            (no_slower + slower, [0.4, 0.7], True),
            (no_slower + slower, [0.5, 0.76], False),
            (no_slower + slower, [0.8, 0.1], False),  # its best counts
            (no_slower[1:] + slower, [0.4, 0.1], False)):  # too few to tell
        noted = Noted(others)
        told = search_trial.watch(noted, noted, task)
        told({"loss": 1.0})
        if stops:
            with pytest.raises(search_trial.Behind, match="of 4 trials no slower the "
                                                          "median was 0.5000"):
                told({"val_accuracy": values[0]})
            continue
        for value in values:
            told({"val_accuracy": value})
        assert noted.user_attrs["epochs"] == values


def test_two_processes_share_the_trials(tmp_path, tiny_dir):
    job_in(tmp_path, tiny_dir)  # writes the files
    space_file(tmp_path)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_shared, args=(tmp_path, tiny_dir))
               for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
        assert worker.exitcode == 0
    trials = trials_of(tmp_path / "out")
    assert len({json.dumps(trial["params"]) for trial in trials}) == len(trials) == 4
    said = [line for place in tmp_path.glob("tried-*")
            for line in place.read_text().split()]
    assert sorted(said) == ["t000", "t001", "t002", "t003"]
    assert len(list(tmp_path.glob("tried-*"))) == 2


def _shared(tmp_path: Path, tiny_dir: Path) -> None:
    def figures(job, watch=None):
        time.sleep(1)
        with open(tmp_path / f"tried-{os.getpid()}", "a") as file:
            file.write(f"{Path(job.out_dir).name}\n")
        return made_up([], job)

    search_trial.figures, searching._ended = figures, only_reported
    # Both are here before the first begins.
    (tmp_path / f"here-{os.getpid()}").touch()
    while len(list(tmp_path.glob("here-*"))) < 2:
        time.sleep(0.1)
    tfopt.Search(job=job_in(tmp_path, tiny_dir), space=tmp_path / "space.json",
                 trials=4, goals=("accuracy", "file_bytes")).run()
