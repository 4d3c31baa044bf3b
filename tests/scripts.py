"""Runs commands and scripts: within this process, or as a process of their own."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from absl import flags
from absl import logging as absl_logging

from tfopt import report

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
# The tiny checkpoint has 64 positions, so that there is no latency_t128_ms.
METRICS = {
    "accuracy", "macro_f1", "latency_p50_ms", "latency_p90_ms", "latency_t16_ms",
    "latency_t32_ms", "latency_t64_ms", "throughput_per_s", "file_bytes", "gzip_bytes",
    "parameters", "nonzeros", "bits", "peak_rss_bytes", "speedup", "alpha", "beta",
    "gamma", "num_threads"}
TIMED = {metric for metric in METRICS if metric.startswith("latency_")} | {
    "throughput_per_s", "peak_rss_bytes", "num_threads"}
# A single round has no spread; several have.
SEVERAL_ROUNDS = METRICS | {"latency_spread"}
STEPS_PER_EPOCH, EPOCHS = 6, 40  # of the run that is killed
COMMANDS = ("compress", "finetune", "measure", "predict", "tokenizer", "bench")


def path_of(script: str) -> Path:
    """The file of a script, by its name alone, or by its folder and name."""
    found = [EXPERIMENTS / f"{script}.py", *EXPERIMENTS.rglob(f"{script}.py")]
    return next(path for path in found if path.exists())


def constant_times(artifacts, *_, **__) -> dict[str, dict[str, float]]:
    """In place of `pipeline.timing.times`, which starts processes with TensorFlow."""
    return {name: dict.fromkeys(TIMED, 1.0) for name in artifacts}


def call(script: str, *arguments, status: int | None = None, stdin: str | None = None,
         timed: bool = True) -> SimpleNamespace:
    """Runs a command's or script's main in this process, with flags of its own.

    Args:
        script: its name.
        *arguments: flags.
        status: the exit status that is expected; None for any.
        stdin: what standard input holds.
        timed: whether artifacts are timed; else all take the same time.

    Returns:
        status, stdout, stderr with what was logged.
    """
    from tfopt.cli import ending

    name = f"tfopt.cli.{script}" if script in COMMANDS else script
    module = importlib.import_module(name)
    before, argv, standard = set(flags.FLAGS), sys.argv, sys.stdin
    sys.argv = [f"{script}.py", *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(err)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log, verbosity = logging.getLogger("absl"), absl_logging.get_verbosity()
    if stdin is not None:
        sys.stdin = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
    module.define_flags()
    own = set(flags.FLAGS) - before
    log.addHandler(handler)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), (
                contextlib.nullcontext() if timed
                else mock.patch("tfopt.pipeline.timing.times", constant_times)):
            arguments = flags.FLAGS(sys.argv)  # which sets the verbosity
            absl_logging.set_verbosity(absl_logging.INFO)
            ended = ending.guard(module.main)(arguments)
    finally:
        sys.argv, sys.stdin = argv, standard
        log.removeHandler(handler)
        absl_logging.set_verbosity(verbosity)
        for flag in own:
            delattr(flags.FLAGS, flag)
    done = SimpleNamespace(status=ended, stdout=out.getvalue(), stderr=err.getvalue())
    assert status in (None, ended), done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done


def command(script: str, *arguments) -> list[str]:
    """The command line of a script."""
    return [sys.executable, str(path_of(script)), *map(str, arguments)]


def process(script: str, *arguments, status: int = 0, **options
            ) -> subprocess.CompletedProcess:
    """Runs a script as a process to its end, and checks its exit status."""
    done = subprocess.run(command(script, *arguments), capture_output=True, text=True,
                          check=False, timeout=1800, **options)
    assert done.returncode == status, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done


def run(script: str, *arguments, status: int | None = 0, **options) -> SimpleNamespace:
    """As `call`, and checks the exit status."""
    return call(script, *arguments, status=status, **options)


def figures(path: Path) -> dict[tuple[str, str, str], float]:
    """(artifact, metric, split) -> value, of a report.json."""
    _, rows = report.from_json(path.read_text())
    return {(row.artifact, row.metric, row.split): row.value for row in rows}
