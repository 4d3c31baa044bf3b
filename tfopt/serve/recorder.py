"""What was answered -> metrics, request log, kept texts, shadow: after the answer.

A thread of its own takes what has been answered since it last looked, many at a time,
so that none of this stands between a request and its answer.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from absl import logging

from tfopt.inputs import together
from tfopt.serve.models import Model, Variant
from tfopt.serve.monitor import Monitor
from tfopt.serve.observation import Observation, observe
from tfopt.serve.refusal import Refusal
from tfopt.serve.request import Answer, Request

_EVERY_S = 0.1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One text that was answered.

    Attributes:
        when: seconds since the epoch.
        model: that answered.
        answer: what it got.
        text: None where ids were asked.
        pair: the second text, or None.
        seconds: from the request's arrival to its answer.
        seen: the numbers that are watched.
    """

    when: float
    model: Model
    answer: Answer
    text: str | None
    pair: str | None
    seconds: float
    seen: Observation


class Sink(Protocol):
    """Where records go; called by one thread alone."""

    def take(self, records: Sequence[Record]) -> None:
        """Takes records of what was answered."""

    def close(self) -> None:
        """Writes what is still to be written."""


class Recorder:
    """A service's listener, which tells the monitor and the sinks.

    Args:
        monitor: counts.
        sinks: take records.
    """

    def __init__(self, monitor: Monitor, sinks: Sequence[Sink] = ()):
        self._monitor, self._sinks = monitor, sinks
        self._done: collections.deque[tuple[float, Request, float]] = (
            collections.deque())
        self._lock = threading.Lock()  # held while records are taken
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def changed(self, model: Model, there: bool) -> None:
        """Counts a model's variants as loaded or gone, and watches their drift."""
        for variant in model.variants:
            self._monitor.loaded(model.name, variant.name, there, variant.reference)

    def answered(self, request: Request, seconds: float) -> None:
        """Takes note of a request; the rest is done by the thread."""
        self._done.append((time.time(), request, seconds))

    def refused(self, model: str, refusal: Refusal, seconds: float) -> None:
        """Counts a request that was refused."""
        self._monitor.rejected(refusal.reason)
        self._monitor.request(model, "", refusal.status, seconds)

    def flush(self) -> None:
        """Does all that is still to be done."""
        with self._lock:
            taken = []
            while self._done:
                taken.append(self._done.popleft())
            if not taken:
                return
            for _, request, seconds in taken:
                answers = request.given()
                self._monitor.request(
                    request.model.name, answers[0].variant.name, 200, seconds,
                    max(answer.queue_s for answer in answers))
            records = list(_records(taken))
            for (model, variant), group in _by_variant(records).items():
                self._monitor.answers(model, variant, [one.seen for one in group])
            for sink in self._sinks:
                with _others_go_on():
                    sink.take(records)

    def close(self) -> None:
        """Ends the thread, and writes what is still to be written."""
        self._ended.set()
        self._thread.join()
        self.flush()
        for sink in self._sinks:
            with _others_go_on():
                sink.close()

    def _run(self) -> None:
        while not self._ended.wait(_EVERY_S):
            with _others_go_on():
                self.flush()


@contextlib.contextmanager
def _others_go_on() -> Iterator[None]:
    """Logs what fails, of a disk that is full, say."""
    try:
        yield
    except Exception:
        logging.exception("What was answered cannot be recorded")


def _records(taken: Iterable[tuple[float, Request, float]]) -> Iterable[Record]:
    """A record of each text; those of a variant are observed together."""
    groups: dict[Variant, list[tuple[float, Request, float, int, Answer]]] = (
        collections.defaultdict(list))
    for when, request, seconds in taken:
        for number, answer in enumerate(request.given()):
            groups[answer.variant].append((when, request, seconds, number, answer))
    for variant, group in groups.items():
        answers = [answer for *_, answer in group]
        seen = observe(variant.bundle.task,
                       together([answer.outputs for answer in answers]),
                       [answer.ids for answer in answers],
                       variant.bundle.tokenizer.unknown_id,
                       [answer.truncated for answer in answers])
        for (when, request, seconds, number, answer), each in zip(group, seen,
                                                                  strict=True):
            yield Record(
                when=when, model=request.model, answer=answer, seconds=seconds,
                text=request.texts[number] if request.texts else None,
                pair=request.pairs[number] if request.pairs else None, seen=each)


def _by_variant(records: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    groups: dict[tuple[str, str], list[Record]] = collections.defaultdict(list)
    for record in records:
        groups[record.model.name, record.answer.variant.name].append(record)
    return groups
