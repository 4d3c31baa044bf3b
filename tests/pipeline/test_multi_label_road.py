"""Several labels a text on the whole road: cut, taught, quantized, judged, served."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import scripts
from latency_tables import heads_alone

import tfopt
from tfopt import compress, data, model, pipeline, tasks, train
from tfopt.pipeline import costs, job, measuring, text_side, timing
from tfopt.pipeline.splits import Split
from tfopt.pipeline.teacher_options import Teacher
from tfopt.serve.reference import Drift, Reference

WORDS = {"good": "great good", "bad": "bad awful", "film": "film movie"}
SCHEME = "dynamic_wi8_afp32"


def write(path, count: int, seed: int, more: str = ""):
    """Texts of words that stand for none to three labels."""
    random, lines = np.random.default_rng(seed), []
    for _ in range(count):
        there = [label for label in WORDS if random.random() < 0.4]
        words = [random.choice(WORDS[label].split()) for label in there] + ["it", "is"]
        random.shuffle(words)
        lines.append(json.dumps({"text": " ".join(words), "label": there}) + "\n")
    path.write_text("".join(lines) + more)
    return path


@pytest.fixture(scope="module", autouse=True)
def told():
    """Times are told, not taken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "times", lambda artifacts, *_, **__: {
            name: {"latency_p50_ms": 1.0} for name in artifacts})
        patch.setattr(job.StructureTimer, "__call__", lambda self, whole, small: (
            sum(whole.num_heads), max(1, sum(small.num_heads))))
        patch.setattr(costs.table_file, "load", lambda config, **fields: (
            heads_alone(config)))
        yield


@pytest.fixture(scope="module")
def plain(tmp_path_factory, tiny_dir) -> tfopt.Job:
    place = tmp_path_factory.mktemp("several")
    model.save(model.build(
        model.EncoderConfig.uniform(
            hidden_size=16, num_layers=1, num_heads=4, intermediate_size=16,
            vocab_size=103, max_positions=32, initializer_range=0.3),
        model.Head(outputs=3)), place / "model")
    data.tokenizer_from(tiny_dir).save(place / "model")
    (place / "more.txt").write_text("a great film\nit is bad\n" * 4)
    return tfopt.Job(
        task="multi_label", model=place / "model",
        train=write(place / "train.jsonl", 120, 0),
        dev=write(place / "dev.jsonl", 60, 1, '{"text": "it was", "label": ["odd"]}\n'),
        data=pipeline.Data(max_length=16),
        settings=train.Settings(epochs=12, learning_rate=1e-2),
        batching=pipeline.Batching(batch_size=8),
        measuring=pipeline.Measuring(num_threads=1), out_dir=place / "out",
        teacher=Teacher(unlabelled=place / "more.txt"),
        recipe=compress.Recipe(
            passes=tuple(map(compress.from_fields, (
                {"pass": "structured", "target_speedup": 2.0, "neurons_multiple": 8,
                 "epochs": 2},
                {"pass": "quantization_aware", "scheme": SCHEME}))),
            distillation=train.Distillation(), exports=("float32", SCHEME)))


@pytest.fixture(scope="module")
def result(plain):
    return plain.run()


def test_every_artifact_is_judged_by_f1(plain, result):
    figures = {(row.artifact, row.metric): row.value for row in result.rows
               if row.split == "dev"}
    artifacts = {"keras_float32", "float32", SCHEME, f"unpruned_{SCHEME}"}
    assert figures.keys() == {(artifact, metric) for artifact in artifacts
                              for metric in ("micro_f1", "macro_f1", "exact_match")}
    assert figures["keras_float32", "micro_f1"] > 0.8
    assert figures[SCHEME, "micro_f1"] > 0.6
    _, rows = tfopt.report.from_json((plain.out_dir / "report.json").read_text())
    by_class = json.loads((plain.out_dir / "report.json").read_text())["by_class"]
    assert {*by_class[SCHEME]["dev"]} == {*WORDS}
    assert any("1 of dev's 61 examples have labels that train lacks" in note
               and "'odd'" in note for note in result.notes)


