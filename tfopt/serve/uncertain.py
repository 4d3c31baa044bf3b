"""The texts that the model was least sure of, for a student to learn from.

    {"text": "is it there yet or not", "confidence": 0.31, "label": "track_order"}

`tfopt compress --unlabelled_file=FILE` distils on them. The file is opt-in, for texts
are what people wrote; it is bounded, and whole at any time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging

from tfopt.data.readers import decode
from tfopt.files import check_place, parse_json, to_json, write_whole
from tfopt.serve.recorder import Record
from tfopt.types import shown

_EVERY_S = 30.0
_SUFFIX = ".jsonl"
_FIELDS = ("text", "pair", "confidence", "label")


class Uncertain:
    """A sink that keeps the least sure of all texts, each once.

    Args:
        path: of the file, which ends in .jsonl; what is in it stays, as far as it is
            among the least sure.
        most: texts to keep.

    Raises:
        ValueError: the file has another name, cannot be written, or holds other things.
    """

    def __init__(self, path: str, most: int):
        self._path, self._most = Path(path), most
        if self._path.suffix != _SUFFIX:
            raise ValueError(f"The file for uncertain texts must end in {_SUFFIX}. "
                             f"Received: {path}")
        check_place(path)
        # (text, pair or None) -> (confidence, label)
        self._kept: dict[tuple[str, str | None], tuple[float, Any]] = {}
        self._written, self._changed = time.monotonic(), False
        if self._path.exists() and self._path.stat().st_size:
            self._read()

    def take(self, records: Sequence[Record]) -> None:
        """Keeps those of the records that are among the least sure."""
        for record in records:
            confidence = record.seen.confidence
            if record.text is None or confidence is None or not record.text.strip():
                continue
            key = record.text, record.pair
            if key not in self._kept or confidence < self._kept[key][0]:
                self._kept[key] = confidence, record.seen.label
                self._changed = True
        if len(self._kept) > 2 * self._most:
            self._cut()
        if self._changed and time.monotonic() - self._written > _EVERY_S:
            self._write()

    def close(self) -> None:
        """Writes the file."""
        if self._changed:
            self._write()

    def _cut(self) -> None:
        least = sorted(self._kept.items(), key=lambda item: item[1][0])
        self._kept = dict(least[:self._most])

    def _write(self) -> None:
        self._written = time.monotonic()
        self._cut()
        lines = []
        for (text, pair), (confidence, label) in self._kept.items():
            fields = dict(zip(_FIELDS, (text, pair, confidence, label), strict=True))
            lines.append(to_json({name: value for name, value in fields.items()
                                  if value is not None}, ensure_ascii=False) + "\n")
        write_whole(self._path, "".join(lines))
        self._changed = False
        logging.info("%d uncertain texts in %s", len(self._kept), self._path)

    def _read(self) -> None:
        for line, source in enumerate(decode(self._path).split("\n"), start=1):
            if not source.strip():
                continue
            row = parse_json(source, shown(source, 60),
                             f"{self._path}:{line}: a line must be a JSON object")
            text, pair, confidence, label = (row.get(name) for name in _FIELDS)
            words = [pair, *(label if isinstance(label, list) else [label])]
            if not (isinstance(text, str) and isinstance(confidence, int | float)
                    and 0 <= confidence <= 1
                    and all(isinstance(word, str | None) for word in words)):
                raise ValueError(f"{self._path}:{line}: a line must have a text and a "
                                 f"confidence in [0, 1]. Received: {shown(row, 60)}")
            self._kept[text, pair] = float(confidence), label
