"""A ladder of a job: one baseline, a bundle a rung, what is left out, what resumes."""

from __future__ import annotations

import dataclasses
import json

import pytest
from latency_tables import heads_alone

import tfopt
from tfopt import compress, data, model, pipeline
from tfopt.cli import compress as command
from tfopt.pipeline import costs, job, timing
from tfopt.pipeline.job import Job
from tfopt.serve.ladder import Ladder
from tfopt.serve.reference import Reference

WORDS = {"good": "a great film", "bad": "bad bad", "fine": "it is"}
P50 = {"1x": 1.0, "2x": 1.0, "keras_float32": 9.0}


@pytest.fixture(scope="module")
def patched():
    """Times are told, not taken; what is trained and run is counted."""
    counted = {"trained": 0, "rungs": []}
    with pytest.MonkeyPatch.context() as patch:
        def times(artifacts, *given, **fields):
            return {name: {"latency_p50_ms": P50.get(name, 2.0)} for name in artifacts}

        train, go = Job.train_model, job.Road.go

        def counting(self, *given, **fields):
            counted["trained"] += 1
            return train(self, *given, **fields)

        def going(road, out, tpu):
            counted["rungs"].append(out.name)
            if counted.get("killed at") == out.name:
                raise KeyboardInterrupt
            return go(road, out, tpu)

        patch.setattr(timing, "times", times)
        patch.setattr(Job, "train_model", counting)
        patch.setattr(job.Road, "go", going)
        patch.setattr(job.StructureTimer, "__call__", lambda self, whole, small: (
            sum(whole.num_heads), max(1, sum(small.num_heads))))
        patch.setattr(costs.table_file, "load", lambda config, **fields: (
            heads_alone(config)))
        yield counted


@pytest.fixture(scope="module")
def task(tmp_path_factory, tiny_dir) -> Job:
    place = tmp_path_factory.mktemp("ladder")
    model.save(model.build(
        model.EncoderConfig.uniform(
            hidden_size=16, num_layers=1, num_heads=4, intermediate_size=16,
            vocab_size=103, max_positions=32),
        tfopt.tasks.named("classification")(labels=tuple(WORDS)).head()),
        place / "model")
    data.tokenizer_from(tiny_dir).save(place / "model")
    for name, copies in (("train", 6), ("dev", 8)):
        (place / f"{name}.tsv").write_text("text\tlabel\n" + "".join(
            f"{text}\t{label}\n" for label, text in WORDS.items()) * copies)
    return Job(
        model=place / "model", train=place / "train.tsv", dev=place / "dev.tsv",
        ladder=(1, "2"), cascade_max_drop=0.5, out_dir=place / "out",
        recipe=compress.Recipe(passes=(compress.from_fields({
            "pass": "structured", "target_speedup": 3.0, "epochs": 0,
            "neurons_multiple": 8}),), exports=("dynamic_wi8_afp32",)),
        data=pipeline.Data(max_length=16),
        measuring=pipeline.Measuring(smoke=True, num_threads=1))


@pytest.fixture(scope="module")
def result(task, patched):
    """Of a run that was killed at its second rung."""
    patched["killed at"] = "2x"
    with pytest.raises(KeyboardInterrupt):
        task.run()
    assert patched["rungs"] == ["1x", "2x"] and patched["trained"] == 1
    del patched["killed at"]
    return task.run()


def test_a_killed_ladder_goes_on_at_its_rung(result, patched):
    assert patched["trained"] == 1  # one baseline
    assert patched["rungs"] == ["1x", "2x", "2x"]


def test_every_rung_is_a_bundle_from_one_baseline(task, result):
    ladder = Ladder.read(task.out_dir)
    assert ladder == result.ladder
    sizes = {}
    for name in ("1x", "2x"):
        bundle = tfopt.Bundle.open(task.out_dir / name, 1)
        answer, = bundle.predict(["a great film"])
        assert answer["label"] in WORDS
        assert len(Reference.read(task.out_dir / name).label) == 24
        assert bundle.fields["source"]["baseline"]["name"] == str(
            task.out_dir / "baseline")
        sizes[name] = (task.out_dir / name / "model.tflite").stat().st_size
    assert sizes["1x"] > sizes["2x"]
    assert result.bundle.predict(["bad"])[0]["label"] in WORDS
    assert not (task.out_dir / "state").exists()


