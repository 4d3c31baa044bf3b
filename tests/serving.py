"""What tests of the server share: a service within this process, and waiting."""

from __future__ import annotations

import contextlib
import time

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
