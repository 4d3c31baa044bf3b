"""Sizes of encoders -> how long their exported files take, timed in turn.

Before anything is cut or trained: times depend on sizes, not on the values of weights,
so that the models have random ones. Elsewhere as `measure.latency` times artifacts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfopt import model
from tfopt.export import calibrate, tflite
from tfopt.files import write_whole
from tfopt.measure import latency
from tfopt.model import EncoderConfig, Head

_CALIBRATION_TEXTS = 8  # ranges take no time


class StructureTimer:
    """Times structures at texts of given lengths, of random tokens.

    Args:
        lengths: token counts of the texts.
        scheme: of the export.
        length: tokens of the exported input; None leaves it open.
        num_threads: the most of a request.
        rounds: turns of each file: many short ones, so that a slow second hits both.
        texts: of a turn, spread evenly over the lengths.
        head: of the models.
    """

    def __init__(self, lengths: Sequence[int], *, scheme: str = "dynamic_wi8_afp32",
                 length: int | None = None, num_threads: int = 2, rounds: int = 40,
                 texts: int = 20, head: Head = Head()):
        self._lengths = sorted(lengths)
        self._scheme, self._length, self._head = scheme, length, head
        self._timing = {"num_threads": num_threads, "rounds": rounds, "texts": texts}
        self._exported: tuple[EncoderConfig, bytes] | None = None

    def __call__(self, whole: EncoderConfig, small: EncoderConfig
                 ) -> tuple[float, float]:
        """Times two structures in turn.

        Args:
            whole: sizes of a model; its file is kept for the next call.
            small: of the other.

        Returns:
            The median ms of a request of each, with the number of threads that is the
            fastest for it.

        Raises:
            ValueError: the scheme cannot be exported so, or a process ended.
        """
        if self._exported is None or self._exported[0] != whole:
            self._exported = whole, self._file_of(whole)
        ids = self._ids(min(whole.vocab_size, small.vocab_size))
        with tempfile.TemporaryDirectory() as directory:
            files = {}
            for name, contents in (("whole", self._exported[1]),
                                   ("small", self._file_of(small))):
                files[name] = Path(directory) / f"{name}.tflite"
                write_whole(files[name], contents)
            found = latency.measure(files, ids, list(map(len, ids)), token_counts=(),
                                    **self._timing)
        return (found["whole"]["latency_p50_ms"], found["small"]["latency_p50_ms"])

    def _file_of(self, config: EncoderConfig) -> bytes:
        ids = self._ids(config.vocab_size)[:_CALIBRATION_TEXTS]
        return tflite.convert(
            model.build(config, self._head), self._scheme, length=self._length,
            calibration=calibrate.examples_of(ids, list(map(len, ids)))
            if tflite.needs_calibration(self._scheme) else None)

    def _ids(self, vocab_size: int) -> list[list[int]]:
        random = np.random.default_rng(0)
        return [random.integers(vocab_size, size=count).tolist()
                for count in self._lengths]
