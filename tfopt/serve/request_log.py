"""The request log: a line of JSON for each text that was answered.

    {"time": 1764170000.123, "model": "intents", "version": 2, "variant": "3x",
     "milliseconds": 1.9, "queue_ms": 0.2, "confidence": 0.98, "entropy": 0.1,
     "tokens": 7, "unknown": 0, "truncated": false, "label": "track_order"}

The text, and of a pair the second, is there where the service was told so: `text`,
`pair`. A task without classes has null for confidence, entropy and label; one whose
answers have several labels, a list of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfopt.files import to_json
from tfopt.serve.recorder import Record
from tfopt.types import PathLike


class RequestLog:
    """A sink that adds lines to a file.

    Args:
        path: of the file; it is made if missing, and added to if not.
        texts: whether texts are written too.

    Raises:
        ValueError: the file cannot be written.
    """

    def __init__(self, path: PathLike, texts: bool = False):
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a", encoding="utf-8")
        except OSError as error:
            raise ValueError("The request log must be a file that can be written: "
                             f"{error.strerror}. Received: {path}") from error
        self._texts = texts

    def take(self, records: Sequence[Record]) -> None:
        """Adds a line for each record."""
        self._file.write("".join(f"{to_json(_fields(record, self._texts))}\n"
                                 for record in records))
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _fields(record: Record, texts: bool) -> dict[str, Any]:
    found = {
        "time": round(record.when, 3), "model": record.model.name,
        "version": record.model.version, "variant": record.answer.variant.name,
        "milliseconds": round(1e3 * record.seconds, 3),
        "queue_ms": round(1e3 * record.answer.queue_s, 3),
        **dataclasses.asdict(record.seen)}
    if texts:
        found |= {name: value for name, value in (
            ("text", record.text), ("pair", record.pair)) if value is not None}
    return found
