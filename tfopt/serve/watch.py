"""A directory that is looked at now and then -> what changed in it is loaded.

A bundle's `bundle.json` and a ladder's `ladder.json` are written last, so that one of
them changes when all is there. What does not open stays out of service until it changes
again; what is taken away stays in service.
"""

from __future__ import annotations

import threading
from pathlib import Path

from absl import logging

from tfopt.serve.ladder import LADDER_FILE
from tfopt.serve.manifest import MANIFEST_FILE, MODEL_FILE
from tfopt.serve.repository import Repository

_State = tuple[tuple[str, int, int, int], ...]


class Watch:
    """A thread that loads what is new.

    Args:
        repository: to load into.
        every_s: seconds between looks.
    """

    def __init__(self, repository: Repository, every_s: float):
        self._repository, self._every_s = repository, every_s
        self._known = self._states()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; a model that it opens is opened to the end."""
        self._ended.set()
        self._thread.join()

    def look(self) -> None:
        """Loads what changed since the last look, or came."""
        states = self._states()
        for name, state in states.items():
            if state != self._known.get(name):
                try:
                    self._repository.load(name)
                except ValueError as error:
                    logging.warning("%s is not loaded: %s", name, error)
        self._known = states

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                self.look()
            except Exception:  # the next look may do
                logging.exception("The directory cannot be looked at")

    def _states(self) -> dict[str, _State]:
        return {name: _state(place) for name, place in self._repository.places().items()
                }


def _state(place: Path) -> _State:
    """By which a change of a bundle or a ladder is known."""
    names = (LADDER_FILE, MANIFEST_FILE, MODEL_FILE)
    found = []
    for path in [*(place / name for name in names), *place.glob(f"*/{MANIFEST_FILE}")]:
        try:
            status = path.stat()
        except OSError:
            continue
        found.append((path.relative_to(place).as_posix(), status.st_ino,
                      status.st_size, status.st_mtime_ns))
    return tuple(sorted(found))
