"""The file of a measurement's rounds, by which one that was killed goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import logging

from tfopt.files import read_json, to_json, write_whole
from tfopt.types import PathLike


class Rounds:
    """The rounds of an unfinished measurement, in a file.

    Args:
        path: of the file; None for none.
        of: a hash of what is measured.
    """

    def __init__(self, path: PathLike | None, of: str):
        self._path = None if path is None else Path(path)
        self._of = of

    def read(self, shape: tuple[int, ...]) -> list[list]:
        """The rounds that were saved for the same measurement, each of a shape."""
        if self._path is None or not self._path.is_file():
            return []
        try:
            fields = read_json(self._path)
            seconds = np.array(fields["rounds"], np.float64)
            same = fields["of"] == self._of and seconds.shape[1:] == shape
        except (ValueError, TypeError, KeyError):  # of somebody else
            same = False
        if not same:
            logging.warning("The rounds in %s are of another environment or plan, and "
                            "are not used", self._path)
        return seconds.tolist() if same else []

    def save(self, rounds: Sequence[list]) -> None:
        """Writes all that were done so far."""
        if self._path is not None:
            write_whole(self._path, to_json({"of": self._of, "rounds": rounds}))
