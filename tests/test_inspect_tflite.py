"""The inspector of `.tflite` files, against counts and bytes made by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import inspect_tflite
import litert_profile
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from test_bad_input import assert_told, call

from tfopt import model as models
from tfopt.backend import tf
from tfopt.export import flatbuffer, tflite

LAYERS, WIDTH, FFN, VOCABULARY = 2, 32, 64, 103


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """Scheme -> path of a small BERT; "other" -> one of y = 2 x in three rows."""
    place = tmp_path_factory.mktemp("files")
    bert = models.build(models.EncoderConfig.uniform(
        hidden_size=WIDTH, num_layers=LAYERS, num_heads=2, intermediate_size=FFN,
        vocab_size=VOCABULARY, max_positions=40), models.Head(outputs=3))
    made = {scheme: tflite.convert(bert, scheme)
            for scheme in ("float32", "float16", "dynamic_wi8_afp32")}
    twice = tf.function(lambda x: 2.0 * x, [tf.TensorSpec([3, 5], tf.float32)])
    made["other"] = tf.lite.TFLiteConverter.from_concrete_functions(
        [twice.get_concrete_function()]).convert()
    for name, contents in made.items():
        (place / f"{name}.tflite").write_bytes(contents)
    return {name: str(place / f"{name}.tflite") for name in made}


@pytest.fixture(scope="module")
def reports(files, tmp_path_factory) -> dict[str, SimpleNamespace]:
    """Scheme -> what the script printed, and the figures that it wrote."""
    done = {}
    for name, path in files.items():
        report = tmp_path_factory.mktemp("report") / "new" / "figures.json"
        ran = call("inspect_tflite", f"--artifact={path}", f"--report={report}",
                   "--tokens=12", "--repeats=3", "--num_threads=1")
        assert ran.status == 0, ran.err
        done[name] = SimpleNamespace(out=ran.out, **json.loads(report.read_text()))
    return done


def count(figures: dict, **wanted) -> int:
    """How many operations have some properties."""
    return sum(row["count"] for row in figures["operations"]
               if all(row[key] == value for key, value in wanted.items()))


@pytest.mark.parametrize(("scheme", "kind", "arithmetic", "weights"), [
    ("float32", "FULLY_CONNECTED", "float", "float32"),
    ("dynamic_wi8_afp32", "FULLY_CONNECTED", "hybrid", "int8")])
def test_matrix_products_are_counted(reports, scheme, kind, arithmetic, weights):
    """Query, key, value, attention's output, two of the FFN; pooler and classifier."""
    figures = reports[scheme].figures
    assert count(figures, kind=kind) == 6 * LAYERS + 2
    # The classifier of 3 x 32 weights is too small for the converter to quantize.
    assert count(figures, kind=kind, arithmetic=arithmetic, weights=weights,
                 activations="float32", outputs="float32") >= 6 * LAYERS + 1
    assert count(figures, kind="BATCH_MATMUL", weights="") == 2 * LAYERS
    assert count(figures, kind="SOFTMAX", arithmetic="float") == LAYERS
    assert sum(figures["arithmetic"].values()) == count(figures)


@pytest.mark.parametrize(("kind", "inputs", "weights", "outputs", "expected"), [
    ("FULLY_CONNECTED", {"int8"}, "int8", {"int8"}, "integer"),
    ("FULLY_CONNECTED", {"float32"}, "int4", {"float32"}, "hybrid"),
    ("FULLY_CONNECTED", {"float32"}, "float16", {"float32"}, "float"),
    ("EMBEDDING_LOOKUP", {"int32"}, "int8", {"float32"}, "hybrid"),
    ("GATHER", {"int32"}, "int8", {"int8"}, "integer"),
    ("QUANTIZE", {"float32"}, "", {"int8"}, "conversion"),
    ("QUANTIZE", {"int8"}, "", {"int8"}, "conversion"),
    ("DEQUANTIZE", set(), "float16", {"float32"}, "conversion"),
    ("CAST", {"int32"}, "", {"float32"}, "float"),
    ("SHAPE", {"float32"}, "", {"int32"}, "index"),
])
def test_arithmetic(kind, inputs, weights, outputs, expected):
    assert inspect_tflite.arithmetic(kind, inputs, weights, outputs) == expected


