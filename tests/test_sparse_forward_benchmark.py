"""The benchmark of a whole model with sparse kernels."""

from __future__ import annotations

import json

import pytest
from benchmark_runs import run

from tfopt import model


def test_both_models_are_timed_by_threads_and_layers(tmp_path):
    path = tmp_path / "report.json"
    name = model.SHAPE_NAMES[0]
    block = 16
    run("sparse_forward", "--smoke", f"--shape={name}", "--tokens=8", "--turns=1",
        f"--block={block}", "--backend=block", f"--report={path}")
    figures = json.loads(path.read_text())["figures"]
    layers = model.named(name).num_layers
    assert list(figures["by_threads_within"]) == ["1", "2"]
    for found in figures["by_threads_within"].values():
        assert found["layers_sparse"] == 6 * layers
        assert found["largest_difference_of_logits"] < 1e-4
        assert set(found["by_kind"]) == {
            "query", "key", "value", "attention", "attention_output", "attention_sum",
            "attention_norm", "intermediate", "ffn_output", "ffn_sum", "ffn_norm"}
    assert figures["speedup"] == pytest.approx(
        figures["dense_ms"] / figures["sparse_ms"])
