"""A second model that answers a sample too: what compression costs in service.

The shadow, a float model say, gets a fraction of the texts after they are answered, in
a thread of its own, and what it cannot keep up with is passed over. It tells by how
many labels two models differ; it does not tell drift, which both suffer alike.
"""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Sequence
from typing import Any

from absl import logging

from tfopt.serve.bundle import Bundle
from tfopt.serve.monitor import Monitor
from tfopt.serve.recorder import Record
from tfopt.types import PathLike

_WAITING = 64  # texts; more are passed over


class Shadow:
    """A sink that has another model answer some of the texts.

    Args:
        directory: of the other model's bundle.
        fraction: of the texts that it gets, in (0, 1].
        monitor: counts whether the labels agree.

    Raises:
        ValueError: there is no bundle, or its task has no labels to compare.
    """

    def __init__(self, directory: PathLike, fraction: float, monitor: Monitor):
        self._bundle = Bundle.open(directory, num_threads=1, copies=1, private=True)
        seen, = self._bundle.task.signals(self._bundle.outputs(["a"]))
        if seen.label is None:
            raise ValueError("A shadow needs a task that answers a label. Received: "
                             f"{directory}, of {self._bundle.task.name()}")
        self._fraction, self._monitor = fraction, monitor
        self._random = random.Random(0)
        # (text, pair, the label or labels it got)
        self._queue: queue.Queue[tuple[str, str | None, Any] | None] = (
            queue.Queue(_WAITING))
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    def take(self, records: Sequence[Record]) -> None:
        """Draws some of the records, of texts that its task is for."""
        for record in records:
            if (record.text is not None and self._random.random() < self._fraction
                    and record.model.task.labels == self._bundle.task.labels
                    and not self._queue.full()):
                self._queue.put((record.text, record.pair, record.seen.label))

    def close(self) -> None:
        """Ends, when what was drawn is answered."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (drawn := self._queue.get()) is not None:
            text, pair, label = drawn
            try:
                seen, = self._bundle.task.signals(self._bundle.outputs(
                    [text], None if pair is None else [pair]))
            except ValueError as error:
                logging.warning("The shadow gives no answer: %s", error)
                continue
            self._monitor.shadow(seen.label == label)
