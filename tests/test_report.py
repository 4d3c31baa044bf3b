"""Reports: rows that know their unit, JSON, Markdown, PNG, environment."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys

import pytest

from tfopt import report
from tfopt.tasks.classification import Classification

QUALITY = Classification.metrics

EVERY_METRIC = (
    "accuracy macro_f1 latency_p50_ms latency_spread latency_p90_ms latency_t16_ms "
    "latency_t32_ms latency_t64_ms latency_t128_ms throughput_per_s speedup file_bytes "
    "gzip_bytes peak_rss_bytes num_threads parameters nonzeros bits alpha beta gamma"
).split()


@pytest.fixture
def rows():
    """A baseline and an export, with figures on two splits."""
    return [
        *report.rows("keras_float32", {"accuracy": 0.9, "macro_f1": 0.89}, "dev",
                     QUALITY),
        *report.rows("keras_float32", {"accuracy": 0.88}, "test", QUALITY),
        *report.rows("keras_float32", {"latency_p50_ms": 33.0, "file_bytes": 91e6}),
        *report.rows("dynamic_wi8_afp32", {"accuracy": 0.895}, "dev", QUALITY),
        *report.rows("dynamic_wi8_afp32", {
            "latency_p50_ms": 1.75, "file_bytes": 23_456_789, "speedup": 18.857,
            "parameters": 22_700_000, "gamma": 0.25}),
    ]


@pytest.mark.parametrize(("metric", "unit", "better"), [
    ("accuracy", "fraction", "higher"),
    ("macro_f1", "fraction", "higher"),
    ("latency_p50_ms", "ms", "lower"),
    ("latency_t128_ms", "ms", "lower"),
    ("throughput_per_s", "texts/s", "higher"),
    ("speedup", "", "higher"),
    ("file_bytes", "bytes", "lower"),
    ("gzip_bytes", "bytes", "lower"),
    ("peak_rss_bytes", "bytes", "lower"),
    ("gamma", "", "lower"),
])
def test_rows_know_unit_and_better(metric, unit, better):
    assert report.rows("a", {metric: 2}, "dev", QUALITY) == [
        report.Row("a", metric, 2.0, unit, better, "dev")]


@pytest.mark.parametrize("metric", EVERY_METRIC)
def test_every_promised_metric_is_known(metric):
    row, = report.rows("a", {metric: 1.0}, "", QUALITY)
    assert row.better in ("higher", "lower")
    assert row.split == ""


def test_refuses_an_unknown_metric():
    with pytest.raises(ValueError, match=r"accuracy.*Received: \['fluency'\]"):
        report.rows("a", {"accuracy": 1.0, "fluency": 1.0}, "dev", QUALITY)


@pytest.mark.parametrize("text", [
    "{", "[]", "null", "{}", '{"environment": {}}', '{"environment": 3, "rows": []}',
    '{"environment": {}, "rows": 3}', '{"environment": {}, "rows": [3]}',
    '{"environment": {}, "rows": [{"artifact": "a"}]}', "[" * 100_000,
    *(json.dumps({"environment": {}, "rows": [{
        "artifact": "a", "metric": "b", "value": 1.0, "unit": "", "better": "",
        **wrong}]}) for wrong in ({"value": "1"}, {"value": True}, {"metric": []},
                                  {"split": None}, {"more": 1}))])
def test_a_damaged_report_is_told(text):
    with pytest.raises(ValueError, match="must be what `to_json` wrote. Received: "):
        report.from_json(text)


def test_json_round_trip(rows):
    environment = report.environment(num_threads=2)
    text = report.to_json(environment, rows)
    assert report.from_json(text) == (environment, rows)
    fields = json.loads(text)
    assert set(fields) == {"environment", "rows"}
    assert fields["rows"][0] == {
        "artifact": "keras_float32", "metric": "accuracy", "value": 0.9,
        "unit": "fraction", "better": "higher", "split": "dev"}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_table_is_aligned_and_has_an_artifact_a_line(rows):
    lines = report.table(rows).splitlines()
    assert len(lines) == 2 + 2
    assert len({len(line) for line in lines}) == 1
    bars = [[match.start() for match in re.finditer(r"\|", line)] for line in lines]
    assert bars[0] == bars[1] == bars[2] == bars[3]
    assert set(lines[1]) == set("|-:")


def test_table_shows_figures_in_their_units(rows):
    head, _, baseline, small = map(cells, report.table(rows).splitlines())
    baseline, small = (dict(zip(head, line, strict=True)) for line in (baseline, small))
    assert baseline["artifact"] == "keras_float32"
    assert small["artifact"] == "dynamic_wi8_afp32"
    assert (baseline["latency_p50_ms"], small["latency_p50_ms"]) == ("33.00", "1.75")
    assert (baseline["file_bytes"], small["file_bytes"]) == ("91.00 MB", "23.46 MB")
    assert (baseline["speedup"], small["speedup"]) == ("", "18.86x")


def test_several_splits_make_a_column_each(rows):
    head, _, baseline, small = map(cells, report.table(rows).splitlines())
    assert head[1:4] == ["accuracy (dev)", "accuracy (test)", "macro_f1 (dev)"]
    assert baseline[1:4] == ["0.9000", "0.8800", "0.8900"]
    assert small[1:4] == ["0.8950", "", ""]


def test_one_split_needs_no_name():
    head = cells(report.table(report.rows("a", {"accuracy": 1.0}, "dev", QUALITY))
                 .splitlines()[0])
    assert head == ["artifact", "accuracy"]


def test_markdown_has_notes_both_tables_and_environment(rows):
    text = report.to_markdown({"cpu": "a CPU", "cores": 2}, rows, ["Data: ours."])
    assert "- Data: ours.\n" in text
    assert report.table(rows) in text
    second = report.table(rows, ["parameters", "gamma"])
    assert second in text
    assert "22,700,000" in second
    assert "- cpu: a CPU\n- cores: 2\n" in text


BY_CLASS = {name: {"dev": {
    "a|b": {"precision": 0.5, "recall": 1.0, "f1": f1, "support": 3.0}}}
    for name, f1 in (("keras_float32", 0.75), ("dynamic_wi8_afp32", 0.667))}


def test_figures_of_classes_stand_in_json_and_markdown(rows):
    text = report.to_json({}, rows, BY_CLASS)
    assert json.loads(text)["by_class"] == BY_CLASS
    assert report.from_json(text) == ({}, rows)
    assert "by_class" not in json.loads(report.to_json({}, rows, {}))
    said = report.to_markdown({}, rows, by_class=BY_CLASS)
    *_, head, _, line = said.partition("## Environment")[0].strip().splitlines()
    assert cells(head) == ["class", "split", "precision", "recall", "f1", "support",
                           "f1 of keras_float32"]
    assert cells(line.replace(r"a\|b", "ab")) == ["ab", "dev", "0.500", "1.000",
                                                  "0.667", "3", "0.750"]
    assert "## By class, dynamic_wi8_afp32" in said
    alone = report.to_markdown({}, rows, by_class={
        "keras_float32": BY_CLASS["keras_float32"]})
    assert "f1 of" not in alone and "## By class" not in report.to_markdown({}, rows)


def test_png_is_a_picture(rows):
    picture = report.to_png(rows)
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", picture[16:24])
    assert width > 800 > height > 300


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn."""
    from matplotlib import figure

    made = []

    class Noted(figure.Figure):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(figure, "Figure", Noted)
    return made


