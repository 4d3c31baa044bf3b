"""`tfopt serve` in a process of its own: for benchmarks, and for tests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path


class ServerProcess:
    """A server on a free port; a context manager, at whose end it is gone.

    Args:
        *arguments: of `tfopt serve`.
        environment: variables of the process; None for those of this one.

    Attributes:
        process: of it.
        said: what it has logged.
        address: of the server: "http://127.0.0.1:1234".
        place: host and port.
        started_s: seconds from its start until it took a connection.

    Raises:
        ValueError: it ended before; holds what it said.
    """

    def __init__(self, *arguments, environment: Mapping[str, str] | None = None):
        begun = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tfopt.cli", "serve", *map(str, arguments),
             "--port=0"], stderr=subprocess.PIPE, text=True, env=environment)
        self.said = ""
        while not (found := re.search(r"on http://(\S+):(\d+)", self.said)):
            line = self.process.stderr.readline()
            if not line:
                self.process.wait()
                self.process.stderr.close()
                raise ValueError(f"The server must start. Received: {self.said}")
            self.said += line
        self.started_s = time.perf_counter() - begun
        self.place = found[1], int(found[2])
        self.address = f"http://{found[1]}:{found[2]}"
        # What is not read would fill the pipe, and hold the process.
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            self.said += line

    def __enter__(self) -> ServerProcess:
        """Returns itself."""
        return self

    def __exit__(self, *_) -> None:
        """Ends the process, if it lives."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stderr.close()

    def ask(self, path: str = "/predict", **body) -> dict:
        """The object that is answered to one, by POST; or to none, by GET."""
        request = urllib.request.Request(self.address + path,
                                         json.dumps(body).encode() if body else None)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def memory_bytes(self) -> dict[str, int]:
        """Memory of the process: resident, and without what it maps of files."""
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return {name: 1024 * int(lines.partition(f"\n{field}:")[2].split()[0])
                for name, field in (("resident", "Rss"), ("proportional", "Pss"),
                                    ("anonymous", "Anonymous"))}


def without(names, place: Path) -> dict[str, str]:
    """An environment in which modules cannot be imported.

    Args:
        names: of the modules.
        place: directory, empty, for what stands in their place.
    """
    for name in names:
        (place / f"{name}.py").write_text(
            f"raise ModuleNotFoundError('no {name} here', name='{name}')")
    places = [str(place), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