def test_the_largest_constant_is_the_embedding_table(reports):
    for scheme, dtype, size in (("float32", "float32", 4), ("float16", "float16", 2),
                                ("dynamic_wi8_afp32", "int8", 1)):
        table = reports[scheme].figures["constants"][0]
        assert table["shape"] == [VOCABULARY, WIDTH]
        assert (table["dtype"], table["bytes"]) == (dtype, VOCABULARY * WIDTH * size)
    assert table["scales"] >= 1
    kernels = [c for c in reports["dynamic_wi8_afp32"].figures["constants"]
               if c["dtype"] == "int8" and c["shape"] == [FFN, WIDTH]]
    assert [(c["scales"], c["scale_of"]) for c in kernels] == [
        (FFN, "channel")] * LAYERS


def test_bytes_add_up_to_the_file(reports, files):
    for name, report in reports.items():
        figures = report.figures
        assert figures["file_bytes"] == Path(files[name]).stat().st_size
        assert sum(c["bytes"] for c in figures["constants"]) == sum(
            figures["bytes_by_dtype"].values())
        assert figures["structure_bytes"] > 0
        assert (figures["structure_bytes"] + figures["quantization_bytes"] + sum(
            figures["bytes_by_dtype"].values())) == figures["file_bytes"]
    assert reports["float32"].figures["quantization_bytes"] == 0
    figures = reports["dynamic_wi8_afp32"].figures
    looked_up = count(figures, kind="GATHER", outputs="int8")  # with its table's scale
    scales = sum(c["scales"] for c in figures["constants"]) + looked_up
    # A float32 scale and an int64 zero point each.
    assert figures["quantization_bytes"] == 12 * scales


def test_a_buffer_of_two_tensors_is_counted_once(files):
    contents, model = inspect_tflite.read(files["other"])
    before = inspect_tflite.sizes(contents, model)
    assert before["bytes_by_dtype"] == {"float32": 4}
    graph = model.subgraphs[0]
    graph.tensors += [t for t in graph.tensors
                      if flatbuffer.stored(model, t) is not None]
    assert inspect_tflite.sizes(contents, model) == before


def test_scales_of_blocks():
    table, known = schema.TensorT(), schema.TensorT()
    known.shape = np.array([8, 3])
    table.quantization = schema.QuantizationParametersT()
    table.quantization.detailsType = (
        schema.QuantizationDetails.BlockwiseQuantization)
    table.quantization.details = schema.BlockwiseQuantizationT(scales=1, blockSize=32)
    graph = schema.SubGraphT()
    graph.tensors = [table, known]
    assert inspect_tflite.scales(graph, table) == (24, "blocks of 32")
    assert inspect_tflite.scales(graph, known) == (0, "none")


@pytest.mark.parametrize("scheme", ["float32", "float16", "dynamic_wi8_afp32", "other"])
def test_xnnpack_took_and_left_every_operation(reports, scheme):
    """What it left by the graph's borders is what LiteRT's profiler saw it not run."""
    figures = reports[scheme].figures
    taken, left = figures["xnnpack"]["taken"], figures["xnnpack"]["left"]
    for kind in {row["kind"] for row in figures["operations"]}:
        assert taken.get(kind, 0) + left.get(kind, 0) == count(figures, kind=kind)
    assert left == {row["kind"]: row["count"] for row in figures["operations_ms"]
                    if row["by"] == "LiteRT"}
    assert figures["xnnpack"]["parts"] >= 1
    assert taken.get("FULLY_CONNECTED", 0) == count(figures, kind="FULLY_CONNECTED")


def test_without_xnnpack_nothing_is_taken(files):
    interpreter, values, outputs = litert_profile.start(
        files["float32"], 12, 1, xnnpack=False)
    found = litert_profile.delegation(interpreter)
    assert (found["parts"], found["taken"]) == (0, {})
    assert found["left"]["FULLY_CONNECTED"] == 6 * LAYERS + 2
    assert {name: value.shape for name, value in values.items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "token_type_ids"), (1, 12))
    assert outputs["logits"].shape == (1, 3)


def test_times(reports):
    figures = reports["dynamic_wi8_afp32"].figures
    assert set(figures["request_ms"]) == {"with XNNPACK", "without"}
    assert min(figures["request_ms"].values()) > 0
    products = [row for row in figures["operations_ms"]
                if row["kind"].startswith("Fully Connected")]
    assert sum(row["count"] for row in products) == 6 * LAYERS + 2
    assert all(row["by"] == "XNNPACK" for row in products)
    assert "whole microseconds" in figures["not_told"][0]