def test_the_picture_is_of_the_monitor_and_its_legend_covers_no_point(figures):
    metrics = [report.Metric("pearson", "", "higher"),
               report.Metric("rmse", "", "lower")]
    taken = [row for i in range(9) for row in (
        *report.rows(f"an_artifact_{i}", {"pearson": 0.1 * i, "rmse": 3.0 - i}, "dev",
                     metrics),
        *report.rows(f"an_artifact_{i}", {"latency_p50_ms": 1.0 + i, "file_bytes": 9}))]
    assert report.to_png(taken, monitor="rmse")
    figure, = figures
    axes = figure.axes[0]
    assert axes.get_ylabel() == "rmse, dev" and axes.get_title().startswith("rmse")
    drawn = [tuple(points.get_offsets()[0]) for points in axes.collections]
    assert drawn == [(1.0 + i, 3.0 - i) for i in range(9)]
    assert not axes.get_legend().get_window_extent().overlaps(axes.bbox)
    report.to_png(taken)
    assert figures[1].axes[0].get_ylabel() == "pearson, dev"


def test_a_table_shows_the_metrics_of_any_task():
    metrics = [report.Metric("rmse", "", "lower"),
               report.Metric("pearson", "", "higher")]
    taken = report.rows("a", {"rmse": 0.5, "pearson": 0.25}, "dev", metrics)
    head, _, line = map(cells, report.table(
        [*report.rows("a", {"speedup": 2.0}), *taken]).splitlines())
    assert head == ["artifact", "rmse", "pearson", "speedup"]
    assert line == ["a", "0.5000", "0.2500", "2.00x"]


def test_png_needs_no_figures_that_were_not_taken():
    rows = report.rows("a", {"accuracy": 1.0}, "dev", QUALITY)
    assert report.to_png(rows)[:4] == b"\x89PNG"


def test_no_picture_without_matplotlib(rows, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert report.to_png(rows) is None


def test_environment_says_where_the_figures_are_from():
    here = report.environment(num_threads=2, command="python x.py")
    assert here["cpu"]
    assert here["cores"] == len(os.sched_getaffinity(0))
    assert here["versions"]["tensorflow"].startswith("2.")
    assert set(here["versions"]) == {
        "tensorflow", "tf_keras", "tensorflow-model-optimization", "ai-edge-litert",
        "ai-edge-quantizer", "numpy"}
    assert re.fullmatch(r"[\w.-]+", here["commit"])
    assert re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\+00:00$", here["time"])
    assert (here["num_threads"], here["command"]) == (2, "python x.py")


def test_commit_is_what_git_says(monkeypatch):
    said = subprocess.CompletedProcess([], 0, stdout="0123456789ab-dirty\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: said)
    assert report.environment()["commit"] == "0123456789ab-dirty"


def test_commit_is_unknown_outside_of_a_checkout(monkeypatch):
    def fail(*args, **kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", fail)
    assert report.environment()["commit"] == "unknown"


def test_the_report_imports_no_tensorflow():
    code = "import sys, tfopt.report; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
