"""A request log: read line by line, added up over time, drawn by `tfopt monitor`."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from tfopt.cli import monitor
from tfopt.serve import log_file
from tfopt.serve.observation import Observation
from tfopt.serve.reference import Reference
from tfopt.serve.request_log import RequestLog

FIELDS = {"time": 1000.0, "model": "m", "version": 1, "variant": "1x",
          "milliseconds": 2.0, "queue_ms": 0.5, "confidence": 0.9, "entropy": 0.3,
          "tokens": 7, "unknown": 0, "truncated": False, "label": "good"}


def lines_of(tmp_path, rows, end="\n"):
    path = tmp_path / "requests.jsonl"
    path.write_text("".join(f"{json.dumps(FIELDS | row)}\n" for row in rows) + end)
    return path


def test_a_line_is_read_as_it_was_written(tmp_path):
    path = lines_of(tmp_path, [{}, {"confidence": None, "entropy": None, "label": None,
                                    "text": "secret", "truncated": True}], '{"time": 1')
    one, other = log_file.read(path)
    assert one == log_file.Line(time=1000.0, model="m", variant="1x", milliseconds=2.0,
                                queue_ms=0.5, seen=Observation(
                                    0.9, 0.3, 7, 0, False, "good"))
    assert other.seen == Observation(None, None, 7, 0, True, None)


def test_what_a_service_writes_is_read(tmp_path):
    seen = [Observation(0.9, 0.3, 7, 1, True, "good"), Observation(None, None, 3, 0)]
    log = RequestLog(tmp_path / "requests.jsonl", texts=True)
    log.take([SimpleNamespace(
        when=1000.5, model=SimpleNamespace(name="m", version=2), seconds=0.002,
        answer=SimpleNamespace(variant=SimpleNamespace(name="3x"), queue_s=0.0005),
        text="secret", pair=None, seen=each) for each in seen])
    log.close()
    assert list(log_file.read(tmp_path / "requests.jsonl")) == [log_file.Line(
        time=1000.5, model="m", variant="3x", milliseconds=2.0, queue_ms=0.5,
        seen=each) for each in seen]


@pytest.mark.parametrize("row", [{"time": "now"}, {"tokens": None}, {"label": 3},
                                 {"variant": None}, {"confidence": -1}])
def test_a_line_of_something_else_is_named(tmp_path, row):
    path = lines_of(tmp_path, [{}, row])
    with pytest.raises(ValueError, match=rf"{path}:2: .*"):
        list(log_file.read(path))


def test_what_is_no_log_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must be a file.*none"):
        list(log_file.read(tmp_path / "none"))
    (tmp_path / "a.jsonl").write_text("no\n")
    with pytest.raises(ValueError, match="a.jsonl:1"):
        list(log_file.read(tmp_path / "a.jsonl"))
    with pytest.raises(ValueError, match="Received: none"):
        log_file.panels([])


def test_series_are_those_of_the_lines():
    """100 texts in 100 s: the second half slower, unsure, by another variant."""
    lines = [log_file.Line(
        time=1000.0 + second, model="m", variant="1x" if second < 50 else "3x",
        milliseconds=1.0 + 9 * (second >= 50), queue_ms=0.25, seen=Observation(
            0.9 - 0.4 * (second >= 50), 0.3, 7, int(second % 4 == 0), second >= 50,
            f"label {second % 9}")) for second in range(100)]
    found = {panel.title: panel.series for panel in log_file.panels(lines[::-1])}
    rates = found["texts per second, by variant"]
    assert rates["1x"][0] == pytest.approx(1.0, abs=0.1) and rates["1x"][-1] == 0
    assert rates["3x"][-1] == pytest.approx(1.0, abs=0.1)
    times = found["milliseconds of a request"]
    assert (times["p50"][0], times["p99"][-1]) == (1.0, 10.0)
    assert set(times["p50 in the queue"]) == {0.25}
    assert found["confidence"]["median"][[0, -1]] == pytest.approx([0.9, 0.5])
    labels = found["answers per second, by label"]
    assert len(labels) == 7 and "others" in labels
    assert sum(values.sum() for values in labels.values()) == pytest.approx(
        sum(values.sum() for values in rates.values()))
    shares = found["shares of texts"]
    assert (shares["cut"][0], shares["cut"][-1]) == (0.0, 1.0)
    assert shares["with an unknown piece"][0] == pytest.approx(0.25, abs=0.05)


def test_a_command_prints_and_draws_drift(tmp_path, capsys, monkeypatch):
    random = np.random.default_rng(0)

    def row(second, confident):
        share = float(random.beta(confident, 2))
        return {"time": float(second), "confidence": share, "entropy": 1 - share,
                "tokens": int(random.poisson(20)), "variant": "run"}

    rows = [row(second, 8) for second in range(600)]
    log = lines_of(tmp_path, [*rows, *(row(600 + n, 2) for n in range(400))], "")
    bundle = tmp_path / "run"
    bundle.mkdir()
    (bundle / "bundle.json").write_text('{"figures": {}}')
    Reference.of([line.seen for line in log_file.read(log)][:600]).write(bundle)
    flags = {"log": str(log), "dir": str(bundle), "out": str(tmp_path / "log.png")}
    monkeypatch.setattr(monitor, "FLAGS", type("Flags", (), flags))
    monitor.main()
    said = capsys.readouterr().out
    assert said.startswith("1,000 texts, 1970-01-01")
    line, = [line for line in said.splitlines() if "drift of run" in line
             and "confidence" in line]
    first, _, _, last = (float(cell) for cell in line.split("|")[3:-1])
    assert first < 1 < last
    assert (tmp_path / "log.png").read_bytes().startswith(b"\x89PNG")
