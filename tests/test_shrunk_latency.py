"""The benchmark of pruned structures: what it times, reports, and goes on with."""

from __future__ import annotations

import importlib
import json
from types import SimpleNamespace

import pytest
from benchmark_runs import BENCHMARKS, run

from tfopt import model
from tfopt.measure import block_benchmark, latency_table
from tfopt.measure.latency_table import TOKENS, Curve, LatencyTable

HALF = {"num_heads": [2, 0, 1], "intermediate_sizes": [16, 8, 0]}
TWO_LAYERS = {"num_heads": [4, 4], "intermediate_sizes": [64, 64]}
THIRD = {"num_heads": [1, 1, 1], "intermediate_sizes": [8, 8, 8]}
RUNS = {"0": {"unpruned": {"accuracy": 0.9}, "2x": HALF | {"accuracy": 0.8}},
        "1": {"2x": TWO_LAYERS | {"accuracy": 0.7}, "same": HALF}}


@pytest.fixture
def flags(tmp_path, tiny_dir) -> list[str]:
    """A table of runs, more structures, and latency tables: a token takes 1 or 2 ms."""
    config = model.config_of(model.load(tiny_dir))
    blocks = {kind: {place: Curve(sizes=(0, most), ms=((0.0,) * len(TOKENS),) * 2)
                     for place in latency_table.PLACES}
              for kind, most in (("attention", max(config.num_heads)),
                                 ("ffn", max(config.intermediate_sizes)))}
    for count, token_ms in ((1, 1.0), (2, 2.0)):
        table = LatencyTable(
            environment=block_benchmark.environment(config, count, "dynamic_wi8_afp32",
                                                TOKENS),
            tokens=TOKENS, first_ms=tuple(token_ms * tokens for tokens in TOKENS),
            layer_ms=(0.0,) * len(TOKENS), interaction=((0, ((0.0, 0.0), (1e9, 1e9))),),
            spread=(1.0,), **blocks)
        (tmp_path / f"latency_{count}.json").write_text(table.to_json())
    (tmp_path / "shrink.json").write_text(json.dumps({"figures": {"runs": RUNS}}))
    (tmp_path / "more.json").write_text(json.dumps({"third": THIRD}))
    (tmp_path / "dev.tsv").write_text(
        "text\tlabel\n" + "it is a good one\tyes\nnot it\tno\nbad\tno\n")
    return ["--smoke", f"--model_dir={tiny_dir}",
            f"--latency_tables={tmp_path / 'latency_1.json'},"
            f"{tmp_path / 'latency_2.json'}",
            f"--tables={tmp_path / 'shrink.json'}",
            f"--structures={tmp_path / 'more.json'}",
            f"--report={tmp_path / 'report.json'}"]


