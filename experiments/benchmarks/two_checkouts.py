r"""This checkout against another, of the same weights: exports, requests, steps.

    git worktree add ../before COMMIT
    python experiments/benchmarks/two_checkouts.py --other=../before \
        --model_dir=DIR --report=FILE.json

For a change that must change nothing: every export's bytes by both, the p50 of the
int8 file through each one's own interpreter, a training step of each in turn. The
model is a directory that both load, such as finetune.py leaves. Cost: eight minutes for
MiniLM on two cores. Expected: equal bytes, ratios of 1 within noise.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import common
import numpy as np
from absl import flags

from tfopt import data, inputs
from tfopt.cli import script as shared
from tfopt.data import tokenizer
from tfopt.export import schemes
from tfopt.measure.process import TimedProcess

FLAGS = flags.FLAGS
HERE = common.HERE.parents[1]
_TIMED = "dynamic_wi8_afp32"


def environment(checkout: Path) -> dict[str, str]:
    """In which `import tfopt` is that of a checkout."""
    return {"PYTHONPATH": os.fspath(checkout.resolve())}


def in_turn(workers: Mapping[str, TimedProcess], rounds: int,
            ask: Callable[[TimedProcess], dict]) -> dict[str, np.ndarray]:
    """Seconds <float>[rounds, N] of each; a first round warms up."""
    seconds: dict[str, list] = {name: [] for name in workers}
    for number in range(-1, rounds):
        order = list(workers) if number % 2 else list(reversed(workers))
        for name in order:
            answer = ask(workers[name])
            if number >= 0:
                seconds[name].append(answer["seconds"])
    return {name: np.array(values) for name, values in seconds.items()}


def requests(directory: Path, texts: int) -> data.Encoded:
    """The demo's dev texts, as the model's tokenizer reads them."""
    corpus = data.read(data.DEMO_DEV_FILE)
    return tokenizer.from_directory(directory).encode(corpus.texts[:texts],
                                                      max_length=FLAGS.max_length)


def write_examples(directory: Path, path: Path) -> None:
    """Some train texts, by which both calibrate, and a batch to train on."""
    corpus = data.read(data.DEMO_TRAIN_FILE)
    encoded = tokenizer.from_directory(directory).encode(
        corpus.texts[:FLAGS.calibration_texts], max_length=FLAGS.max_length)
    arrays = {f"{name}_{number}": value
              for number, example in enumerate(inputs.examples(encoded))
              for name, value in example.items()}
    np.savez(path, count=len(encoded.ids), **arrays)


def main() -> None:
    """Compares and reports."""
    checkouts = {"this": HERE, "other": Path(FLAGS.other)}
    if not (checkouts["other"] / "tfopt").is_dir():
        raise ValueError("--other must be a checkout of tfopt. Received: "
                         f"--other={FLAGS.other}")
    model_dir = Path(FLAGS.model_dir).resolve()
    rounds = 2 if FLAGS.smoke else FLAGS.rounds
    exports = [_TIMED] if FLAGS.smoke else list(dict.fromkeys([_TIMED, *FLAGS.schemes]))
    with tempfile.TemporaryDirectory() as place:
        write_examples(model_dir, Path(place, "examples.npz"))
        workers = {}
        try:
            for name, checkout in checkouts.items():
                command = [sys.executable,
                           common.HERE / "two_checkouts_worker.py", model_dir, place,
                           name, str(FLAGS.batch_size), str(FLAGS.tokens), *exports]
                workers[name] = TimedProcess(command, environment(checkout))
            hashes = {name: worker.ready["sha256"] for name, worker in workers.items()}
            steps = in_turn(workers, rounds, lambda worker: worker.ask(
                steps=2 if FLAGS.smoke else FLAGS.steps))
        finally:
            for worker in workers.values():
                worker.close()
        answers = timed_requests(checkouts, Path(place), model_dir, rounds)
    common.write_report({
        "exports": {name: {"sha256": hashes["this"][name],
                           "same_bytes": hashes["this"][name] == hashes["other"][name]}
                    for name in exports},
        "request_ms": {name: common.spread(taken) for name, taken in answers.items()},
        "request_this_over_other": common.over(answers["this"], answers["other"]),
        "step_ms": {name: common.spread(taken) for name, taken in steps.items()},
        "step_this_over_other": common.over(steps["this"], steps["other"]),
    }, batch_size=FLAGS.batch_size, tokens=FLAGS.tokens, threads=FLAGS.num_threads)


def timed_requests(checkouts: Mapping[str, Path], place: Path, model_dir: Path,
                   rounds: int) -> dict[str, np.ndarray]:
    """Seconds of requests to each checkout's int8 file, by its own interpreter."""
    encoded = requests(model_dir, 8 if FLAGS.smoke else FLAGS.texts)
    workers = {}
    try:
        for name, checkout in checkouts.items():
            command = [sys.executable, "-m", "tfopt.measure.worker",
                       place / name / f"{_TIMED}.tflite", str(FLAGS.num_threads)]
            workers[name] = TimedProcess(command, environment(checkout))
        return in_turn(workers, rounds, lambda worker: worker.ask(
            ids=encoded.ids, first_lengths=encoded.first_lengths))
    finally:
        for worker in workers.values():
            worker.close()


def define_flags() -> None:
    """Defines the flags of this script."""
    shared.define_model()
    shared.define_measuring()
    common.define_report()
    common.define_steps(5)
    flags.DEFINE_string("other", None, "Another checkout of tfopt.", required=True)
    flags.DEFINE_multi_enum("schemes", list(schemes.SCHEMES), list(schemes.SCHEMES),
                            f"What to export; {_TIMED} always.")
    flags.DEFINE_integer("texts", 100, "Requests of a round.", lower_bound=1)
    flags.DEFINE_integer("calibration_texts", 40, "To calibrate by.", lower_bound=2)
    flags.DEFINE_integer("max_length", 128, "Tokens to which texts are cut.",
                         lower_bound=4)
    flags.FLAGS.set_default("rounds", 30)


if __name__ == "__main__":
    define_flags()
    shared.run(main)
