r"""One `.tflite` of open length against files of fixed lengths.

    python experiments/benchmarks/length_modes.py --baseline_dir=DIR --report=FILE.json

DIR is what finetune.py left (or any other checkpoint). The open file is resized to each
text; a fixed one is laid out once. Timed at exactly the fixed lengths, where a fixed
file wastes nothing on padding. Cost: two minutes for MiniLM. Expected: a ratio (open /
fixed) within a few per cent of 1, so that one file serves every length.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import common
import numpy as np
from absl import flags, logging

from tfopt import model
from tfopt.cli import script as shared
from tfopt.export import tflite
from tfopt.files import write_whole
from tfopt.measure import latency

FLAGS = flags.FLAGS
OPEN = "open"
_REPEATS = 20  # of a turn; the first, which may hold a resize, is not counted


def main() -> None:
    """Exports, times in turn, and reports."""
    lengths = FLAGS.lengths
    keras_model = model.load(FLAGS.baseline_dir)
    config = model.config_of(keras_model)
    if not all(1 <= length <= config.max_positions for length in lengths):
        raise ValueError(f"--lengths must be 1 to {config.max_positions}, the model's "
                         f"positions. Received: {lengths}")
    ids = np.random.default_rng(0).integers(config.vocab_size, size=max(lengths))
    rounds = 2 if FLAGS.smoke else FLAGS.rounds
    seconds = {OPEN: {length: [] for length in lengths},
               "fixed": {length: [] for length in lengths}}
    with tempfile.TemporaryDirectory() as directory:
        files = {}
        for length in (None, *lengths):
            name = OPEN if length is None else str(length)
            files[name] = Path(directory) / f"{name}.tflite"
            write_whole(files[name], tflite.convert(keras_model, FLAGS.scheme,
                                                    length=length))
        sizes = {name: file.stat().st_size for name, file in files.items()}
        with common.Turns({name: latency.command(file, FLAGS.num_threads)
                           for name, file in files.items()},
                          FLAGS.num_threads) as turns:
            for number in range(-1, rounds):  # round -1 warms up
                for length in lengths:
                    examples = {"ids": [ids[:length].tolist()] * (_REPEATS + 1),
                                "first_lengths": [length] * (_REPEATS + 1)}
                    answers = turns.round(
                        number,
                        lambda worker, examples=examples: worker.ask(**examples),
                        [OPEN, str(length)])
                    if number >= 0:
                        for kind, name in ((OPEN, OPEN), ("fixed", str(length))):
                            seconds[kind][length].append(answers[name]["seconds"][1:])
            idle_cpu = turns.idle_cpu()
    logging.info("Timed %d rounds", rounds)
    by_round = {f"t{length}": np.median(seconds[OPEN][length], axis=1)
                / np.median(seconds["fixed"][length], axis=1) for length in lengths}
    figures = {
        "latency": {f"t{length}": {kind: common.spread(seconds[kind][length])
                                   for kind in seconds} for length in lengths},
        "ratio": {name: float(np.median(value)) for name, value in by_round.items()},
        "ratio_by_round": {name: value.tolist() for name, value in by_round.items()},
        "file_bytes": sizes,
        "idle_cpu": idle_cpu,
    }
    common.write_report(figures, num_threads=FLAGS.num_threads, scheme=FLAGS.scheme)


if __name__ == "__main__":
    shared.define_measuring()
    common.define_report()
    flags.DEFINE_string("baseline_dir", None, "The Keras model to export, as "
                        "finetune.py leaves it; or any checkpoint.", required=True)
    flags.DEFINE_enum("scheme", "dynamic_wi8_afp32", tflite.SCHEMES, "The export.")
    flags.DEFINE_multi_integer("lengths", [32, 64, 128], "A token count; may be given "
                               "several times.")
    flags.DEFINE_integer("rounds", 30, "Turns at each length.", lower_bound=1)
    shared.run(main)
