"""What a run leaves behind, and that it can be resumed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import scripts
from latency_tables import heads_alone
from scripts import figures, process, run

from tfopt import compress, data, model, report
from tfopt.export.interpreter import Interpreter
from tfopt.pipeline import costs, job, judging


def test_finetune_leaves_a_model_that_loads(finetuned):
    out = finetuned.out
    assert model.load(out).output_shape == (None, 3)
    assert data.read_labels(out / "labels.txt") == ["bad", "fine", "good"]
    assert data.WordPiece.from_directory(out).vocab_size == 103
    assert list((out / "logs").glob("events.*"))
    assert not (out / "state").exists()
    taken = figures(out / "report.json")
    assert set(taken) == {("keras_float32", metric, "dev")
                          for metric in ("accuracy", "macro_f1")}
    assert f"{taken['keras_float32', 'accuracy', 'dev']:.4f}" in finetuned.done.stdout


def test_a_killed_run_resumes_where_it_was(resumed):
    found = re.search(r"Resumed at step (\d+) from .*baseline", resumed.done.stderr)
    assert found, resumed.done.stderr[-2000:]
    step = int(found[1])
    assert 0 < step < scripts.EPOCHS * scripts.STEPS_PER_EPOCH
    assert step % scripts.STEPS_PER_EPOCH == 0
    epochs = resumed.done.stdout.count("val_accuracy")
    assert epochs == scripts.EPOCHS - step // scripts.STEPS_PER_EPOCH


def test_training_learns(resumed):
    taken = figures(resumed.out / "report.json")
    assert taken["keras_float32", "accuracy", "dev"] > 0.9
    assert taken["dynamic_wi8_afp32", "accuracy", "dev"] > 0.9


@pytest.mark.parametrize(("case", "artifacts"), [
    ("resumed", ["keras_float32", "float32", "float16", "dynamic_wi8_afp32"]),
    ("pruned", ["keras_float32", "float32", "dynamic_wi8_afp32"])])
class TestCompress:
    @pytest.fixture
    def out(self, case, request) -> Path:
        return request.getfixturevalue(case).out

    def test_leaves_every_file(self, case, artifacts, out):
        expected = {"model.tflite", "vocab.txt", "labels.txt", "recipe.json",
                    "report.json", "report.md", "report.png", "keras", "logs"}
        if case == "resumed":
            expected.add("baseline")
        else:
            assert not (out / "baseline").exists()
        assert expected <= {path.name for path in out.iterdir()}
        assert not (out / "state").exists()
        assert not [path for path in out.rglob("*") if "partial" in path.name]
        assert list((out / "logs").rglob("events.*"))

    def test_the_files_load_and_agree(self, case, artifacts, out):
        wordpiece = data.WordPiece.from_directory(out)
        ids = wordpiece.encode(["a great film"]).ids
        keras_model = model.load(out / "keras")
        expected = keras_model({
            "input_ids": np.array(ids), "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids)}).numpy()
        # float16 is held by the export's own tests; the last one is model.tflite.
        for name, tolerance in (("exports/float32", 1e-4), ("model", 0.3)):
            logits = Interpreter(out / f"{name}.tflite", encoder=wordpiece).predict(
                ["a great film"])
            np.testing.assert_allclose(logits, expected, atol=tolerance)
        recipe = compress.Recipe.load(out / "recipe.json")
        assert recipe.exports == tuple(artifacts[1:])
        assert data.read_labels(out / "labels.txt") == ["bad", "fine", "good"]
        assert (out / "report.png").read_bytes().startswith(b"\x89PNG")
        assert (out / "model.tflite").read_bytes() == (
            out / "exports" / f"{recipe.exports[-1]}.tflite").read_bytes()

    def test_the_report_has_every_metric_of_every_artifact(self, case, artifacts, out):
        environment, rows = report.from_json((out / "report.json").read_text())
        assert list(dict.fromkeys(row.artifact for row in rows)) == artifacts
        for artifact in artifacts:
            mine = [row for row in rows if row.artifact == artifact]
            expected = (scripts.SEVERAL_ROUNDS if case == "resumed"
                        else scripts.METRICS)
            assert {row.metric for row in mine} == expected
            assert len(mine) == len(expected)
            assert {row.metric for row in mine if row.split == "dev"} == {
                "accuracy", "macro_f1"}
        assert environment["num_threads"] == 2
        assert environment["command"].startswith("python ")
        assert "compress.py" in environment["command"]

    def test_the_figures_go_the_right_way(self, case, artifacts, out):
        taken = figures(out / "report.json")

        def of(metric):
            return [taken[artifact, metric, ""] for artifact in artifacts]

        assert of("file_bytes") == sorted(of("file_bytes"), reverse=True)
        assert of("speedup")[0] == 1.0
        assert min(of("speedup")[1:]) > 1.0
        assert max(of("peak_rss_bytes")[1:]) < 0.5 * of("peak_rss_bytes")[0]
        assert of("gamma")[0] == 1.0
        assert of("gamma")[-1] < 0.4
        assert of("beta")[0] == 1.0
        assert of("beta")[-1] == pytest.approx(
            1.0 if case == "resumed" else 0.61, abs=0.02)

    def test_the_markdown_shows_the_same(self, case, artifacts, out):
        _, rows = report.from_json((out / "report.json").read_text())
        text = (out / "report.md").read_text()
        assert report.table(rows) in text
        assert ("smoke" in text) == (case == "pruned")

    def test_the_report_has_figures_of_each_class(self, case, artifacts, out):
        by_class = json.loads((out / "report.json").read_text())["by_class"]
        assert list(by_class) == artifacts
        for found in by_class.values():
            assert list(found["dev"]) == ["bad", "fine", "good"]
            assert sum(own["support"] for own in found["dev"].values()) == 12
        text = (out / "report.md").read_text()
        assert f"## By class, {artifacts[-1]}\n" in text
        assert "f1 of keras_float32" in text

    def test_the_table_is_printed(self, case, artifacts, out, request):
        _, rows = report.from_json((out / "report.json").read_text())
        printed = request.getfixturevalue(case).done.stdout
        assert report.table(rows) in printed
        assert f"{out}/model.tflite: the model ({artifacts[-1]})" in printed


def test_half_of_the_encoder_is_pruned(pruned):
    for layer in range(3):
        kernel = model.load(pruned.out / "keras").get_layer(
            f"layer_{layer}_query").get_weights()[0]
        assert np.mean(kernel == 0) == pytest.approx(0.5, abs=0.01)


def test_a_finished_run_is_not_trained_again(pruned):
    weights = pruned.out / "keras" / "model.keras"
    before = weights.stat().st_mtime_ns
    taken = figures(pruned.out / "report.json")
    done = run("compress", f"--flagfile={pruned.flagfile}", timed=False)
    assert "val_accuracy" not in done.stdout  # what Keras says of an epoch
    assert weights.stat().st_mtime_ns == before
    again = figures(pruned.out / "report.json")
    assert set(again) == set(taken)
    for key in taken:
        if key[1] in ("accuracy", "macro_f1", "file_bytes", "nonzeros"):
            assert again[key] == taken[key], key


@pytest.fixture
def budget_flags(resumed, files, tmp_path) -> list[str]:
    return [*files.flags, "--recipe=int8", "--smoke", f"--out_dir={tmp_path / 'out'}",
            f"--baseline_dir={resumed.out / 'baseline'}", "--calibration_texts=8",
            "--max_accuracy_drop=0"]


def test_a_budget_that_is_met_ends_well(budget_flags, tmp_path):
    """The fixture's model is right on all of dev, in int8 as well."""
    done = run("compress", *budget_flags, timed=False)
    assert "--max_accuracy_drop=0 was met" in done.stdout
    assert (tmp_path / "out" / "model.tflite").exists()
    said = (tmp_path / "out" / "report.md").read_text()
    assert "the budget of 0 points was met; the file has accuracy 1.0000" in said


