"""MediaPipe in environments of its own, asked as a process that is timed.

`make test-clients` makes the environments. MediaPipe 1.2 wants absl-py 2.3, which
tensorflow-model-optimization does not take: hence apart.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from tfopt.measure.process import TimedProcess

ROOT = Path(__file__).parents[2]
WORKER = ROOT / "experiments" / "benchmarks" / "mediapipe_worker.py"


def python_of(environment: str) -> Path:
    """The Python of an environment; skips the test where there is none."""
    found = ROOT / environment / "bin" / "python"
    if not found.exists():
        pytest.skip(f"{environment} is not there: make test-clients makes it, where "
                    "MediaPipe has a wheel for this Python")
    return found


@contextlib.contextmanager
def client(file: Path, kind: str = "classify", environment: str = ".venv-clients"):
    """Opens a file in MediaPipe; gives a process that is asked texts."""
    process = TimedProcess([python_of(environment), WORKER, file, kind])
    try:
        yield process
    finally:
        process.close()


def scores(process: TimedProcess, texts) -> np.ndarray:
    """Scores <float>[N, C] of texts."""
    return np.array(process.ask(texts=list(texts))["scores"])
