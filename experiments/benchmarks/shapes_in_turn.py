r"""Latency of published shapes as int8 `.tflite`, or of files, against the first.

    python experiments/benchmarks/shapes_in_turn.py --shapes=bert_base,mpnet_base \
        --text_file=FILE --report=FILE.json

Shapes are of random weights; --files names artifacts that there are, timed beside them
in turn, one text a request, at the lengths of the file's texts. Between BERT and MPNet
of one size lie what relative positions cost. Cost: two minutes for two base shapes on
two cores. Expected of these: a ratio of at most 1.05.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import common
import numpy as np
from absl import flags
from encoders_vs_onnxruntime import define_texts, natural_texts
from latency_vs_onnxruntime import time_in_turn

from tfopt import model
from tfopt.cli import script as shared
from tfopt.export import tflite
from tfopt.files import write_whole
from tfopt.measure import latency

FLAGS = flags.FLAGS


def main() -> None:
    """Exports, times in turn, and reports."""
    texts = natural_texts()
    with tempfile.TemporaryDirectory() as directory:
        commands = {}
        for name in FLAGS.shapes:
            file = Path(directory) / f"{name}.tflite"
            write_whole(file, tflite.convert(model.load(f"random:{name}"),
                                             FLAGS.scheme))
            commands[name] = latency.command(file, FLAGS.num_threads)
        commands |= {name: latency.command(Path(name), FLAGS.num_threads)
                     for name in FLAGS.files}
        seconds, idle = time_in_turn(commands, texts, FLAGS.rounds)
    first = next(iter(commands))
    # Of each round, since the machine's speed changes from one to the next.
    p50 = {name: 1e3 * np.median(value, axis=1) for name, value in seconds.items()}
    common.write_report({
        "p50_ms": {name: float(np.median(value)) for name, value in p50.items()},
        "ratio": {name: float(np.median(value / p50[first]))
                  for name, value in p50.items()},
        "scheme": FLAGS.scheme, "texts": len(texts["ids"]),
        "tokens_mean": float(np.mean([len(ids) for ids in texts["ids"]])),
        "idle_cpu": idle}, num_threads=FLAGS.num_threads)


if __name__ == "__main__":
    shared.define_measuring()
    common.define_report()
    flags.DEFINE_list("shapes", ["bert_base", "mpnet_base"], "Published shapes.")
    flags.DEFINE_list("files", [], "Artifacts, timed beside the shapes.")
    define_texts()
    flags.DEFINE_string("scheme", "dynamic_wi8_afp32", "Of the exports.")
    shared.run(main)
