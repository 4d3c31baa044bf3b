"""Settings -> a running service: models, worker threads, and who is told of answers.

    service = Service(Settings(directory="runs/demo"))
    service.start()
    ...
    service.close()     # after all that was taken in is answered

`app` puts it behind HTTP; nothing here knows of that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from tfopt.serve.models import Model
from tfopt.serve.refusal import Refusal
from tfopt.serve.repository import Repository
from tfopt.serve.scheduler import Request, Scheduler
from tfopt.serve.settings import Settings


class Listener(Protocol):
    """Who is told what the service does; must not take long."""

    def changed(self, model: Model, there: bool) -> None:
        """A model has come into service, or gone."""

    def answered(self, request: Request, seconds: float) -> None:
        """A request has its answers.

        Args:
            request: which has no error.
            seconds: from its arrival to the end of its answer.
        """

    def refused(self, refusal: Refusal, seconds: float) -> None:
        """A request has got no answers.

        Args:
            refusal: what it got instead.
            seconds: from its arrival to then.
        """

    def close(self) -> None:
        """The service has ended."""


class Service:
    """Models in service, and the threads that answer.

    Args:
        settings: of it.
        listeners: are told.

    Attributes:
        settings: as given.
        in_flight: requests that have come and have no answer yet; of the event loop.
    """

    def __init__(self, settings: Settings, listeners: tuple[Listener, ...] = ()):
        self.settings, self._listeners = settings, listeners
        self.in_flight = 0
        self._parts: tuple[Repository, Scheduler] | None = None

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self._parts is not None

    @property
    def repository(self) -> Repository:
        """The models; there once the service has been started."""
        return self._started()[0]

    @property
    def scheduler(self) -> Scheduler:
        """The threads; there once the service has been started."""
        return self._started()[1]

    def start(self) -> None:
        """Opens the models and starts the threads; nothing where that was done.

        Raises:
            ValueError: the directory holds no bundle, or none that opens.
        """
        if self._parts is not None:
            return
        settings = self.settings
        repository = Repository(
            Path(settings.directory), copies=settings.workers, cascade=settings.cascade,
            changed=self._changed)
        self._parts = repository, Scheduler(settings.workers, settings.queue)

    def close(self) -> None:
        """Answers what was taken in, then ends the threads."""
        if self._parts is None:
            return
        self._parts[1].close()
        self._parts = None
        for listener in self._listeners:
            listener.close()

    def answered(self, request: Request, seconds: float) -> None:
        """Tells the listeners of a request's answers."""
        for listener in self._listeners:
            listener.answered(request, seconds)

    def refused(self, refusal: Refusal, seconds: float) -> None:
        """Tells the listeners of a request that got no answers."""
        for listener in self._listeners:
            listener.refused(refusal, seconds)

    def _changed(self, model: Model, there: bool) -> None:
        for listener in self._listeners:
            listener.changed(model, there)

    def _started(self) -> tuple[Repository, Scheduler]:
        if self._parts is None:
            raise Refusal(503, "The service must have begun. Received: a request before "
                          "its start, or after its end", "draining", 1)
        return self._parts
