"""Several workers of one machine: processes with a TF_CONFIG each."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import tfopt

HOME = Path(tfopt.__file__).parents[1]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    try:
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def start(ports: Sequence[int], index: int, *arguments) -> subprocess.Popen:
    """Starts Python, with these arguments, as one of the workers of these ports."""
    environment = {**os.environ, "TF_CONFIG": json.dumps({
        "cluster": {"worker": [f"localhost:{port}" for port in ports]},
        "task": {"type": "worker", "index": index}}),
        "PYTHONPATH": f"{HOME}:{HOME / 'experiments'}", "CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)], env=environment, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def end_of(workers: Sequence[subprocess.Popen], timeout: float = 480.0) -> list[str]:
    """What workers said on stderr, once they ended well; none is left behind."""
    try:
        said = [worker.communicate(timeout=timeout)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0] * len(workers), (
        said[0][-3000:])
    return said
