"""A teacher's logits on disk: rows of float16, written in parts, mapped to be read.

Two files: the rows as they are, one example after the other, and a note of JSON beside
them: what they are of, and how many examples are done. A killed run goes on from the
note; what is behind it is written again. Read, the rows are mapped into memory, so that
they may be more than fit.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from absl import logging

from tfopt.backend import tf
from tfopt.files import digest, read_json, to_json, write_whole
from tfopt.types import PathLike

DTYPE = np.dtype("<f2")
MOST = float(np.finfo(DTYPE).max)
_LETTERS = 16  # of a file's name, which is a hash


class LogitsFile:
    """The file of one set of texts, one teacher and one way to ask it.

    Args:
        directory: of many such files.
        identity: what the rows are of; names the file by its hash.
        counts: rows of each example, <int>[N].
        width: C, numbers of a row.

    Attributes:
        path: of the rows.
        logarithms: whether logarithms were taken of what the teacher gave; None while
            nothing has been read.
    """

    def __init__(self, directory: PathLike, identity: Mapping[str, Any],
                 counts: np.ndarray, width: int):
        self._identity = {**identity, "examples_in_all": len(counts), "width": width}
        name = hashlib.sha256(to_json(self._identity, sort_keys=True).encode())
        self.path = Path(directory) / f"{name.hexdigest()[:_LETTERS]}.float16"
        self.logarithms: bool | None = None
        self._note = self.path.with_suffix(".json")
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._row_bytes = width * DTYPE.itemsize
        self._shape = [int(self._starts[-1]), width]

    def whole(self) -> tf.Tensor | None:
        """All rows, <float16>[rows, C], mapped; None where they are not there yet.

        Raises:
            ValueError: the note beside them is of other rows.
        """
        note = self._read_note()
        if "sha256" not in note:
            return None
        if (self.path.stat().st_size != self._shape[0] * self._row_bytes
                or digest(self.path) != note["sha256"]):
            logging.warning("The teacher's logits are computed anew, since the file is "
                            "damaged: %s", self.path)
            self._note.unlink()
            return None
        with tf.device("CPU:0"):
            return tf.raw_ops.ImmutableConst(
                dtype=tf.float16, shape=self._shape,
                memory_region_name=str(self.path.absolute()))

    @contextlib.contextmanager
    def open(self) -> Iterator[tuple[BinaryIO, int]]:
        """Opens the rows to write; waits where another process does.

        Yields:
            The file, and how many examples are there, in the order of writing.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a+b"):  # makes it
            pass
        with open(self.path, "r+b") as file:
            # A disk without locks: two workers then write the same numbers twice.
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            note = self._read_note()
            self.logarithms = note.get("logarithms")
            done = note.get("examples", 0)
            if not done:
                file.truncate(0)  # of a damaged one
            yield file, done

    def write(self, file: BinaryIO, example: int, rows: np.ndarray) -> None:
        """Writes the rows of an example, <float>[its count, C].

        Raises:
            OSError: the disk is full.
        """
        file.seek(int(self._starts[example]) * self._row_bytes)
        file.write(np.ascontiguousarray(rows, DTYPE).data)

    def note(self, file: BinaryIO, examples: int) -> None:
        """Notes that so many examples are on the disk; all of them end the file."""
        file.flush()
        os.fsync(file.fileno())
        found = {**self._identity, "examples": examples, "logarithms": self.logarithms}
        if examples == self._identity["examples_in_all"]:
            found["sha256"] = digest(self.path)
        write_whole(self._note, to_json(found, indent=1) + "\n")

    def _read_note(self) -> dict[str, Any]:
        """What is noted; nothing where there is no note, or one that is damaged."""
        if not self._note.is_file() or not self.path.is_file():
            return {}
        try:
            found = read_json(self._note)
            examples = found["examples"]
            if type(examples) is not int or not (
                    0 <= examples <= self._identity["examples_in_all"]):
                raise ValueError(f"examples={examples}")
        except (ValueError, KeyError) as error:
            logging.warning("The teacher's logits are computed anew, since %s cannot "
                            "be read: %s", self._note, error)
            return {}
        others = [name for name, value in self._identity.items()
                  if found.get(name) != value]
        if others:
            raise ValueError(
                "Kept logits must be of these very texts and this teacher; remove the "
                f"file, and they are computed. Received: {self._note} of other "
                f"{', '.join(others)}")
        return found
