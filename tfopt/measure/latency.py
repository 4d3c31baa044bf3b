"""How long artifacts take: each in a fresh process, timed in turn, warmed up first.

Machines drift, so a ratio holds only between figures taken side by side: in every
round each artifact gets the same texts, one after the other, and the median is over
all rounds.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from tfopt.measure import process
from tfopt.types import PathLike

TOKEN_COUNTS = (16, 32, 64, 128)
_REPEATS = 8  # of each token count, per round


class Worker(process.Worker):
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
    """Environment in which TensorFlow and OpenMP use so many threads.

    A Python started in it imports the same tfopt as this one.
    """
    threads = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
                             "OMP_NUM_THREADS"), str(num_threads))
    places = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]
    return {**threads, "PYTHONPATH": os.pathsep.join(filter(None, places))}


@contextlib.contextmanager
def workers(artifacts: Mapping[str, PathLike],
            num_threads: int) -> Iterator[dict[str, Worker]]:
    """Starts a process for each artifact, and ends them."""
    with contextlib.ExitStack() as stack:
        started = {}
        for name, path in artifacts.items():
            started[name] = Worker(path, num_threads)
            stack.callback(started[name].close)
        yield started


def measure(
    artifacts: Mapping[str, PathLike],
    ids: Sequence[Sequence[int]],
    first_lengths: Sequence[int],
    *,
    num_threads: int = 2,
    rounds: int = 5,
    texts: int = 100,
    max_tokens: int = 512,
) -> dict[str, dict[str, float]]:
    """Times artifacts against one another.

    Args:
        artifacts: name -> path of a `.tflite` or of a directory with a Keras model.
        ids: token ids of N examples, at their natural lengths.
        first_lengths: N numbers, as `data.Encoded` has them.
        num_threads: for each request.
        rounds: how often each artifact has its turn.
        texts: examples of a round, spread evenly over the N.
        max_tokens: token counts above are left out.

    Returns:
        name -> {latency_p50_ms, latency_p90_ms, latency_t16_ms ..., throughput_per_s,
        peak_rss_bytes}. A change of length between two texts is in their times.
    """
    chosen = np.unique(np.linspace(0, len(ids) - 1, min(texts, len(ids))).astype(int))
    natural = [ids[i] for i in chosen], [first_lengths[i] for i in chosen]
    stream = [token for example in ids for token in example[1:-1]] or [ids[0][0]]
    counts = [count for count in TOKEN_COUNTS if count <= max_tokens]
    fixed = {count: ([np.resize(stream, count).tolist()] * _REPEATS, [count] * _REPEATS)
             for count in counts}

    times: dict[str, dict] = {name: {} for name in artifacts}
    with workers(artifacts, num_threads) as running:
        for round_number in range(-1, rounds):  # round -1 warms up
            for name, worker in running.items():
                seconds = {"natural": worker.time(*natural)}
                for count, examples in fixed.items():
                    # The first of each has the change of length in it.
                    seconds[count] = worker.time(*examples)[1:]
                if round_number >= 0:
                    for key, value in seconds.items():
                        times[name].setdefault(key, []).append(value)
        peaks = {name: worker.peak_rss_bytes for name, worker in running.items()}

    def figures(name):
        taken = {key: np.concatenate(value) for key, value in times[name].items()}
        natural_s = taken["natural"]
        return {
            "latency_p50_ms": 1e3 * float(np.median(natural_s)),
            "latency_p90_ms": 1e3 * float(np.percentile(natural_s, 90)),
            **{f"latency_t{count}_ms": 1e3 * float(np.median(taken[count]))
               for count in counts},
            "throughput_per_s": len(natural_s) / float(natural_s.sum()),
            "peak_rss_bytes": float(peaks[name]),
        }

    return {name: figures(name) for name in artifacts}
