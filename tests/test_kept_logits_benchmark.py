"""The benchmark of kept logits, on a tiny checkpoint."""

from __future__ import annotations

import json

from scripts import run


def test_memory_disk_and_steps_are_reported(tiny_dir, tmp_path):
    run("kept_logits", f"--model_dir={tiny_dir}", "--smoke", "--classes=5",
        "--max_length=16", "--batch_size=20", f"--report={tmp_path / 'kept.json'}")
    found = json.loads((tmp_path / "kept.json").read_text())["figures"]
    assert found["texts"] == 200 and found["file_mb"] == 200 * 5 * 2 / 1e6
    assert found["peak_anonymous_mb"] >= 0 and found["over_plain"] > 0
    assert set(found["step_ms"]) == {"plain", "kept_logits"}
