"""A `.tflite` of unknown origin -> opened and run once in a process of its own.

`export.verify` holds a file together; what only an operation's kernel knows, such as a
constant that a shape is computed from, can still end the process, hang it or take all
its memory. `python -m tfopt.export.trial FILE BYTES` is the process that may: within
limits of memory and time.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

from tfopt.types import INPUT_NAMES

# Beyond the file's own size, of which the runtime holds a few copies.
_ROOM_BYTES, _COPIES = 768 << 20, 4
_WAIT_S, _BYTES_PER_S = 15.0, 50e6
_TOKENS = (1, 7)  # of the texts that are tried, where the length is open
_ANSWERED: set[tuple[Path, tuple[int, ...]]] = set()  # files that have passed


def run(path: Path, state: tuple[int, ...]) -> None:
    """Opens a file in a process of its own, and computes two texts; once a process.

    Args:
        path: of the file.
        state: of it, by which it is known again (`litert.state_of`).

    Raises:
        ValueError: that failed, or took too long or too much memory; says how.
    """
    if (path, state) in _ANSWERED:
        return
    size = path.stat().st_size
    places = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tfopt.export.trial", str(path),
             str(_ROOM_BYTES + _COPIES * size)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            timeout=_WAIT_S + size / _BYTES_PER_S, text=True, errors="replace")
    except subprocess.TimeoutExpired as error:
        raise ValueError("A .tflite must answer a text in time. Received: "
                         f"{path}, no answer in {error.timeout:.0f} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:]
        why = (f"signal {-done.returncode}" if done.returncode < 0
               else "".join(said)[:400])
        raise ValueError("A .tflite must open, and answer a text. Received: "
                         f"{path}, which ended its process: {why}")
    _ANSWERED.add((path, state))


def main(path: str, room: int) -> None:
    """Runs a file on a short text and a longer one."""
    from tfopt.export.litert import LiteRT

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + room
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    model = LiteRT(Path(path), num_threads=1)
    for tokens in _TOKENS:
        shape = [1, model.fixed_length or tokens]
        values = {name: np.zeros(shape, np.int32) for name in INPUT_NAMES}
        try:
            model.run(values | {INPUT_NAMES[1]: np.ones(shape, np.int32)})
        except (ValueError, RuntimeError):  # a longer text may be above its positions
            if shape[1] != _TOKENS[1] or model.fixed_length:
                raise


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]))
    except (ValueError, RuntimeError, MemoryError) as failed:
        sys.exit(str(failed) or type(failed).__name__)
