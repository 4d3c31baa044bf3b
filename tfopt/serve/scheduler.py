"""Requests -> answers: worker threads, each text by the best variant in time.

On arrival a request that cannot be answered by its deadline is refused. When a worker
takes a text, it takes the most accurate variant for which

    waited + busy * mean(variant, length) * (1 + queued / workers) < 0.5 * deadline

and else the fastest, so that a queue that grows makes answers cheaper, rung by rung,
before it makes them late: who takes a variant must have the time to answer all that
wait by it. `busy` is how long a worker takes for a second of computing: texts are read,
and threads wait for each other. In a cascade one of the faster variants answers first,
and the rule chooses who gets what it is not sure of. Where many wait, a worker takes
several at once (`group`); the rule is kept for each when its turn comes.
"""

from __future__ import annotations

import collections
import math
import threading
import time
from collections.abc import Sequence

import numpy as np
from absl import logging

from tfopt.serve.estimates import Estimates, bucket_of
from tfopt.serve.group import GROUP_S, Text, Waiting, in_order
from tfopt.serve.group import read as _read
from tfopt.serve.models import Variant, confidence
from tfopt.serve.refusal import Refusal
from tfopt.serve.request import Answer, Request

# Parts of the deadline: within the first the better variants are used, above the second
# a request is refused.
_BETTER, _REFUSED = 0.5, 0.8
_MOST_IN_GROUP = 16  # texts that a worker takes at once


def best_in_time(variants: Sequence[Variant], room_s: float, bucket: int, now: float,
                 behind_s: float = 0.0) -> Variant:
    """The first variant that answers a text and those behind it in time; or the last.

    Args:
        variants: from the most accurate to the fastest.
        room_s: seconds; may be negative.
        bucket: of the text's tokens.
        now: as of `Estimates.value`.
        behind_s: what the fastest would take for the texts behind it.
    """
    turns = 1.0 + behind_s / variants[-1].times.value(bucket, now)
    return next((variant for variant in variants[:-1]
                 if turns * variant.times.value(bucket, now) < room_s), variants[-1])


