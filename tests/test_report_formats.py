"""A report as others read it: parsed again by what reads each format."""

from __future__ import annotations

import base64
import csv
import html.parser
import io
import json

import pytest

from tfopt import report, report_formats, tasks
from tfopt.report import Metric

HERE = {"cpu": "<Z> & co", "command": 'tfopt compress --x="a"'}
ROWS = [*report.rows("keras_float32", {"accuracy": 0.9}, "dev",
                     [Metric("accuracy", "fraction", "higher")]),
        *report.rows("int8", {"accuracy": 0.89}, "dev",
                     [Metric("accuracy", "fraction", "higher")]),
        *report.rows("int8", {"latency_p50_ms": 1.5, "file_bytes": 1e6})]


def test_csv_has_a_figure_a_line():
    lines = list(csv.DictReader(io.StringIO(report_formats.to_csv(ROWS))))
    assert [(line["artifact"], line["metric"], float(line["value"]), line["split"])
            for line in lines] == [(row.artifact, row.metric, row.value, row.split)
                                   for row in ROWS]


def test_benchmark_entries_are_those_of_the_proto():
    from google.protobuf import json_format
    from tensorflow.core.util import test_log_pb2  # what tf.test.Benchmark writes

    fields = json.loads(report_formats.to_benchmark(HERE, ROWS))
    entries = json_format.ParseDict(fields["entries"], test_log_pb2.BenchmarkEntries())
    keras, int8 = entries.entry
    assert (keras.name, keras.wall_time) == ("tfopt.keras_float32", -1.0)
    assert int8.wall_time == pytest.approx(1.5e-3)
    assert {metric.name: metric.value for metric in int8.metrics} == {
        "accuracy_dev": 0.89, "latency_p50_ms": 1.5, "file_bytes": 1e6}


class Page(html.parser.HTMLParser):
    """Texts of cells, sources of pictures, and every address."""

    def __init__(self, text):
        super().__init__()
        self.cells, self.addresses, self._in = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._in = tag
        self.addresses += [value for name, value in attrs
                           if name in ("src", "href", "action")]

    def handle_data(self, data):
        if self._in in ("td", "th", "li", "dd"):
            self.cells.append(data)


def test_the_page_holds_all_and_asks_nobody():
    picture = b"\x89PNG not really"
    page = Page(report_formats.to_html(HERE, ROWS, ["<script>alert(1)</script>"],
                                       {"report.png": picture}))
    assert {"int8", "0.8900", "1.50", "<script>alert(1)</script>", "<Z> & co"} <= {
        *page.cells}
    source, = page.addresses
    assert base64.b64decode(source.removeprefix("data:image/png;base64,")) == picture


def test_the_model_card_has_the_metadata_of_hubs():
    yaml = pytest.importorskip("yaml")
    card = report_formats.model_card(
        HERE, ROWS, task="classification", artifact="int8", notes=["Done."],
        pipeline_tag=tasks.named("classification").pipeline_tag,
        labels=["a: b", "`c`\"---"], base="minilm")
    _, head, body = card.split("---\n", 2)
    fields = yaml.safe_load(head)
    assert fields["pipeline_tag"] == "text-classification"
    result, = fields["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": 0.89}]
    assert "- Done." in body and "`a: b`" in body and "| int8" in body
    for kind in tasks.all_tasks().values():
        assert f'pipeline_tag: "{kind.pipeline_tag}"' in report_formats.model_card(
            HERE, ROWS, task=kind.name(), artifact="int8",
            pipeline_tag=kind.pipeline_tag)
    assert "pipeline_tag" not in report_formats.model_card(
        HERE, ROWS, task="a task of somebody's own", artifact="int8")
