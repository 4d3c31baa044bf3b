"""Files written whole or not at all; arrays and JSON read within limits."""

from __future__ import annotations

import collections
import contextlib
import fcntl
import hashlib
import io
import json
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfopt.types import PathLike

_PARTIAL = ".partial-"
_BLOCK = 1 << 22  # bytes read at once
# A large vocabulary's JSON has 5 MB, and none that tfopt reads is ten deep.
MOST_JSON_BYTES = 1 << 26
_DEEPEST_JSON = 100
_OBJECT = "A JSON object was expected"


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
    # Several workers may write the same file at once.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
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


def digest(path: PathLike) -> str:
    """SHA-256 of a file, read in parts, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


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


def read_arrays(path: PathLike) -> dict[str, np.ndarray]:
    """Reads the arrays of an .npz file.

    Args:
        path: the file.

    Returns:
        Name -> array, in the file's order.

    Raises:
        ValueError: it is damaged, or has other things than arrays; names the file.
        OSError: it is not there, or cannot be read.
    """
    contents = Path(path).read_bytes()
    try:
        # From memory: of a cut file, NumPy would leave the file open.
        with np.load(io.BytesIO(contents), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    # A damaged archive raises a dozen kinds, of zipfile, zlib, struct and NumPy.
    except Exception as error:
        raise ValueError(f"An .npz file is damaged. Received: {path}: {error}"
                         ) from error


def read_json(path: PathLike, rule: str = _OBJECT, kind: type = dict, *,
              finite: bool = True) -> Any:
    """Reads a file of JSON.

    Args:
        path: the file.
        rule: what it must be, for the message.
        kind: of the outermost value.
        finite: whether numbers must be; else NaN and Infinity, which are no JSON, are
            taken as Python writes them.

    Returns:
        The value, of the kind.

    Raises:
        ValueError: as `parse_json`, or the file cannot be read; names it.
    """
    try:
        with open(path, "rb") as file:
            contents = file.read(MOST_JSON_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{rule}. Received: {path}: {error.strerror}") from error
    return parse_json(contents, str(path), rule, kind, finite=finite)


def parse_json(contents: str | bytes, name: str, rule: str = _OBJECT,
               kind: type = dict, *, finite: bool = True) -> Any:
    """Parses JSON from outside; as `read_json`.

    Args:
        contents: the text, or its bytes in UTF-8.
        name: of the source, for the message.
        rule: what it must be, for the message.
        kind: of the outermost value.
        finite: whether numbers must be.

    Returns:
        The value, of the kind.

    Raises:
        ValueError: the text is no JSON, of another kind, too large or too deep, or has
            a key twice, half a character, or a number that is none.
    """
    try:
        if len(contents) > MOST_JSON_BYTES:
            raise ValueError(f"more than {MOST_JSON_BYTES} bytes")
        text = contents if isinstance(contents, str) else contents.decode("utf-8")
        number = _finite if finite else float
        value = json.loads(text, object_pairs_hook=_once, parse_float=number,
                           parse_constant=number)
        if not isinstance(value, kind):
            raise ValueError(type(value).__name__)
        _check_depth(value)
        if text is contents or "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError(f"{rule}. Received: {name}: nested too deeply") from error
    except UnicodeEncodeError as error:  # a surrogate, which no file can hold
        raise ValueError(f"{rule}. Received: {name}: half of a character, "
                         f"{error.object[error.start]!r}") from error
    except ValueError as error:
        raise ValueError(f"{rule}. Received: {name}: {error}") from error
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = collections.Counter(key for key, _ in pairs)
        raise ValueError(f"{next(key for key in found if counts[key] > 1)!r} twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is no number")
    return number


def _check_depth(value: Any) -> None:
    level: list = [[value]]
    for _ in range(_DEEPEST_JSON):
        level = [part for holder in level
                 for part in (holder.values() if isinstance(holder, dict) else holder)
                 if isinstance(part, dict | list)]
        if not level:
            return
    raise ValueError("nested too deeply")


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