class Scheduler:
    """A bounded queue, and the threads that work on it.

    Args:
        workers: threads.
        most: texts that may wait.
    """

    def __init__(self, workers: int, most: int):
        self._most = most
        self._queue = collections.deque[Waiting]()
        # Bells of workers that have nothing to do. The last one is called first: a
        # client alone finds the worker whose core has the model in its caches.
        self._idle: list[threading.Lock] = []
        self._lock = threading.Lock()
        self._waiting, self._behind_s, self._closed = 0, 0.0, False
        self._due_s = math.inf  # when the first of those that wait should have begun
        self._busy = Estimates({0: 1.0})  # goes back to 1 where nothing is computed
        self._threads = [threading.Thread(target=self._work, name=f"worker-{number}",
                                          daemon=True) for number in range(workers)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Texts that no worker has taken yet."""
        return self._waiting

    def submit(self, request: Request) -> None:
        """Takes a request in; its `done` is called when all its texts are answered.

        Raises:
            Refusal: 503, it cannot be answered in time, the queue is full, or the
                service ends; 413, it has more texts than the queue can hold.
        """
        count = len(request)
        if count > self._most:
            raise Refusal(413, f"A request may have {self._most} texts. Received: "
                          f"{count} texts", "too_large")
        expected = request.expected_s(request.arrived)
        with self._lock:
            self._admit(request, expected)
            self._waiting += count
            self._behind_s += sum(expected)
            request.left = count
            request.answers = [None] * count
            self._queue.extend(Waiting(request, number, seconds)
                               for number, seconds in enumerate(expected))
            self._call(count)

    def _admit(self, request: Request, expected: list[float]) -> None:
        workers = len(self._threads)
        now = time.perf_counter()
        busy, waited = self._busy.value(0, now), now - request.arrived
        behind_s = busy * self._behind_s / workers
        again_s = max(1, math.ceil(behind_s))
        if self._closed:
            raise Refusal(503, "The service ends. Received: a request after its end",
                          "draining", again_s)
        if self._waiting + len(expected) > self._most:
            raise Refusal(503, f"At most {self._most} texts may wait. Received: "
                          f"{len(expected)} more, where {self._waiting} wait",
                          "queue_full", again_s)
        needed = behind_s + busy * max(sum(expected) / workers, max(expected))
        if waited + needed > _REFUSED * request.deadline_s:
            raise Refusal(
                503, "A request must be one that can be answered by its deadline. "
                f"Received: a deadline of {1e3 * request.deadline_s:.4g} ms, where "
                f"{1e3 * needed:.4g} ms of work are to be done and {1e3 * waited:.1f} "
                "ms have passed", "deadline", again_s)

    def _call(self, most: int) -> None:
        """Calls idle workers; under the lock."""
        for _ in range(min(most, len(self._idle))):
            self._idle.pop().release()

    def close(self) -> None:
        """Answers what was taken in, and ends the threads; refuses what comes then."""
        with self._lock:
            self._closed = True
            self._call(len(self._threads))
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        tokens = 0  # of the text before: as many again cost no change of length
        bell = threading.Lock()
        bell.acquire()
        while group := self._group(bell):
            begun, computed_s = time.perf_counter(), 0.0
            for item, text in in_order(group, tokens):
                with self._lock:
                    self._waiting -= 1
                    self._behind_s = (self._behind_s - item.expected_s
                                      if self._waiting else 0.0)
                answer = self._finish(item.request, item.number, text)
                if answer is not None:
                    tokens, computed_s = len(answer.ids), computed_s + answer.computed_s
            ended = time.perf_counter()
            if computed_s:
                self._busy.add(0, (ended - begun) / computed_s, ended)
            # A model that is unloaded is not held while idle.
            del group, item, text, answer

    def _group(self, bell: threading.Lock) -> list[Waiting]:
        """The oldest text and more of this worker's share; empty at the end.

        They stay among those that wait until each is begun.

        Args:
            bell: of the worker, locked; it is released when there is work.
        """
        while True:
            with self._lock:
                if self._queue:
                    return self._taken()
                if self._closed:
                    return []
                self._idle.append(bell)
            bell.acquire()

    def _taken(self) -> list[Waiting]:
        """Takes a group out of the queue, which has a text; under the lock."""
        share = min(_MOST_IN_GROUP, len(self._queue) // len(self._threads))
        group = [self._queue.popleft()]
        seconds = group[0].expected_s
        while len(group) < share and seconds < GROUP_S:
            group.append(self._queue.popleft())
            seconds += group[-1].expected_s
        self._due_s = min((_due_s(item.request) for item in self._queue),
                          default=math.inf)
        return group

    def _finish(self, request: Request, number: int, text: Text | None
                ) -> Answer | None:
        """Answers a text, or says why not."""
        if request.error is None:
            try:
                request.answers[number] = self._answer(request, number, text)
            except Exception as error:  # the thread lives on, whatever happened
                if not isinstance(error, ValueError):
                    logging.exception("A text cannot be answered")
                # Its frames would hold the request, and the model, until they are
                # collected.
                request.error = error.with_traceback(None)
        answer = request.answers[number]
        with self._lock:
            request.left -= 1
            last = not request.left
        if last:
            request.done()
        return answer

    def _answer(self, request: Request, number: int, text: Text | None) -> Answer:
        taken = time.perf_counter()
        waited = taken - request.arrived
        if waited > request.deadline_s:
            raise Refusal(503, "An answer must be there by its deadline. Received: "
                          f"{1e3 * request.deadline_s:.4g} ms, which have passed",
                          "late", 1)
        variants, steps = request.model.variants, request.model.steps
        first = request.first_variant
        read = text or _read(request, number, first)

        def chosen() -> Variant:
            now = time.perf_counter()
            room_s = min(_due_s(request), self._due_s) - now
            return best_in_time(
                variants, room_s / self._busy.value(0, now), bucket_of(len(read.ids)),
                now, self._behind_s / len(self._threads))

        def by(variant: Variant, computed_s: float = 0.0) -> Answer:
            return _answered(variant, read if _read_alike(variant, first) else
                             _read(request, number, variant), waited, computed_s)

        if request.variant is not None:
            return by(request.variant)
        start = chosen()
        if not steps or variants.index(start) > variants.index(steps[0][0]):
            return by(start)  # there is no cascade, or no time for its first
        found = by(steps[0][0])
        following = [*(variant for variant, _ in steps[1:]), variants[0]]
        for (_, threshold), better in zip(steps, following, strict=True):
            if (confidence(found.fields) or 0.0) >= threshold:
                break
            place = max(map(variants.index, (better, chosen())))  # as there is time
            if place >= variants.index(found.variant):
                break
            found = by(variants[place], found.computed_s)
            if variants[place] is not better:
                break
        return found


def _due_s(request: Request) -> float:
    """When a request should be answered: time is left where that is late."""
    return request.arrived + _BETTER * request.deadline_s


def _answered(variant: Variant, text: Text, waited_s: float, computed_s: float
              ) -> Answer:
    """A variant's answer, which it is timed by, after what others have computed."""
    begun = time.perf_counter()
    outputs = variant.bundle.run(text.ids, text.first_length)
    fields, = variant.bundle.task.decode(outputs[np.newaxis], text.encoded())
    ended = time.perf_counter()
    variant.times.add(bucket_of(len(text.ids)), ended - begun, ended)
    return Answer(variant, outputs, fields, text.ids, text.truncated, waited_s,
                  computed_s + ended - begun)


def _read_alike(one: Variant, other: Variant) -> bool:
    return (one.bundle.tokenizer is other.bundle.tokenizer
            and one.bundle.max_length == other.bundle.max_length)
