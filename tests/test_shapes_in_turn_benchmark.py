"""The benchmark of shapes and files that are timed in turn."""

from __future__ import annotations

import json

from benchmark_runs import run

from tfopt import model
from tfopt.export import tflite


def test_shapes_and_files_are_held_against_the_first(tmp_path):
    texts, report = tmp_path / "texts.txt", tmp_path / "report.json"
    texts.write_text("a text\nand another one\n", encoding="utf-8")
    file = tmp_path / "vectors.tflite"
    file.write_bytes(tflite.convert(model.build(
        model.named("bert_tiny"), model.Head(outputs=None, reads="mean", pooler=None))))
    run("shapes_in_turn", "--smoke", "--shapes=bert_tiny", f"--files={file}",
        f"--text_file={texts}", "--rounds=2", "--num_threads=1", f"--report={report}")
    figures = json.loads(report.read_text(encoding="utf-8"))["figures"]
    assert list(figures["ratio"]) == ["bert_tiny", str(file)] == list(figures["p50_ms"])
    assert figures["ratio"]["bert_tiny"] == 1.0 and figures["ratio"][str(file)] > 0
