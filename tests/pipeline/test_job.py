"""A job from Python: the same road as the command's, without flags."""

from __future__ import annotations

import dataclasses
import json

import pytest

import tfopt
from tfopt import compress, pipeline
from tfopt.export import mediapipe
from tfopt.pipeline import job as jobs
from tfopt.pipeline import stages

TRAIN = "text\tlabel\n" + "a great film\tgood\nbad bad\tbad\nit is\tfine\n" * 4


@pytest.fixture(scope="module")
def job(tmp_path_factory, tiny_dir) -> tfopt.Job:
    place = tmp_path_factory.mktemp("job")
    (place / "train.tsv").write_text(TRAIN)
    recipe = compress.Recipe(passes=(compress.from_fields({"pass": "none"}),),
                             exports=("dynamic_wi8_afp32",))
    return tfopt.Job(
        model=tiny_dir, train=place / "train.tsv", dev=place / "train.tsv",
        recipe=recipe, data=pipeline.Data(max_length=16), out_dir=place / "out",
        measuring=pipeline.Measuring(smoke=True, num_threads=1))


@pytest.fixture(scope="module")
def result(job):
    return job.run()


def test_a_job_leaves_a_bundle_and_says_what_it_reached(job, result):
    assert result.met and not result.missed
    assert {row.artifact for row in result.rows} == {"keras_float32",
                                                     "dynamic_wi8_afp32"}
    assert tfopt.report.table(result.rows) in result.report
    answer, = result.bundle.predict(["a great film"])
    assert answer["label"] in ("bad", "fine", "good")
    assert result.bundle.max_length == 16
    again = tfopt.Bundle.open(job.out_dir, 1).predict(["a great film"])
    assert again[0]["label"] == answer["label"]
    source = json.loads((job.out_dir / "run.json").read_text())
    assert result.bundle.fields["source"] == source
    assert source["model"]["name"] == str(job.model)
    contents = (job.out_dir / "model.tflite").read_bytes()
    assert not mediapipe.problems(contents)  # clients on devices open it, too


def test_changed_data_never_meets_an_old_model(job, result):
    changed = job.train.with_name("changed.tsv")
    changed.write_text(TRAIN + "no\tbad\n")
    with pytest.raises(ValueError, match=r"another run: train differs: .*train\.tsv "
                                         r"there, .*changed\.tsv here"):
        dataclasses.replace(job, train=changed).run()


@pytest.mark.parametrize(("passes", "refused"), [
    ([{"pass": "magnitude", "final_sparsity": 0.5,
       "only": ["querry"]}], "querry"),
    ([{"pass": "none"}, {"pass": "quantization_aware", "leave": ["layer_7"]}],
     "layer_7"),
    ([{"pass": "low_rank", "rank": 4, "only": ["intermediate"]},
      {"pass": "magnitude", "final_sparsity": 0.5,
       "only": ["intermediate_left"]}], None)])
def test_a_layer_that_is_not_there_is_missed_before_training(
        passes, refused, job, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs.run_dir, "claim", _reached)
    with pytest.raises(Reached if refused is None else ValueError, match=refused):
        dataclasses.replace(job, out_dir=tmp_path / "out", recipe=compress.Recipe(
            passes=tuple(map(compress.from_fields, passes)))).run()
    assert not (tmp_path / "out").exists()


class Reached(Exception):
    pass


def _reached(*_):
    raise Reached


def test_a_value_out_of_its_range_is_refused_at_once():
    with pytest.raises(ValueError, match="task='magic'"):
        tfopt.Job(task="magic", out_dir="nowhere")


def test_layers_that_were_skipped_for_one_reason_stand_together():
    names = [f"layer_{i}" for i in range(24)]
    said = stages.skipped_in_words({"a": "too small", **dict.fromkeys(names, "kept")})
    assert said == "a (too small); 24 layers from layer_0 to layer_23 (kept)"
