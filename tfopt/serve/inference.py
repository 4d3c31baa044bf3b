"""Requests for answers, from the bytes that arrive to those that leave: the short way.

Work that is not computing the answer counts here: a model answers in a millisecond.
The event loop reads and writes, worker threads compute.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import re
import time
from typing import Any

from starlette.routing import get_route_path

from tfopt.serve import bodies, calls, plain, refusal, v2
from tfopt.serve.calls import Call
from tfopt.serve.models import Model
from tfopt.serve.refusal import Refusal
from tfopt.serve.service import Service

PREDICT = "/predict"
_WEIGHT = 0.3  # of a time in the mean of the loop's lag
_INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")


class Inference:
    """The ASGI application of `/predict` and `/v2/models/M/infer`, by POST.

    Args:
        service: answers.
    """

    def __init__(self, service: Service):
        self._service, self._wake, self._lag = service, _Wake(), _Lag()

    @staticmethod
    def takes(path: str) -> bool:
        """Whether a path is one of its own."""
        return path == PREDICT or _INFER.fullmatch(path) is not None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a request."""
        service = self._service
        service.in_flight += 1
        begun = time.perf_counter()
        try:
            await self._answer(scope, receive, send, begun)
        except bodies.Gone:
            pass
        except Exception as error:  # whatever happened, there is an answer
            refused = refusal.of(error)
            await bodies.answer(send, refused.status, refusal.body(refused),
                                more=refusal.headers(refused))
            service.refused(_asked_model(get_route_path(scope)), refused,
                            time.perf_counter() - begun)
            error.__traceback__ = None  # as of `Scheduler`: its frames hold the model
        finally:
            service.in_flight -= 1

    async def _answer(self, scope: Any, receive: Any, send: Any, begun: float) -> None:
        service, settings = self._service, self._service.settings
        body = await bodies.read(receive, settings.max_body_bytes, settings.body_s)
        model, call = self._call(get_route_path(scope), calls.read_object(body))
        loop = asyncio.get_running_loop()
        self._lag.measure(loop)
        done = loop.create_future()
        request = call.request(model, lambda: self._wake(loop, done),
                               settings.deadline_ms, settings.max_letters)
        # Under load it has waited to be read, and its answer will wait to be sent.
        request.arrived = begun - 2 * self._lag.seconds
        service.submit(request)
        await done
        if request.error is not None:
            raise request.error
        found = call.render(request, time.perf_counter() - begun).encode()
        await bodies.answer(send, 200, found)
        service.answered(request, time.perf_counter() - begun)

    def _call(self, path: str, fields: dict[str, Any]) -> tuple[Model, Call]:
        models, asked = self._service.repository, _INFER.fullmatch(path)
        if asked is None:
            name, call = plain.parse(fields)
            return models.get(name), call
        model = models.get(asked[1])
        if asked[2] is not None:
            check_version(model, asked[2])
        return model, v2.parse(model, fields)


def _asked_model(path: str) -> str:
    """The model's name in a path; "" where it has none."""
    asked = _INFER.fullmatch(path)
    return "" if asked is None else asked[1]


def check_version(model: Model, version: str) -> None:
    """Refuses, by 404, a version that is not the one in service."""
    if version != str(model.version):
        raise Refusal(404, f"The version of {model.name} in service is {model.version}."
                      f" Received: {version[:60]}", "unknown")


class _Lag:
    """How long the event loop takes to come to what is ready.

    Attributes:
        seconds: in the mean.
    """

    def __init__(self):
        self.seconds, self._measures = 0.0, False

    def measure(self, loop: asyncio.AbstractEventLoop) -> None:
        """Takes one more time into the mean."""
        if not self._measures:
            self._measures = True
            loop.call_soon(self._came, time.perf_counter())

    def _came(self, begun: float) -> None:
        self._measures = False
        self.seconds += _WEIGHT * (time.perf_counter() - begun - self.seconds)


class _Wake:
    """Wakes the event loop for finished requests: once for all that are there."""

    def __init__(self):
        self._done = collections.deque[asyncio.Future]()
        self._woken = False

    def __call__(self, loop: asyncio.AbstractEventLoop, done: asyncio.Future) -> None:
        """Says, from a worker thread, that a request is finished."""
        self._done.append(done)
        if not self._woken:
            self._woken = True
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        self._woken = False  # before the rest: what comes now wakes the loop again
        while self._done:
            done = self._done.popleft()
            if not done.done():
                done.set_result(None)
