"""Files written whole or not at all, and JSON that every reader takes."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfopt.types import PathLike


def write_whole(path: PathLike, contents: str | bytes) -> None:
    """Writes a file beside its place, then renames it there.

    Args:
        path: the file; its directory is made if missing.
        contents: text, written as UTF-8, or bytes.

    Raises:
        OSError: the disk is full or not writable; what was there stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(contents.encode() if isinstance(contents, str) else contents)
            file.flush()
            os.fsync(file.fileno())  # a full disk may show only here
        os.replace(partial, path)
    except BaseException:  # a text that is no UTF-8, or an interrupt, too
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def to_json(value: Any, **options: Any) -> str:
    """The JSON of a value.

    Args:
        value: of what JSON has.
        **options: of `json.dumps`.

    Raises:
        ValueError: there is a NaN or an infinity in it, which JSON has not, though
            Python would write them; says where.
    """
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError as error:
        found = ", ".join(f"{place or 'a number'}={number}"
                          for place, number in _not_finite(value, ""))
        raise ValueError("JSON has numbers alone, no NaN and no infinity. Received: "
                         f"{found or error}") from error


def _not_finite(value: Any, place: str) -> Iterator[tuple[str, float]]:
    """Where a JSON value has no finite number, and what there is instead."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _not_finite(part, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from _not_finite(part, f"{place}[{number}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield place, value
