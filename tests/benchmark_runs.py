"""Runs a script of experiments/benchmarks, as a user would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "experiments" / "benchmarks"


def run(script: str, *flags) -> subprocess.CompletedProcess:
    """The process, ended well."""
    done = subprocess.run([sys.executable, BENCHMARKS / f"{script}.py",
                           *map(str, flags)], check=False, capture_output=True,
                          text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done
