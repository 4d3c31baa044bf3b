"""Settings -> a running service: models, worker threads, and who is told of answers.

    service = Service(Settings(directory="runs/demo"))
    service.start()
    ...
    service.close()     # after all that was taken in is answered

`app` puts it behind HTTP; nothing here knows of that.
"""

from __future__ import annotations

from pathlib import Path

from tfopt.serve.monitor import Monitor
from tfopt.serve.recorder import Recorder, Sink
from tfopt.serve.refusal import Refusal
from tfopt.serve.repository import Repository
from tfopt.serve.request import Request
from tfopt.serve.request_log import RequestLog
from tfopt.serve.scheduler import Scheduler
from tfopt.serve.settings import Settings
from tfopt.serve.shadow import Shadow
from tfopt.serve.uncertain import Uncertain
from tfopt.serve.watch import Watch


class Service:
    """Models in service, and the threads that answer.

    Args:
        settings: of it.

    Attributes:
        settings: as given.
        in_flight: requests that have come and have no answer yet; of the event loop.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.in_flight = 0
        self._running: _Running | None = None

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self._running is not None and bool(self._running.repository.models())

    @property
    def repository(self) -> Repository:
        """The models.

        Raises:
            Refusal: 503, the service has not begun, or has ended.
        """
        return self._parts().repository

    def start(self) -> None:
        """Opens the models and starts the threads; nothing where that was done.

        Raises:
            ValueError: the directory holds no bundle, or none that opens; or a file of
                the settings cannot be used.
        """
        if self._running is None:
            self._running = _Running(self.settings)
            self._running.monitor.in_flight.set_function(lambda: self.in_flight)

    def close(self) -> None:
        """Answers what was taken in, then ends the threads."""
        if self._running is not None:
            running, self._running = self._running, None
            running.close()

    def submit(self, request: Request) -> None:
        """As of `Scheduler`."""
        self._parts().scheduler.submit(request)

    def answered(self, request: Request, seconds: float) -> None:
        """Records a request's answers.

        Args:
            request: that has them.
            seconds: from its arrival to the end of its answer.
        """
        if self._running is not None:
            self._running.recorder.answered(request, seconds)

    def refused(self, model: str, refusal: Refusal, seconds: float) -> None:
        """Records a request that got no answers.

        Args:
            model: that was asked; "" where that is not known.
            refusal: what the request got instead.
            seconds: from its arrival to then.
        """
        if self._running is not None:
            self._running.recorder.refused(model, refusal, seconds)

    def metrics(self) -> bytes:
        """All that is counted, as Prometheus reads it."""
        running = self._parts()
        running.recorder.flush()
        return running.monitor.text()

    def _parts(self) -> _Running:
        if self._running is None:
            raise Refusal(503, "The service must have begun. Received: a request "
                          "before its start, or after its end", "draining", 1)
        return self._running


class _Running:
    """The parts of a service that runs."""

    def __init__(self, settings: Settings):
        self.monitor = Monitor()
        sinks: list[Sink] = []
        if settings.request_log:
            sinks.append(RequestLog(settings.request_log, settings.log_texts))
        if settings.keep_uncertain:
            sinks.append(Uncertain(settings.keep_uncertain, settings.keep_most))
        if settings.shadow:
            sinks.append(Shadow(settings.shadow, settings.shadow_fraction,
                                self.monitor))
        self.recorder = Recorder(self.monitor, sinks)
        try:
            self.repository = Repository(
                Path(settings.directory), copies=settings.workers,
                cascade=settings.cascade, name=settings.name,
                changed=self.recorder.changed)
        except ValueError:
            self.recorder.close()
            raise
        self.scheduler = Scheduler(settings.workers, settings.queue)
        self._watch = (None if settings.watch_s is None
                       else Watch(self.repository, settings.watch_s))

    def close(self) -> None:
        """Ends them, in the order in which nothing is lost."""
        if self._watch is not None:
            self._watch.close()
        self.scheduler.close()
        self.recorder.close()