def test_times_are_read_from_the_summary():
    """3000 us of 10 requests: a quarter and three quarters of 0.3 ms each."""
    summary = "\n".join([
        "==== Summary by node type ====",
        "  [Node type]  [count]  [avg ms]  [avg %]  [cdf %]  [mem KB]  [times called]",
        "  Delegate/Softmax (NC, F32)  6  0.004  75.000%  75.000%  0.000  60",
        "  GATHER  2  0.037  25.000%  100.000%  0.000  20",
        "", "Delegate/Softmax (NC, F32)  60  1  2  3  4  5",
        "Timings (microseconds): count=8 curr=3000"])
    first, second = litert_profile.times(summary, 10)
    assert first == {"by": "XNNPACK", "kind": "Softmax (NC, F32)", "count": 6,
                     "ms": pytest.approx(0.225)}
    assert second == {"by": "LiteRT", "kind": "GATHER", "count": 2,
                      "ms": pytest.approx(0.075)}


def test_a_runtime_without_profiler_is_told(files, monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(
        returncode=-11, stdout="", stderr="one\nno such symbol\n"))
    told = litert_profile.runtime(files["other"], 12, 1, 2)
    assert told["operations_ms"] == []
    assert told["not_told"][0] == ("LiteRT tells no times per operation: status -11, "
                                   "no such symbol")


def test_a_file_that_does_not_run_is_inspected_all_the_same(files, tmp_path):
    """A product of one factor, which LiteRT refuses to prepare."""
    model = flatbuffer.parse(Path(files["other"]).read_bytes())
    model.subgraphs[0].operators[0].inputs = np.array([0], np.int32)
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(flatbuffer.serialize(model))
    done = call("inspect_tflite", f"--artifact={broken}", "--repeats=2")
    assert done.status == 0, done.err
    assert "MUL" in done.out
    assert "LiteRT does not run it with XNNPACK" in done.out
    assert "LiteRT tells no times per operation" in done.out


def test_the_report_holds_what_is_printed(reports):
    report = reports["dynamic_wi8_afp32"]
    assert "inspect_tflite.py" in report.environment["command"]
    assert str(report.figures["file_bytes"]) in report.out
    for row in report.figures["operations"]:
        assert row["kind"] in report.out
    for sentence in report.figures["not_told"]:
        assert sentence in report.out


@pytest.mark.parametrize(("arguments", "expected"), [
    (["s.py", "a.tflite"], ["s.py", "--artifact=a.tflite"]),
    (["s.py", "--smoke=1", "a.tflite"], ["s.py", "--smoke=1", "--artifact=a.tflite"]),
    (["s.py", "--report", "r.json"], ["s.py", "--report", "r.json"]),
    (["s.py", "a", "b"], ["s.py", "--artifact=a", "b"]),
])
def test_a_file_alone_is_the_artifact(arguments, expected):
    assert inspect_tflite.as_flags(arguments) == expected


def test_as_a_process(files):
    done = subprocess.run([sys.executable, inspect_tflite.__file__, files["other"],
                           "--smoke"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "MUL" in done.stdout


@pytest.mark.parametrize(("contents", "words"), [
    (None, ["cannot be read", "No such file"]),
    (b"", ["must be a .tflite"]),
    (b"# no model at all\n", ["must be a .tflite"]),
    (b"\x1c\0\0\0TFL3", ["truncated or damaged"]),
])
def test_what_is_no_tflite(contents, words, tmp_path):
    file = tmp_path / "model.tflite"
    if contents is not None:
        file.write_bytes(contents)
    done = call("inspect_tflite", f"--artifact={file}", "--report=/nowhere/r.json")
    assert_told(done, "inspect_tflite", str(file), *words)
    assert len(done.err.splitlines()) == 1
    assert done.out == ""


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file(part, files, tmp_path):
    whole = Path(files["float32"]).read_bytes()
    file = tmp_path / "model.tflite"
    file.write_bytes(whole[:int(part * len(whole))])
    done = call("inspect_tflite", f"--artifact={file}")
    assert_told(done, "inspect_tflite", str(file))
    assert done.out == ""