def test_what_another_rung_beats_is_left_out_and_it_says_so(task, result):
    """Both were told to be as fast: the less accurate one is beaten."""
    fields = json.loads((task.out_dir / "ladder.json").read_text())
    quality = {row.artifact: row.value for row in result.rows
               if row.metric == "accuracy"}
    (rung,), (left,) = fields["rungs"], fields["left_out"]
    assert {rung["name"], left["name"]} == {"1x", "2x"} == set(quality)
    assert (left["beaten_by"], left["quality"]) == (rung["name"], quality[left["name"]])
    assert (rung["quality"], rung["p50_ms"]) == (quality[rung["name"]], 1.0)
    assert rung["quality"] >= left["quality"]
    assert (f"{left['name']} is no rung of the ladder: {rung['name']} is not slower"
            in result.report)
    assert "No cascade" in result.report and "cascade" not in fields


def test_the_command_shows_the_ladder(task, result, capsys):
    command.show(result)
    said = capsys.readouterr().out
    best = result.ladder.best
    assert (f"{task.out_dir / best.name}: the rung {best.name}, a bundle; accuracy "
            f"{best.quality:.4f}, p50 1 ms") in said
    assert f"tfopt serve {task.out_dir} " in said and "is no rung of" in said
    assert "--bundle" not in said


def test_the_same_again_leaves_the_same_but_for_its_times(task, result, patched,
                                                          monkeypatch):
    def models():
        return [(task.out_dir / name / "model.tflite").read_bytes()
                for name in ("1x", "2x")]

    before, qualities = models(), {row.artifact: row.value for row in result.rows
                                   if row.metric == "accuracy"}
    worse = min(qualities, key=lambda name: qualities[name])
    monkeypatch.setitem(P50, worse, 0.5)
    again = task.run()
    assert patched["trained"] == 1 and models() == before
    assert [rung.name for rung in again.ladder.rungs][-1] == worse
    if len({*qualities.values()}) == 2:  # each is better in something
        assert len(again.ladder.rungs) == 2 and "Cascade: " in again.report
        assert again.ladder.cascade.max_drop == 0.5


def test_another_ladder_does_not_take_its_directory(task, result):
    with pytest.raises(ValueError, match=r'another run: ladder \["1", "2"\] there, '
                                         r'\["1", "3"\] here'):
        dataclasses.replace(task, ladder=(1, 3)).run()
    with pytest.raises(ValueError, match="another run: cascade_max_drop 0.5 there"):
        dataclasses.replace(task, cascade_max_drop=0.1).run()


@pytest.mark.parametrize("ladder", [(1,), (0.5, 2), ("1", "1.0"), ("a", "b"),
                                    (1, float("nan")), (1, 1e9), ("1x", "2x")])
def test_a_ladder_is_of_speedups(ladder):
    with pytest.raises(ValueError, match=r"(--ladder must be two speedups|finite).*"
                                         "Received: -?-?ladder="):
        Job(ladder=ladder)


def test_what_does_not_go_with_a_ladder_is_refused_before_any_work(
        task, tmp_path, monkeypatch):
    new = dataclasses.replace(task, out_dir=tmp_path / "new")
    for change, said in (
            ({"targets": pipeline.Targets(target_speedup=2.0)}, "names the targets"),
            ({"recipe": "int8"}, "One target, for a recipe of which one pass has it")):
        with pytest.raises(ValueError, match=f"{said}.*Received: "):
            dataclasses.replace(new, **change).run()
    monkeypatch.setenv("TF_CONFIG", json.dumps({
        "cluster": {"worker": ["localhost:1", "localhost:2"]},
        "task": {"type": "worker", "index": 0}}))
    with pytest.raises(ValueError, match="one machine.*Received: TF_CONFIG"):
        new.run()
    assert not (tmp_path / "new").exists()
