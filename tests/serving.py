"""What tests of the server share: a service in this process, or in one of its own."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
import urllib.request

from starlette.testclient import TestClient

from tfopt.serve.app import App
from tfopt.serve.settings import Settings

LABELS = ("bad", "fine", "good")
RUNGS = {"whole": 2, "half": 1}  # of the tiny ladder: name -> layers


@contextlib.contextmanager
def serving(directory, **settings):
    """A service of a directory, and a client of it.

    A deadline of a minute, unless told otherwise: a busy machine is to refuse nothing.
    """
    app = App(Settings(directory=str(directory), **{
        "threads": 2, "deadline_ms": 60_000.0, **settings}))
    with TestClient(app, raise_server_exceptions=False) as client:
        client.service = app.service
        yield client


def until(holds, seconds: float = 20.0) -> None:
    """Waits until something holds, and fails where it does not in time."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "It did not come about in time."
        time.sleep(0.01)


class process:
    """`tfopt serve` in a process, killed at the end of a with block if it lives."""

    def __init__(self, *arguments, environment=None):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tfopt.cli", "serve", *map(str, arguments),
             "--port=0"], stderr=subprocess.PIPE, text=True, env=environment)
        self.said = ""
        while not (found := re.search(r"on (http://\S+)", self.said)):
            line = self.process.stderr.readline()
            assert line, self.said
            self.said += line
        self.address = found[1]
        host, port = self.address.removeprefix("http://").split(":")
        self.place = host, int(port)
        # What is not read would fill the pipe, and hold the process.
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            self.said += line

    def __enter__(self):
        """Returns itself."""
        return self

    def __exit__(self, *_):
        """Ends the process."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stderr.close()

    def ask(self, path="/predict", **body):
        """The object that is answered to one, or to GET where there is none."""
        request = urllib.request.Request(self.address + path,
                                         json.dumps(body).encode() if body else None)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())
