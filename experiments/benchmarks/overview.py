"""Draws docs/overview.png: accuracy against time of a request, from the results here.

    python experiments/benchmarks/overview.py

Cost: a second; reads `experiments/results`, measures nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments" / "results"
PICTURE = ROOT / "docs" / "overview.png"
BELOW = {"ONNX Runtime int8", "ONNX Runtime float32", "1.5x, no training", "5x"}


def figures(name: str) -> dict:
    """The figures of a results file."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))["figures"]


def others() -> dict[str, tuple[float, float]]:
    """Name -> (p50 in ms, dev accuracy) of what one would run without tfopt."""
    report = json.loads((RESULTS / "sst2_report.json").read_text(encoding="utf-8"))
    keras = {row["metric"]: row["value"] for row in report["rows"]
             if row["artifact"] == "keras_float32"}
    points = {"Keras float32": (keras["latency_p50_ms"], keras["accuracy"])}
    found = figures("latency_vs_onnxruntime.json")
    for key, label in {"onnxruntime_float32": "ONNX Runtime float32",
                       "onnxruntime_int8": "ONNX Runtime int8",
                       "by_hand_dynamic_wi8_afp32": "LiteRT int8, by hand"}.items():
        points[label] = (found["latency"][key]["p50_ms"], found["accuracy"][key])
    return points


def ours() -> dict[str, tuple[float, float]]:
    """The same of tfopt's int8 files, by structure: means of three seeds."""
    accuracy = figures("sst2_shrink_gpu.json")["means"]
    timed = figures("sst2_shrunk_latency.json")["structures"]
    whole = [found["unpruned_p50_ms"] for found in timed.values()]
    points = {"int8": (sum(whole) / len(whole), accuracy["unpruned"]["accuracy"])}
    for way, label in {"1.55x post_training": "1.5x, no training",
                       "2.15x distilled": "2x", "3.2x distilled": "3x",
                       "5.2x distilled": "5x"}.items():
        times = [found["p50_ms"] for name, found in timed.items()
                 if name.startswith(f"{way}, ")]
        points[label] = (sum(times) / len(times), accuracy[way]["accuracy"])
    return points


def draw() -> Figure:
    """Both as points, the time on a logarithmic axis."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    for points, label, color in ((others(), "without tfopt", "tab:gray"),
                                 (ours(), "tfopt, int8", "tab:blue")):
        times, accuracies = zip(*points.values(), strict=True)
        axes.plot(times, accuracies, "o-" if label.startswith("tfopt") else "o",
                  color=color, label=label)
        for name, (time, accuracy) in points.items():
            axes.annotate(name, (time, accuracy), (4, -12 if name in BELOW else 6),
                          textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.set_xticks([0.25, 0.5, 1, 2, 4, 10], ["0.25", "0.5", "1", "2", "4", "10"])
    axes.minorticks_off()
    axes.set(xlabel="ms a sentence (p50, two cores)", ylabel="dev accuracy",
             title="MiniLM-L6 on SST-2", ylim=(0.855, 0.91), xlim=(0.2, 20))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


if __name__ == "__main__":
    draw().savefig(PICTURE, dpi=110)
