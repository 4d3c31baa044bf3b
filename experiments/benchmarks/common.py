"""What the benchmarks share: turns, batches, a Hugging Face directory, reports.

Two programs cannot be timed at once on the same cores, and machines drift, so that
figures taken one after the other cannot be compared. Here each program is a process of
its own; they take turns, and while one works the others wait idle (the report shows
how idle).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import flags, logging

from tfopt import inputs, report
from tfopt.cli import script as shared
from tfopt.files import to_json, write_whole
from tfopt.measure import latency
from tfopt.measure.process import TimedProcess

HERE = Path(__file__).parent


FLAGS = flags.FLAGS
# Thread pools go on spinning for some milliseconds when their work is done. Nothing
# forbids it to them (OMP_WAIT_POLICY): that would slow the references down.
_SETTLE_S = 0.05
# Of other programs; at the end it would be the benchmark's own.
_LOAD_AT_START = os.getloadavg()


def define_reference() -> None:
    """Which Python has the programs to compare with."""
    flags.DEFINE_string(
        "reference_python", None, "Python that has PyTorch, transformers and ONNX "
        "Runtime. To make one: python -m venv refs && refs/bin/pip install "
        "torch==2.13.0 transformers onnx onnxruntime onnxscript", required=True)


def define_report() -> None:
    """Where the figures go."""
    flags.DEFINE_string("report", None, "JSON file for the figures.", required=True)


class Turns:
    """Processes that take turns; a context manager, at whose end they end.

    Args:
        commands: name -> command of each.
        num_threads: the most of each.

    Attributes:
        workers: name -> `TimedProcess`.
    """

    def __init__(self, commands: Mapping[str, Sequence], num_threads: int):
        environment = latency.environment(num_threads)
        self.workers: dict[str, TimedProcess] = {}
        try:
            for name, command in commands.items():
                self.workers[name] = TimedProcess(command, environment)
        except BaseException:
            self.__exit__()
            raise
        self._waited_s = dict.fromkeys(commands, 0.0)
        self._burnt_s = dict.fromkeys(commands, 0.0)

    def __enter__(self) -> Turns:
        """Returns itself."""
        return self

    def __exit__(self, *_) -> None:
        """Ends the processes."""
        for worker in self.workers.values():
            worker.close()

    def round(self, number: int, ask: Callable[[TimedProcess], dict],
              names: Sequence[str] | None = None) -> dict[str, dict]:
        """Lets each process work once.

        Args:
            number: of the round; every round another process is the first.
            ask: what to do with a worker.
            names: of those that take part; default all.

        Returns:
            name -> what `ask` returned.
        """
        names = list(names or self.workers)
        shift = number % len(names)
        answers = {}
        for name in names[shift:] + names[:shift]:
            time.sleep(_SETTLE_S)
            others = {n: w.cpu_s() for n, w in self.workers.items() if n != name}
            start = time.perf_counter()
            answers[name] = ask(self.workers[name])
            waited = time.perf_counter() - start
            for other, before in others.items():
                self._waited_s[other] += waited
                self._burnt_s[other] += self.workers[other].cpu_s() - before
        return {name: answers[name] for name in names}

    def idle_cpu(self) -> dict[str, float | None]:
        """CPUs each process kept busy while it waited for its turn; should be near 0.

        None where the system does not tell, or nothing was waited for.
        """
        shares = {name: burnt / self._waited_s[name] if self._waited_s[name] else
                  math.nan for name, burnt in self._burnt_s.items()}
        return {name: None if math.isnan(share) else share
                for name, share in shares.items()}


def seconds_in_turn(files: Mapping[str, Path], num_threads: int, rounds: int,
                    request: Mapping) -> dict[str, list]:
    """Times `.tflite` files against one another.

    Args:
        files: name -> path.
        num_threads: of a request.
        rounds: turns of each file; one more warms up.
        request: what `latency.TimedArtifact` asks.

    Returns:
        name -> seconds [rounds, N].
    """
    commands = {name: latency.command(file, num_threads)
                for name, file in files.items()}
    seconds: dict[str, list] = {name: [] for name in files}
    with Turns(commands, num_threads) as turns:
        for number in range(-1, rounds):  # round -1 warms up
            answers = turns.round(number, lambda worker: worker.ask(**request))
            if number >= 0:
                for name, answer in answers.items():
                    seconds[name].append(answer["seconds"])
    logging.info("Timed %d rounds", rounds)
    return seconds


def define_steps(steps: int, about: str = "Steps of a round.") -> None:
    """What `random_batch` and `steps_in_turn` go by.

    Args:
        steps: of a round, by default.
        about: what a round is for.
    """
    flags.DEFINE_integer("batch_size", 32, "Examples a step.", lower_bound=1)
    flags.DEFINE_integer("tokens", 16, "Length of the texts.", lower_bound=1)
    flags.DEFINE_integer("steps", steps, about, lower_bound=1)
    flags.DEFINE_integer("rounds", 5, "Rounds.", lower_bound=1)


def random_batch(keras_model) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A batch to time training steps by: texts of random words, of two classes.

    Args:
        keras_model: a BERT, whose vocabulary the words are of.

    Returns:
        Its inputs by name <int32>[B, T], and class ids <int32>[B].
    """
    from tfopt.model import config_of

    random = np.random.default_rng(0)
    shape = [FLAGS.batch_size, FLAGS.tokens]
    words = random.integers(config_of(keras_model).vocab_size, size=shape)
    return (inputs.build(words, [FLAGS.tokens] * FLAGS.batch_size,
                         keras_model.input_names),
            random.integers(2, size=FLAGS.batch_size).astype(np.int32))


