"""The benchmark of speed targets, on a small shape and by tables that are there."""

from __future__ import annotations

import json

import benchmark_runs

from tfopt import model
from tfopt.measure import block_benchmark, latency_table
from tfopt.measure.latency_table import TOKENS, Curve, LatencyTable


def test_targets_are_timed_by_the_tables_and_by_the_machine(tmp_path):
    config = model.named("bert_tiny")
    ms = {"attention": config.num_heads[0], "ffn": config.intermediate_sizes[0]}
    flat = (0.0,) * len(TOKENS)
    files = []
    for threads in (1, 2):
        table = LatencyTable(
            environment=block_benchmark.environment(config, threads,
                                                    "dynamic_wi8_afp32", TOKENS),
            tokens=TOKENS, first_ms=flat, layer_ms=flat, spread=(1.0,),
            interaction=((0, ((0.0, 0.0),)),), medians_spread=0.3, disturbance=1.2,
            **{kind: dict.fromkeys(latency_table.PLACES, Curve(
                sizes=(0, most), ms=(flat, (1.0,) * len(TOKENS))))
               for kind, most in ms.items()})
        files.append(tmp_path / f"{threads}.json")
        files[-1].write_text(table.to_json())
    benchmark_runs.run(
        "speed_targets", "--smoke", "--shape=bert_tiny", "--targets=2",
        f"--latency_tables={files[0]},{files[1]}", f"--report={tmp_path / 'f.json'}")
    found = json.loads((tmp_path / "f.json").read_text())["figures"]
    assert found["neighbours"] == 1 and found["medians_spread"] == [0.3, 0.3]
    assert sum("--retime" in note for note in found["notes"]) >= 2
    target = found["targets"]["2x"]
    assert 1 <= target["structures_timed"] <= 4
    assert target["speedup"] == target["whole_ms"] / target["ms"]
    assert target["speedup_over_target"] == target["speedup"] / 2
    assert target["open_loop"]["predicted_speedup"] >= 2
