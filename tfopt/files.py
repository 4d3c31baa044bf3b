"""Files written whole or not at all, and what a killed process leaves of them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tfopt.types import PathLike

_PARTIAL = ".partial-"


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


def check_place(path: PathLike) -> None:
    """Checks, before long work, that a file can be written.

    Raises:
        ValueError: it is a directory, or its own cannot be made or written to.
    """
    path = Path(path)
    above = next(place for place in (path.absolute(), *path.absolute().parents)
                 if place.exists() and place != path.absolute())
    if path.is_dir() or not above.is_dir() or not os.access(above, os.W_OK):
        raise ValueError("A file must be named, in a directory that can be written to. "
                         f"Received: {path}")


@contextlib.contextmanager
def partial_directory(place: Path) -> Iterator[Path]:
    """A directory for files that are renamed into `place` once they are whole.

    Those that processes have left in `place` when they were killed are removed first.

    Args:
        place: directory, which must be there.

    Yields:
        A new directory in it; gone when the block ends.
    """
    for left in place.glob(f"{_PARTIAL}*"):
        with _held(left) as held:
            if held:
                shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=place, prefix=_PARTIAL) as name, _held(
            Path(name)):
        yield Path(name)


def remove_partial(place: Path) -> None:
    """Removes all that was written in part below a directory that nobody writes to."""
    for left in place.rglob(f"{_PARTIAL}*"):
        shutil.rmtree(left, ignore_errors=True)
    for left in place.rglob(".*.partial"):
        left.unlink(missing_ok=True)


@contextlib.contextmanager
def _held(directory: Path) -> Iterator[bool]:
    """Locks a directory, until the block ends or the process dies.

    Yields:
        Whether it could be: not where another process has, nor on a disk without locks.
    """
    try:
        number = os.open(directory, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(number)
