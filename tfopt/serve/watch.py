"""A directory that is looked at now and then -> what changed in it is loaded.

A bundle's `bundle.json` and a ladder's `ladder.json` are written last, so that one of
them changes when all is there. What does not open stays out of service until it changes
again; what is taken away stays in service.
"""

from __future__ import annotations

import threading

from absl import logging

from tfopt.serve.repository import Repository, state_of


class Watch:
    """A thread that loads what is new.

    Args:
        repository: to load into.
        every_s: seconds between looks.
    """

    def __init__(self, repository: Repository, every_s: float):
        self._repository, self._every_s = repository, every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; a model that it opens is opened to the end."""
        self._ended.set()
        self._thread.join()

    def look(self) -> None:
        """Loads what came, or changed since it was loaded, or could not be."""
        for name, place in self._repository.places().items():
            if state_of(place) != self._repository.tried.get(name):
                try:
                    self._repository.load(name)
                except ValueError as error:
                    logging.warning("%s is not loaded: %s", name, error)

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                self.look()
            except Exception:  # the next look may do
                logging.exception("The directory cannot be looked at")
