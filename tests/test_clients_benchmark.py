"""The benchmark of metadata and clients: its part that needs no MediaPipe."""

from __future__ import annotations

import json
import shutil

from scripts import run


def test_metadata_change_no_logit_and_one_scale_is_judged(tiny_dir, tmp_path):
    directory, report = tmp_path / "model", tmp_path / "report.json"
    shutil.copytree(tiny_dir, directory)
    (directory / "labels.txt").write_text("bad\nfine\ngood\n")
    (tmp_path / "dev.tsv").write_text(
        "text\tlabel\na great film\tgood\nit was not really good\tbad\nthe\tfine\n")
    run("clients_vs_tfopt", "--smoke", f"--model_dir={directory}",
        f"--eval_file={tmp_path / 'dev.tsv'}", "--clients_python=",
        f"--report={report}")
    figures = json.loads(report.read_text())["figures"]
    names = ["dynamic_wi8_afp32", "float32", "dynamic_wi8_afp32_one_scale"]
    assert figures["logits_identical"] == dict.fromkeys(names, True)
    assert list(figures["quality"]) == names
    assert figures["quality"]["float32"]["other_than_float32"] == 0
    sizes = figures["files"]
    assert all(0 < one["growth_bytes"] < 4_000 for one in sizes.values())
    int8, float32, one_scale = (sizes[name]["bytes"] for name in names)
    assert one_scale < int8 < float32  # one scale in place of one for each row
    assert "in_turn" not in figures and "agreement" not in figures
