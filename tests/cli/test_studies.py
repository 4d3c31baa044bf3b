"""Studies and tools: tables over seeds that are gone on with, and their parts."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys

import numpy as np
import pruning_table
import pytest
import scripts
from scripts import run

from tfopt import data, model, tasks


def test_a_script_called_by_a_relative_path_tells_its_progress(files, tmp_path):
    done = subprocess.run(
        [sys.executable, os.path.relpath(scripts.path_of("hold_out_whole"), tmp_path),
         f"--input_file={files.train}", "--train_file=a.tsv", "--holdout_file=b.tsv"],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300)
    assert "whole texts of 48" in done.stderr


def test_seeds_goes_on_after_the_seeds_it_has_reported(files, tmp_path):
    target = tmp_path / "seeds.json"
    flags = [*files.flags, "--smoke", "--seeds=3,1", "--keep_epoch=last",
             f"--report={target}"]
    first = run("seeds", *flags)
    whole = json.loads(target.read_text())
    assert whole["figures"]["seeds"] == [3, 1]
    assert [line["artifact"] for line in whole["figures"]["accuracy"]] == [
        "keras_float32", "dynamic_wi8_afp32"]
    for line in whole["figures"]["accuracy"]:
        assert line["mean"] == pytest.approx(sum(line["accuracy"]) / 2)
        assert line["spread"] == pytest.approx(abs(np.subtract(*line["accuracy"])))
    assert [number for number in (1, 3) if f"Seed {number}" in first.stderr] == [1, 3]

    killed = json.loads(target.read_text())
    killed["figures"]["seeds"].pop()
    for line in killed["figures"]["accuracy"]:
        line["accuracy"].pop()
    target.write_text(json.dumps(killed))
    second = run("seeds", *flags)
    assert [number for number in (1, 3) if f"Seed {number}" in second.stderr] == [1]
    assert json.loads(target.read_text())["figures"] == whole["figures"]


def test_a_table_of_prunings_is_filled_and_gone_on_with(files, tmp_path):
    target = tmp_path / "table.json"
    flags = [*files.flags, "--smoke", "--seeds=2", "--keep_epoch=last",
             "--scores=movement", "--patterns=unstructured,2:4", "--sparsities=0.75",
             f"--report={target}"]
    run("pruning_table", *flags)
    table = json.loads(target.read_text())["figures"]
    cells = table["runs"]["2"]
    assert {name: cell["sparsity"] for name, cell in cells.items()} == {
        "dense": 0, "movement unstructured 0.75": 0.75, "movement 2:4 0.5": 0.5}
    assert table["means"] == cells  # of one seed
    figure = "dynamic_wi8_afp32 dev"
    assert table["points_lost"]["movement 2:4 0.5"][figure] == pytest.approx(
        100 * (cells["dense"][figure] - cells["movement 2:4 0.5"][figure]))
    again = run("pruning_table", *flags)
    assert "Seed 2" not in again.stderr and "Pass" not in again.stderr
    assert json.loads(target.read_text())["figures"] == table


@pytest.mark.slow
def test_tables_share_the_fine_tuned_models(files, tmp_path):
    def fill(name, *flags):
        run("pruning_table", *files.flags, "--epochs=40", "--seeds=2", "--exports=",
            "--keep_epoch=last", "--sparsities=0.25", *flags,
            f"--baselines_dir={tmp_path / 'fine_tuned'}",
            f"--report={tmp_path / name}.json")
        cells = json.loads((tmp_path / f"{name}.json").read_text())["figures"]["runs"]
        return cells["2"]

    trained = ["--patterns=unstructured", "--pruning_epochs=1",
               "--pruning_learning_rate=1e-5"]
    magnitude = fill("magnitude", "--scores=magnitude", *trained)
    taylor = fill("taylor", "--scores=taylor", *trained)
    at_once = fill("at_once", "--scores=magnitude", "--patterns=rows",
                   "--pruning_epochs=0")
    assert magnitude["dense"] == taylor["dense"] == at_once["dense"]
    for cell in (magnitude["magnitude unstructured 0.25"],
                 taylor["taylor unstructured 0.25"], at_once["magnitude rows 0.25"]):
        assert cell["sparsity"] == 0.25
    model_file = tmp_path / "fine_tuned" / "seed_2" / model.KERAS_FILE
    assert model_file.stat().st_mtime < (tmp_path / "magnitude.json").stat().st_mtime

    tables = [tmp_path / "magnitude.json", tmp_path / "taylor.json"]
    names = f"--tables={tables[0]},{tables[1]}"
    run("join_tables", names, f"--report={tmp_path / 'whole.json'}")
    whole = json.loads((tmp_path / "whole.json").read_text())
    assert set(whole["figures"]["points_lost"]) == {
        "dense", "magnitude unstructured 0.25", "taylor unstructured 0.25"}
    assert [e["command"].count("--scores=taylor") for e in whole["environments"]] == [
        0, 1]
    tables[1].write_text(tables[1].read_text().replace(
        '"sparsity": 0.0', '"sparsity": 0.1'))
    refused = run("join_tables", names, f"--report={tmp_path / 'other.json'}", status=1)
    assert refused.stderr.endswith("taylor.json, seed 2, 'dense'\n")


def test_a_cell_is_held_against_the_dense_models_of_its_own_seeds():
    runs = {"0": {"dense": {"dev": 0.9, "sparsity": 0.0},
                  "half": {"dev": 0.8, "sparsity": 0.5}},
            "1": {"dense": {"dev": 0.6, "sparsity": 0.0}}}
    found = pruning_table.summary(runs, tasks.named("classification")())
    assert found["means"]["dense"]["dev"] == pytest.approx(0.75)
    assert found["means"]["half"] == {"dev": 0.8, "sparsity": 0.5}
    assert found["points_lost"]["half"] == {"dev": pytest.approx(10.0)}


def test_a_table_of_quantizations_is_filled_and_gone_on_with(files, tmp_path):
    report_file = tmp_path / "table.json"
    flags = [*files.flags, "--epochs=2", "--seeds=0", f"--report={report_file}",
             "--exports=dynamic_wi8_afp32,static_wi8_ai16", "--calibration_texts=8",
             f"--baselines_dir={tmp_path / 'tuned'}", "--smoke"]
    run("quantization_table", *flags)
    cells = json.loads(report_file.read_text())["figures"]["runs"]["0"]
    # 16 bits cannot be trained for.
    assert set(cells) == {"float32", "dynamic_wi8_afp32 ptq", "dynamic_wi8_afp32 qat",
                          "static_wi8_ai16 ptq"}
    assert cells["dynamic_wi8_afp32 qat"]["agreement"] == 1.0
    assert cells["dynamic_wi8_afp32 qat"]["logit_difference"] < 1e-3
    again = run("quantization_table", *flags)
    assert "Seed 0" not in again.stderr
    assert "points lost" in again.stdout


def test_sensitivity_makes_a_table_and_a_plot(resumed, files, tmp_path):
    run("sensitivity", *files.flags[1:], f"--model_dir={resumed.out / 'baseline'}",
        "--export=dynamic_wi8_afp32", "--calibration_texts=4", "--smoke",
        f"--out_dir={tmp_path}")
    found = json.loads((tmp_path / "sensitivity.json").read_text())["figures"]
    assert len(found["operations"]) == 3 * 6 + 2 + 3
    assert "| points lost |" in (tmp_path / "sensitivity.md").read_text()
    assert (tmp_path / "sensitivity.png").stat().st_size > 1000


def test_quantized_exports_are_timed_in_turn(resumed, files, tmp_path):
    run("quantized_latency", *files.flags[1:], "--smoke", "--texts=4",
        f"--model_dir={resumed.out / 'baseline'}", "--calibration_texts=4",
        "--exports=static_wi8_ai8", f"--report={tmp_path / 'latency.json'}")
    found = json.loads((tmp_path / "latency.json").read_text())["figures"]
    assert set(found) == {"float32", "dynamic_wi8_afp32", "static_wi8_ai8"}
    assert found["dynamic_wi8_afp32"]["p50_over_dynamic"] == 1.0
    assert found["static_wi8_ai8"]["p50_over_dynamic"] > 0


def test_whole_texts_are_held_out_with_their_parts(tmp_path):
    chance = random.Random(0)
    whole = [" ".join(chance.choices("a b c d e f g h i j".split(), k=9))
             for _ in range(40)]
    parts = [" ".join(text.split()[start:start + size]) for text in whole
             for start, size in ((0, 3), (1, 4), (2, 6), (0, 8))]
    rows = [(text, chance.choice(["good", "bad"])) for text in whole + parts]
    source = tmp_path / "all.tsv"
    source.write_text("text\tlabel\n" + "".join(f"{t}\t{label}\n" for t, label in rows))
    run("hold_out_whole", f"--input_file={source}", "--fraction=0.25",
        f"--train_file={tmp_path / 'train.tsv'}",
        f"--holdout_file={tmp_path / 'holdout.tsv'}")
    kept, held = (data.read(tmp_path / name) for name in ("train.tsv", "holdout.tsv"))
    assert len(held) == 10 and set(held.texts) <= set(whole)
    for text in held.texts:
        given_away = [part for part in kept.texts if f" {part} " in f" {text} "]
        assert all(len(part.split()) == 3 for part in given_away)
    # The rest is there, with its labels; so are the shortest parts.
    assert set(zip(kept.texts, kept.labels, strict=True)) <= set(rows)
    assert len(kept) >= 160 - 10 * 4 + 10


def test_a_table_of_smaller_models_is_filled_and_gone_on_with(files, baseline_of,
                                                              tmp_path):
    baseline, *latencies = baseline_of(2)
    shutil.copytree(baseline.partition("=")[2], tmp_path / "tuned" / "seed_0")
    report_file = tmp_path / "table.json"
    shared = [*files.flags, *latencies, "--smoke", "--seeds=0", "--points=1.5",
              "--keep_epoch=last", f"--baselines_dir={tmp_path / 'tuned'}"]
    ways = ["post_training", "cross_entropy", "distilled_quantized"]
    flags = [*shared, f"--ways={','.join(ways)}", f"--report={report_file}"]
    run("shrink_table", *flags)
    again = run("shrink_table", *flags)
    assert "Seed 0" not in again.stderr

    beside = tmp_path / "beside.json"
    run("shrink_table", *shared, "--ways=student", "--nobaseline_cell",
        f"--report={beside}")
    alone = json.loads(beside.read_text())["figures"]
    assert list(alone["runs"]["0"]) == ["1.5x student"] and not alone["points_lost"]
    run("join_tables", "--of=shrink", f"--tables={report_file},{beside}",
        f"--report={tmp_path / 'whole.json'}")
    table = json.loads((tmp_path / "whole.json").read_text())["figures"]
    cells = dict(table["runs"]["0"])
    whole = cells.pop("unpruned")
    assert list(cells) == [f"1.5x {way}" for way in (*ways, "student")]
    structures = {json.dumps([cell["num_heads"], cell["intermediate_sizes"]])
                  for name, cell in cells.items() if name != "1.5x student"}
    assert len(structures) == 1
    for name, cell in cells.items():
        assert cell["predicted_speedup"] >= 1.5
        assert cell["parameters"] < whole["parameters"]
        assert table["points_lost"][name] == pytest.approx(
            100 * (whole["accuracy"] - cell["accuracy"]))
    assert cells["1.5x student"]["num_heads"] == [4]


def test_a_table_of_a_large_teacher_is_filled_and_gone_on_with(
        files, finetuned, baseline_of, tmp_path):
    _, *latencies = baseline_of(3)
    report_file = tmp_path / "table.json"
    shutil.copytree(finetuned.out, tmp_path / "tuned" / "seed_0")
    flags = [*files.flags, *latencies, "--smoke", "--seeds=0", "--points=1,1.5",
             "--keep_epoch=last", f"--baselines_dir={tmp_path / 'tuned'}",
             f"--teacher_dir={finetuned.out}", "--augment=1",
             f"--work_dir={tmp_path / 'work'}", f"--report={report_file}"]
    done = run("teachers", *flags)
    # Once for all cells.
    assert done.stderr.count("The teacher reads 96 examples, once") == 1
    table = json.loads(report_file.read_text())["figures"]
    cells = table["runs"]["0"]
    assert list(cells) == ["cross_entropy", "whole", "1x", "1.5x"]
    assert cells["1.5x"]["predicted_speedup"] >= 1.5
    assert cells["1.5x"]["parameters"] < cells["1x"]["parameters"] == (
        cells["whole"]["parameters"])
    assert {cell["augment"] for name, cell in cells.items()
            if name != "cross_entropy"} == {1}
    assert table["points_lost"]["1.5x"] == pytest.approx(100 * (
        cells["cross_entropy"]["accuracy"] - cells["1.5x"]["accuracy"]))
    del table["runs"]["0"]["1.5x"]
    report_file.write_text(json.dumps({**json.loads(report_file.read_text()),
                                       "figures": table}))
    again = run("teachers", *flags)
    assert "Pass 0_retrain" not in again.stderr and "Pass 0_structured" in again.stderr
    assert "The teacher reads" not in again.stderr


def test_a_table_of_a_base_size_model_is_filled(files, finetuned, baseline_of,
                                                tmp_path):
    _, *latencies = baseline_of(3)
    report_file = tmp_path / "table.json"
    shutil.copytree(finetuned.out, tmp_path / "tuned" / "seed_0")
    done = run("base_size", *files.flags, *latencies, "--smoke", "--seeds=0",
               "--points=1.5", "--sparsities=0.5", "--keep_epoch=last",
               "--hour_price=3600", f"--baselines_dir={tmp_path / 'tuned'}",
               f"--report={report_file}")
    table = json.loads(report_file.read_text())["figures"]
    cells = table["runs"]["0"]
    assert list(cells) == ["dense", "int8", "1.5x", "0.5 zeros"]
    assert cells["0.5 zeros"]["nonzeros"] < 0.9 * cells["int8"]["parameters"]
    assert cells["1.5x"]["parameters"] < cells["int8"]["parameters"]
    assert table["cost"] == pytest.approx(3600 * table["hours"])
    assert table["hours"] == pytest.approx(sum(
        cells[name]["hours"] for name in ("int8", "1.5x", "0.5 zeros")))
    assert "In all" in done.stdout


def test_a_way_that_is_not_known_is_refused(files, tmp_path):
    done = run("shrink_table", *files.flags, "--ways=luck", "--seeds=0",
               f"--report={tmp_path / 'table.json'}", status=1)
    assert done.stderr.endswith("Received: ['luck']\n")
