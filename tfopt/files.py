"""Files written whole or not at all, and read as what they are or not at all."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import numpy as np

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