def test_a_budget_that_is_not_met_ends_with_status_2(budget_flags, tmp_path,
                                                     monkeypatch):
    right, seen = judging.judge_on, []

    def judge_on(*given):
        def judge(contents):
            seen.append(contents)  # the first is in float
            return right(*given)(contents) - 0.01 * (len(seen) > 1)
        return judge

    monkeypatch.setattr(judging, "judge_on", judge_on)
    done = run("compress", *budget_flags, status=2, timed=False)
    assert "--max_accuracy_drop=0 was not met" in done.stderr
    assert (tmp_path / "out" / "model.tflite").exists()
    assert "the budget of 0 points was not met; the best file has accuracy" in (
        tmp_path / "out" / "report.md").read_text()


def test_a_smaller_structure_is_timed_beside_the_whole(resumed, files, tmp_path):
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"passes": [{
        "pass": "structured", "keep": 0.5, "epochs": 0, "neurons_multiple": 8}],
        "exports": ["dynamic_wi8_afp32"]}))
    out = tmp_path / "out"
    run("compress", *files.flags, f"--recipe={recipe}", "--smoke", f"--out_dir={out}",
        f"--baseline_dir={resumed.out / 'baseline'}", timed=False)
    rows = json.loads((out / "report.json").read_text())["rows"]
    parameters = {row["artifact"]: row["value"] for row in rows
                  if row["metric"] == "parameters"}
    assert list(parameters) == ["keras_float32", "unpruned_dynamic_wi8_afp32",
                                "dynamic_wi8_afp32"]
    assert parameters["dynamic_wi8_afp32"] < parameters["unpruned_dynamic_wi8_afp32"]
    said = (out / "report.md").read_text()
    assert "heads left" in said and "of the unpruned model" in said