def test_the_bundle_answers_by_the_threshold_that_dev_chose(plain, result):
    bundle = tfopt.Bundle.open(plain.out_dir, 1)
    texts = data.read(plain.dev, data.Columns(form="set"))
    outputs = bundle.outputs(texts.texts)
    targets = bundle.task.evaluation_targets(texts)
    assert bundle.task == bundle.task.unfitted.fitted(outputs, targets)
    assert bundle.task.threshold != 0.5
    answers = bundle.predict(texts.texts)
    hits = sum(len({*answer["labels"]} & {*labels})
               for answer, labels in zip(answers, texts.labels, strict=True))
    total = sum(len(answer["labels"]) + len(labels)
                for answer, labels in zip(answers, texts.labels, strict=True))
    assert bundle.task.quality(outputs, targets)["micro_f1"] == pytest.approx(
        2 * hits / total)
    assert all(set(answer["scores"]) == {*WORDS} for answer in answers)


def test_keras_directories_have_thresholds_of_their_own(plain, result):
    for name in ("baseline", "keras"):
        task = tasks.read(plain.out_dir / name)
        assert task.labels == tuple(sorted(WORDS)) and task.threshold != 0.5
    side = text_side.read(plain.out_dir / "baseline")
    again = dataclasses.replace(plain, baseline=plain.out_dir / "baseline",
                                out_dir=plain.out_dir.with_name("again"))
    assert again.prepared().dataset.task == side.task.unfitted


def test_what_is_watched_counts_every_label(plain, result):
    reference = Reference.read(plain.out_dir)
    assert {*reference.labels} <= {*WORDS, "(none)"}
    assert len(reference.label) == 61
    assert any(isinstance(places, list) and len(places) > 1
               for places in reference.label)
    assert Drift(reference, window=50).values() == {}


def test_measure_and_predict_read_the_bundle(plain, result, tmp_path):
    artifact, report = plain.out_dir / "model.tflite", tmp_path / "report.json"
    done = scripts.run("measure", f"--artifact={artifact}", f"--report={report}",
                       f"--eval_file={plain.dev}", timed=False)
    assert "'odd'" in done.stderr
    own = scripts.figures(report)["model", "micro_f1", "dev"]
    bundle = tfopt.Bundle.open(plain.out_dir, 1)
    texts = data.read(plain.dev, data.Columns(form="set"))
    assert own == pytest.approx(bundle.task.quality(
        bundle.outputs(texts.texts), bundle.task.evaluation_targets(texts))["micro_f1"])
    done = scripts.run("predict", f"--artifact={artifact}", "--text=a great film")
    answer = json.loads(done.stdout)
    assert answer["labels"] == bundle.predict(["a great film"])[0]["labels"]


class Runner:
    """Gives a logit that rises with the second id."""

    def logits(self, ids, first_lengths):
        return np.array([[one[1]] for one in ids]) / 10.0 - 0.5


def test_the_part_held_out_of_train_chooses_the_threshold(plain, result):
    """Of ids from 1 on a label is there from 4 on, but on dev from 2 on."""
    def split(start: int) -> Split:
        ids = [[0, number] for number in range(1, 9)] * 4
        return Split(encoded=data.Encoded(ids=ids, first_lengths=[2] * 32), targets=[
            [int(one[1] >= start), 0] for one in ids])

    task = tasks.named("multi_label")(labels=("a",))
    dataset = dataclasses.replace(
        plain.dataset(), task=task, guard=split(4),
        report={"dev": split(2), "test": split(4)})
    for given, expected in ((dataset, (2 * 10 / (10 + 14), 1.0)), (
            dataclasses.replace(dataset, guard=dataset.report["dev"]),
            (1.0, 2 * 10 / (14 + 10)))):
        found = measuring.Measured()
        found.judge("a", Runner(), given)
        values = {row.split: row.value for row in found.rows
                  if row.metric == "micro_f1"}
        assert (values["dev"], values["test"]) == pytest.approx(expected)
