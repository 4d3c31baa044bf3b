"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

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
