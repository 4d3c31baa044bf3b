r"""How long the quantized exports take, at a text's natural length.

    python experiments/benchmarks/quantized_latency.py --model_dir=DIR \
        --train_file=F --dev_file=F --report=FILE.json

Every export of a fine-tuned model in a process of its own, the same dev texts, in turn.
Cost: five minutes for MiniLM; static_wi8_ai16 has slow code on CPUs and is left out
unless --exports names it. Expected: static_wi8_ai8 as fast as dynamic_wi8_afp32, 4 bits
slower.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import common
import numpy as np
from absl import flags

from tfopt import model
from tfopt.cli import script as shared
from tfopt.export import tflite
from tfopt.files import write_whole

FLAGS = flags.FLAGS
REFERENCE = "dynamic_wi8_afp32"


def main() -> None:
    """Exports, times in turn, and reports."""
    dataset = shared.fine_tuning().dataset()
    graph = tflite.float_graph(model.load(FLAGS.model_dir))
    dev = dataset.report["dev"].encoded
    rows = np.unique(np.linspace(0, len(dev.ids) - 1, FLAGS.texts).astype(int))
    request = {"ids": [dev.ids[row] for row in rows],
               "first_lengths": [dev.first_lengths[row] for row in rows]}
    rounds = 2 if FLAGS.smoke else FLAGS.rounds
    with tempfile.TemporaryDirectory() as directory:
        files = {"float32": Path(directory) / "float32.tflite"}
        write_whole(files["float32"], graph.contents)
        for scheme in {REFERENCE: None, **dict.fromkeys(FLAGS.exports)}:
            files[scheme] = Path(directory) / f"{scheme}.tflite"
            write_whole(files[scheme], tflite.quantize(
                graph, scheme, calibration=dataset.calibration, method=FLAGS.ranges))
        sizes = {name: float(file.stat().st_size) for name, file in files.items()}
        seconds = common.seconds_in_turn(files, FLAGS.num_threads, rounds, request)
    common.write_report({name: common.spread(times) | {
        "p50_over_dynamic": common.over(times, seconds[REFERENCE]),
        "file_bytes": sizes[name]} for name, times in seconds.items()},
        num_threads=FLAGS.num_threads, mean_tokens=float(np.mean(
            [len(ids) for ids in request["ids"]])))


def define_flags() -> None:
    """Defines the flags of this script."""
    shared.define_model()
    shared.define_data()
    shared.define_training()
    shared.define_measuring()
    common.define_report()
    flags.DEFINE_list("exports", [
        "static_wi8_ai8", "integer_wi8_ai8", "dynamic_wi4_afp32",
        "dynamic_wi4b32_afp32", "weight_only_wi8_afp32"], "Quantized exports to time.")
    flags.DEFINE_integer("texts", 60, "Dev texts of a round.", lower_bound=2)
    flags.DEFINE_integer("rounds", 15, "Turns of each file.", lower_bound=1)


if __name__ == "__main__":
    define_flags()
    shared.run(main)
