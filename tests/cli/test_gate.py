"""The gate: a report against another, by exit status, words and JUnit's XML."""

from __future__ import annotations

import subprocess
import sys
from xml.etree import ElementTree

import pytest

from tfopt import gate, report
from tfopt.report import Metric
from tfopt.tasks import registry


def rows(accuracy=0.9, p50=1.0, size=100.0, artifact="int8"):
    quality = registry.named("classification").metrics
    return [*report.rows("keras_float32", {"accuracy": 0.95}, "dev", quality),
            *report.rows(artifact, {"accuracy": accuracy}, "dev", quality),
            *report.rows(artifact, {"latency_p50_ms": p50, "file_bytes": size})]


def write(place, name, **figures):
    directory = place / name
    directory.mkdir()
    (directory / "report.json").write_text(report.to_json({}, rows(**figures)))
    return str(directory)


def run(*arguments):
    return subprocess.run([sys.executable, "-m", "tfopt.cli", "gate", *arguments],
                          capture_output=True, text=True)


def test_the_exit_status_says_whether_all_limits_hold(tmp_path):
    base, same = write(tmp_path, "base"), write(tmp_path, "same", accuracy=0.896)
    worse = write(tmp_path, "worse", accuracy=0.88, p50=1.3)
    done = run(base, same, "--max_drop=0.5", "--max_p50_ratio=1.1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("passed: ") == 2
    junit = tmp_path / "new" / "gate.xml"
    done = run("--max_drop=0.5", "--max_p50_ratio=1.1", base, worse,
               f"--junit={junit}")
    assert done.returncode == 2
    assert "FAILED: accuracy (dev) 0.9 -> 0.88, +2 points lost of at most 0.5" in (
        done.stdout)
    suite = ElementTree.parse(junit).getroot()
    assert suite.attrib["failures"] == "2" and len(suite) == 2


@pytest.mark.parametrize(("arguments", "said"), [
    (["{base}", "{missing}", "--max_drop=1"], "--new must be a results directory"),
    (["{base}", "{base}"], "A gate must have a limit"),
    (["{base}", "{base}", "--max_drop=1", "--metric=f2"],
     "--metric must be in the base report, which has accuracy. Received: f2"),
    (["{base}", "{base}", "--max_drop=1", "--new_artifact=int4"],
     "which has keras_float32, int8. Received: int4"),
    (["{base}", "{broken}", "--max_drop=1"], "A report must be what `to_json` wrote"),
    (["{base}", "{base}", "{base}", "--max_drop=1"], "Arguments are given as --flag"),
])
def test_mistakes_are_told(arguments, said, tmp_path):
    (tmp_path / "broken.json").write_text("{")
    names = {"base": write(tmp_path, "base"), "missing": tmp_path / "none",
             "broken": tmp_path / "broken.json"}
    done = run(*(word.format(**names) for word in arguments))
    assert done.returncode == 1 and said in done.stderr, done.stderr


def test_of_an_error_more_is_worse_and_of_a_ratio_the_limit_is_reached():
    error = [Metric("rmse", "", "lower")]
    base, new = (report.rows("a", {"rmse": value}, "dev", error)
                 for value in (0.5, 0.75))
    found, = gate.checks(base, new, gate.Limits(max_drop=0.2))
    assert found.change == pytest.approx(0.25) and not found.passed
    found, = gate.checks(rows(), rows(size=110.0), gate.Limits(max_bytes_ratio=1.1))
    assert found.passed


def test_not_a_number_does_not_pass():
    found, = gate.checks(rows(), rows(p50=float("nan")), gate.Limits(max_p50_ratio=2))
    assert not found.passed
