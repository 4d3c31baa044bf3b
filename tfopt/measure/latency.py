"""How long artifacts take: each in a fresh process, timed in turn, warmed up first.

Machines drift, so a ratio holds only between figures taken side by side: in every
round each artifact gets the same texts, one after the other, and the median is over
all rounds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from absl import logging

from tfopt.export.interpreter import thread_counts
from tfopt.measure import process
from tfopt.measure.runners import TFLITE
from tfopt.types import PathLike

Key = TypeVar("Key")

TOKEN_COUNTS = (16, 32, 64, 128)
_LOCK = "timing.lock"
_REPEATS = 8  # of each token count, per round


class TimedArtifact(process.TimedProcess):
    """A process that times one artifact.

    Args:
        artifact: path of a `.tflite`, or of a directory with a Keras model.
        num_threads: for each request.

    Raises:
        ValueError: the artifact cannot be loaded; ends with what the process said.
    """

    def __init__(self, artifact: PathLike, num_threads: int):
        super().__init__(command(artifact, num_threads), environment(num_threads))

    def time(self, ids: Sequence[Sequence[int]],
             first_lengths: Sequence[int]) -> np.ndarray:
        """Seconds <float>[N] of N examples, run one after the other."""
        answer = self.ask(ids=ids, first_lengths=first_lengths)
        self.peak_rss_bytes = answer["peak_rss_bytes"]
        return np.array(answer["seconds"])


def command(artifact: PathLike, num_threads: int) -> list[str]:
    """The command of the process that times an artifact."""
    return [sys.executable, "-m", "tfopt.measure.worker", os.fspath(artifact),
            str(num_threads)]


def environment(num_threads: int) -> dict[str, str]:
    """Environment in which TensorFlow and OpenMP use that many threads.

    A Python started in it imports the same tfopt as this one.
    """
    threads = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
                             "OMP_NUM_THREADS"), str(num_threads))
    places = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]
    return {**threads, "PYTHONPATH": os.pathsep.join(filter(None, places))}


@contextlib.contextmanager
def started(plan: Mapping[Key, tuple[PathLike, int]]
            ) -> Iterator[dict[Key, TimedArtifact]]:
    """Starts a process for each artifact and number of threads, and ends them.

    Where another process of this user times, it waits: two at once would time each
    other.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_alone())
        running = {}
        for key, (path, num_threads) in plan.items():
            running[key] = TimedArtifact(path, num_threads)
            stack.callback(running[key].close)
        yield running


def cache() -> Path:
    """Where what is measured on this machine is kept between runs."""
    return Path.home() / ".cache" / "tfopt"


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Waits for other processes that time; on a disk without locks it does not."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            cache().mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(cache() / _LOCK, "a"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logging.info("Another process times; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def tried_threads(artifact: PathLike, most: int) -> list[int]:
    """Numbers of threads with which an artifact is timed: of a `.tflite`, several."""
    return thread_counts(most) if Path(artifact).suffix == TFLITE else [most]


def measure(
    artifacts: Mapping[str, PathLike],
    ids: Sequence[Sequence[int]],
    first_lengths: Sequence[int],
    *,
    num_threads: int = 2,
    rounds: int = 5,
    texts: int = 100,
    max_tokens: int = 512,
    token_counts: Sequence[int] = TOKEN_COUNTS,
) -> dict[str, dict[str, float]]:
    """Times artifacts against one another.

    Args:
        artifacts: name -> path of a `.tflite` or of a directory with a Keras model.
        ids: token ids of N examples, at their natural lengths.
        first_lengths: N numbers, as `data.Encoded` has them.
        num_threads: the most for each request. A `.tflite` is timed with fewer, too,
            and the figures are those of the number by which it answers fastest: more
            slow a small model down.
        rounds: how often each artifact has its turn.
        texts: examples of a round, spread evenly over the N.
        max_tokens: token counts above are left out.
        token_counts: texts of so many tokens each are timed apart.

    Returns:
        name -> {latency_p50_ms, latency_p90_ms, latency_t16_ms ..., throughput_per_s,
        peak_rss_bytes, num_threads}, and of several rounds latency_spread: how far
        apart the medians of the rounds are, as a fraction of latency_p50_ms. A change
        of length between two texts is in their times.
    """
    chosen = np.unique(np.linspace(0, len(ids) - 1, min(texts, len(ids))).astype(int))
    natural = [ids[i] for i in chosen], [first_lengths[i] for i in chosen]
    stream = [token for example in ids for token in example[1:-1]] or [ids[0][0]]
    counts = [count for count in token_counts if count <= max_tokens]
    fixed = {count: ([np.resize(stream, count).tolist()] * _REPEATS, [count] * _REPEATS)
             for count in counts}

    plan = {(name, count): (path, count) for name, path in artifacts.items()
            for count in tried_threads(path, num_threads)}
    times: dict[tuple[str, int], dict] = {key: {} for key in plan}
    with started(plan) as running:
        for round_number in range(-1, rounds):  # round -1 warms up
            for key, artifact in running.items():
                seconds: dict[str | int, np.ndarray] = {
                    "natural": artifact.time(*natural)}
                for count, examples in fixed.items():
                    # The first of each has the change of length in it.
                    seconds[count] = artifact.time(*examples)[1:]
                if round_number >= 0:
                    for kind, value in seconds.items():
                        times[key].setdefault(kind, []).append(value)
        peaks = {key: artifact.peak_rss_bytes for key, artifact in running.items()}

    return {name: min(({**_figures(times[key]), "peak_rss_bytes": float(peaks[key]),
                        "num_threads": float(key[1])}
                       for key in plan if key[0] == name),
                      key=lambda found: found["latency_p50_ms"])
            for name in artifacts}


def _figures(times: Mapping[str | int, Sequence[np.ndarray]]) -> dict[str, float]:
    """Seconds of each round, "natural" and by token counts -> figures."""
    taken = {kind: np.concatenate(value) for kind, value in times.items()}
    natural_s = taken.pop("natural")
    medians = [np.median(part) for part in times["natural"]]
    spread = {} if len(medians) < 2 else {
        "latency_spread": float(np.ptp(medians) / np.median(natural_s))}
    return {
        "latency_p50_ms": 1e3 * float(np.median(natural_s)),
        **spread,
        "latency_p90_ms": 1e3 * float(np.percentile(natural_s, 90)),
        **{f"latency_t{count}_ms": 1e3 * float(np.median(value))
           for count, value in taken.items()},
        "throughput_per_s": len(natural_s) / float(natural_s.sum()),
    }