def compile_step(keras_model) -> None:
    """Compiles a model as all are whose steps are timed against one another."""
    from tfopt import train
    from tfopt.backend import keras

    keras_model.compile(train.AdamW(1e-5), keras.losses.SparseCategoricalCrossentropy(
        from_logits=True))


def steps_in_turn(contestants: Mapping[str, Callable[[int], object]]
                  ) -> dict[str, np.ndarray]:
    """Times training steps against one another: one of each in turn.

    Args:
        contestants: name -> what makes a step, given its number within the round.

    Returns:
        name -> seconds <float>[rounds, steps], after two steps each that warm up.
    """
    steps, rounds = (4, 2) if FLAGS.smoke else (FLAGS.steps, FLAGS.rounds)
    for step in range(2):
        for make in contestants.values():
            make(step)
    seconds = {name: np.zeros((rounds, steps)) for name in contestants}
    for number in range(rounds):
        for step in range(steps):
            # A step at a time: machines drift within seconds.
            for name, make in contestants.items():
                start = time.perf_counter()
                make(step)
                seconds[name][number, step] = time.perf_counter() - start
        logging.info("Round %d of %d: %s ms a step", number + 1, rounds, {
            name: round(1e3 * float(times[number].mean()), 1)
            for name, times in seconds.items()})
    return seconds


def over(seconds, reference) -> float:
    """The ratio of two programs' times [rounds, N], of a round: machines drift."""
    return float(np.median(np.median(seconds, axis=1) / np.median(reference, axis=1)))


def check_agreement(ours: np.ndarray, theirs: np.ndarray, tolerance: float,
                    what: str) -> float:
    """Checks that two programs compute the same model.

    Returns:
        The largest absolute difference.

    Raises:
        ValueError: it is above the tolerance: what was to be compared differs.
    """
    difference = float(np.max(np.abs(np.asarray(ours) - np.asarray(theirs))))
    if not difference <= tolerance:
        raise ValueError(f"{what} must agree within {tolerance:g}. "
                         f"Received: a difference of {difference:g}")
    return difference


def spread(seconds) -> dict[str, float]:
    """Times -> {p50_ms, p90_ms, mean_ms}."""
    milliseconds = 1e3 * np.asarray(seconds)
    return {"p50_ms": float(np.median(milliseconds)),
            "p90_ms": float(np.percentile(milliseconds, 90)),
            "mean_ms": float(np.mean(milliseconds))}


def write_report(figures: Mapping, **environment: object) -> None:
    """Writes {"environment", "figures"} to --report, and prints the plain figures.

    Args:
        figures: names -> numbers, or deeper.
        **environment: entries beside those of `tfopt.report.environment`.
    """
    here = report.environment(command=shared.command(),
                              load_average_at_start=_LOAD_AT_START, **environment)
    write_whole(FLAGS.report, to_json({"environment": here, "figures": figures},
                                         indent=1) + "\n")
    for line in _lines(figures):
        print(line)
    print(f"Figures: {FLAGS.report}")


def _lines(figures: Mapping, prefix: str = "") -> Iterator[str]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _lines(value, f"{prefix}{name}.")
        elif isinstance(value, float):
            yield f"{prefix}{name}: {value:.4g}"
        elif isinstance(value, int | str):
            yield f"{prefix}{name}: {value}"