def test_structures_are_timed_beside_the_unpruned_model(flags, tmp_path, tiny_dir):
    flags += [f"--dev_file={tmp_path / 'dev.tsv'}", "--keras_padded=64", "--group=2",
              f"--picture={tmp_path / 'p.png'}"]
    done = run("shrunk_latency", *flags)
    report = json.loads((tmp_path / "report.json").read_text())
    figures = report["figures"]
    assert {name: found["names"] for name, found in figures["structures"].items()} == {
        "2x, seed 0": ["2x, seed 0", "same, seed 1"], "2x, seed 1": ["2x, seed 1"],
        "third": ["third"]}
    unpruned, keras = figures["unpruned"], figures["keras_padded"]
    assert unpruned["speedup"] == unpruned["predicted_speedup"] == 1
    assert keras["tokens"] == 64 and keras["over_unpruned"] > 1
    config = model.config_of(model.load(tiny_dir))
    for name, sizes in (("2x, seed 0", HALF), ("2x, seed 1", TWO_LAYERS),
                        ("third", THIRD)):
        found = figures["structures"][name]
        assert {key: found[key] for key in sizes} == sizes
        assert found["file_bytes"] < unpruned["file_bytes"]
        assert found["p50_ms"] > 0 and found["speedup"] > 0
        assert set(found["p50_ms_by_threads"]) == {"1", "2"}
        assert found["p50_ms"] == min(found["p50_ms_by_threads"].values())
        # The median of the three texts; a weight takes 1 ms.
        own = config.replace(**sizes)
        weights = own.hidden_size * (4 * own.head_size * sum(own.num_heads)
                                     + 2 * sum(own.intermediate_sizes))
        assert found["predicted_ms"] == pytest.approx(4 + weights, abs=2)
        assert found["predicted_over_measured"] == pytest.approx(
            found["predicted_ms"] / found["p50_ms"])
        assert found["predicted_speedup"] == pytest.approx(
            unpruned["predicted_ms"] / found["predicted_ms"])
        assert f"{name:32}" in done.stdout
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    # The unpruned model of each group: two of the first, one of the second.
    of_groups = [found["unpruned_p50_ms"] for found in figures["structures"].values()]
    assert of_groups[0] == of_groups[1] == unpruned["p50_ms"] != of_groups[2]

    del figures["structures"]["third"]  # as if it was killed after the first group
    (tmp_path / "report.json").write_text(json.dumps(report))
    again = run("shrunk_latency", *flags)
    after = json.loads((tmp_path / "report.json").read_text())["figures"]
    # That one and the unpruned model; the first group has three files.
    assert "Exported 2 of 2" in again.stderr
    assert "Exported 3 of 3" not in again.stderr
    kept = after["structures"].pop("third")
    assert kept["num_heads"] == THIRD["num_heads"]
    assert after == figures


def test_another_export_at_a_fixed_length_has_no_prediction(flags, tmp_path):
    run("shrunk_latency", *flags, "--tables=", "--tokens=5", "--scheme=float32",
        "--nopredict")
    figures = json.loads((tmp_path / "report.json").read_text())["figures"]
    assert figures["mean_tokens"] == 5 and figures["num_threads"] == 2
    found = figures["structures"]["third"]
    assert set(found) == {"names", "num_heads", "intermediate_sizes", "p50_ms",
                          "p50_ms_by_threads", "speedup", "file_bytes",
                          "unpruned_p50_ms"}


@pytest.fixture
def script(monkeypatch, tmp_path):
    """The script as a module, and what sets its flags."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("shrunk_latency")

    def given(**values):
        monkeypatch.setattr(module, "FLAGS", SimpleNamespace(**{
            "tables": [], "structures": None, "tokens": None, "dev_file": None,
            "keras_padded": None, "picture": None, "scheme": "float32",
            "predict": False} | values))

    return SimpleNamespace(module=module, given=given)


@pytest.mark.parametrize(("tables", "message"), [
    ([], "must hold a structure. Received: --tables=\\[\\]"),
    (["latency_1.json"], "must be JSON with structures. Received: .*latency_1.json"),
    (["shrink.json", "other.json"], "must not have one name.*Received: .*2x, seed 0")])
def test_structures_need_a_table_and_a_name(flags, script, tmp_path, tables, message):
    (tmp_path / "other.json").write_text(json.dumps(
        {"figures": {"runs": {"0": {"2x": THIRD}}}}))
    script.given(tables=[str(tmp_path / name) for name in tables])
    with pytest.raises(ValueError, match=message):
        script.module.structures()


@pytest.mark.parametrize(("values", "message"), [
    ({"tokens": 65}, "64 positions. Received: 65 tokens"),
    ({"tokens": 8, "keras_padded": 128}, "64 positions. Received: 128 tokens"),
    ({"tokens": 8, "dev_file": "a"}, "takes the place of.*--tokens=8, --dev_file=a")])
def test_texts_are_named_once_and_fit_the_model(script, values, message):
    script.given(**values)
    config = model.named("bert_tiny", vocab_size=60, max_positions=64)
    with pytest.raises(ValueError, match=message):
        script.module.texts(config)


@pytest.mark.parametrize(("values", "received"), [
    ({"picture": "p.png"}, "--nopredict"), ({"predict": True}, "--scheme=float32")])
def test_predictions_are_of_one_export(script, values, received):
    script.given(**values)
    with pytest.raises(ValueError, match=f"Received: {received}"):
        script.module.main()