def test_a_sparse_core_is_asked_for_before_any_work(files, tmp_path):
    done = run("compress", *files.flags, "--smoke", "--sparse_core",
               f"--out_dir={tmp_path / 'out'}", status=1)
    assert done.stderr.splitlines()[-1].startswith(
        "compress.py: Tokens are looked up by a SparseCore only on a TPU that has one "
        "(v5p, v6e), under tf.distribute.TPUStrategy. Received: no TPU")
    assert not (tmp_path / "out").exists()


def test_a_target_of_speed_is_timed_before_it_is_cut(finetuned, files, tmp_path,
                                                     monkeypatch):
    seen = []
    monkeypatch.setattr(job.StructureTimer, "__call__", lambda self, *configs: (
        seen.append(configs) or (3.0, 1.5)))
    out, recipe = tmp_path / "out", tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"passes": [{
        "pass": "structured", "target_speedup": 2.0, "epochs": 0,
        "neurons_multiple": 8}], "exports": ["dynamic_wi8_afp32"]}))
    monkeypatch.setattr(costs.table_file, "load", lambda config, **fields: (
        fields["note"]("The table's own spread.") or heads_alone(config)))
    flags = [*files.flags, f"--recipe={recipe}", "--smoke", f"--out_dir={out}",
             "--num_threads=1", f"--baseline_dir={finetuned.out}"]
    run("compress", *flags, status=None, timed=False)
    (whole, small), = seen
    assert whole.num_layers == 3 and sum(small.num_heads) < sum(whole.num_heads)
    facts = json.loads((out / "keras" / "structure.json").read_text())
    assert facts["trials"][0]["measured"] == 1.5
    run("compress", *flags, "--retime", status=None, timed=False)  # from disk
    said = (out / "report.md").read_text()
    assert "- The table's own spread." in said
    assert "timed before it was cut: 1.5 ms with random weights, 3 of the" in said
    assert len(seen) == 1


@pytest.mark.parametrize(("script", "expected"), [
    ("compress", "epochs batch_size learning_rate max_length seed num_threads strategy "
     "mixed_precision [no]jit_compile text_column text_pair_column label_column "
     "[no]smoke model_dir train_file dev_file test_file recipe baseline_dir out_dir"),
    ("predict", "artifact text input_file text_dir max_length top_k num_threads")])
def test_help_lists_the_flags_with_their_help(script, expected):
    shown = process(script, "--help", status=1).stdout  # absl's own status of --help
    # absl begins a new line for the help where a flag's values fill the first.
    helps = dict(re.findall(r"^  --(\S+):\s+((?:<\S+>:\s+)?.+)$", shown,
                            flags=re.MULTILINE))
    for name in expected.split():
        assert len(helps[name].split()) >= 3, name
    assert f"experiments/{script}.py --" in shown and f"tfopt {script} --" in shown


@pytest.mark.parametrize("script", ["compress", "finetune", "measure", "predict"])
def test_help_needs_no_tensorflow_and_lists_recipes(script, no_tensorflow):
    done = process(script, "--help", status=1, env=no_tensorflow)
    assert done.stderr == ""
    assert ("structured_distilled_quantized" in done.stdout) == (script == "compress")


def test_minilm_goes_the_whole_road_on_the_embedded_data(tmp_path):
    run("compress", "--model_dir=minilm", "--smoke", f"--out_dir={tmp_path / 'out'}")
    taken = figures(tmp_path / "out" / "report.json")
    assert {(artifact, split) for artifact, metric, split in taken
            if metric == "accuracy"} == {
        (name, "dev") for name in
        ("keras_float32", "float32", "float16", "dynamic_wi8_afp32")}
    assert taken["dynamic_wi8_afp32", "latency_t128_ms", ""] > 0
    assert taken["dynamic_wi8_afp32", "parameters", ""] > 22e6
    assert taken["dynamic_wi8_afp32", "file_bytes", ""] < 25e6
    assert taken["dynamic_wi8_afp32", "gamma", ""] < 0.27
    assert taken["dynamic_wi8_afp32", "speedup", ""] > 1.5
    assert len(data.read_labels(tmp_path / "out" / "labels.txt")) == len(
        data.read(data.DEMO_TRAIN_FILE).label_list())


@pytest.mark.slow
def test_minilm_learns_the_embedded_data_in_three_epochs(tmp_path):
    # One epoch, 50 steps or 200, ends between 0.47 and 0.59.
    run("compress", "--model_dir=minilm", "--epochs=3", "--batch_size=16",
        "--learning_rate=3e-4", f"--out_dir={tmp_path}")
    taken = figures(tmp_path / "report.json")
    for artifact in ("keras_float32", "dynamic_wi8_afp32"):
        assert taken[artifact, "accuracy", "dev"] > 0.7


@pytest.mark.parametrize("artifact", ["model.tflite", "keras"])
def test_measure_reports_on_any_artifact(artifact, pruned, files, tmp_path):
    target = tmp_path / "figures.json"
    done = run("measure", f"--artifact={pruned.out / artifact}", "--smoke",
               f"--eval_file={files.dev}", "--max_length=64", f"--report={target}")
    name = Path(artifact).stem
    taken = figures(target)
    assert {metric for _, metric, _ in taken} == scripts.METRICS - {
        "speedup", "alpha", "beta", "gamma"}
    assert {artifact for artifact, _, _ in taken} == {name}
    export = "dynamic_wi8_afp32" if artifact.endswith(".tflite") else "float32"
    run_figures = figures(pruned.out / "report.json")
    assert taken[name, "accuracy", "dev"] == run_figures[export, "accuracy", "dev"]
    assert done.stdout == report.table(report.from_json(target.read_text())[1]) + "\n"


def test_a_tflite_is_measured_without_tensorflow(pruned, files, no_tensorflow,
                                                 tmp_path):
    flags = [f"--eval_file={files.dev}", "--smoke"]
    target = tmp_path / "figures.json"
    process("measure", f"--artifact={pruned.out / 'model.tflite'}", *flags,
            f"--report={target}", env=no_tensorflow)
    taken = figures(target)
    assert taken["model", "accuracy", "dev"] == figures(pruned.out / "report.json")[
        "dynamic_wi8_afp32", "accuracy", "dev"]
    done = process("measure", f"--artifact={pruned.out / 'keras'}", *flags, status=1,
                   env=no_tensorflow)
    assert done.stderr.splitlines()[-1] == (
        "measure.py: This needs TensorFlow, which the light installation leaves out; "
        "install tfopt instead of tfopt-serve. Received: no tensorflow here")
