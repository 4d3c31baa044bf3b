r"""What zeros buy in a `.tflite`: bytes, compressed bytes, and time.

    python experiments/benchmarks/sparsity.py --model_dir=minilm --report=FILE.json

The model is pruned by magnitude without training, since neither bytes nor time depend
on which weights go. Cost: five minutes for MiniLM. Expected: fewer bytes from gzip and
from the sparse encoding, and no time saved by either; a low rank saves both.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import common
import numpy as np
from absl import flags

from tfopt import compress, model
from tfopt.cli import script as shared
from tfopt.compress.base import Context
from tfopt.export import tflite
from tfopt.files import write_whole
from tfopt.measure import cost

FLAGS = flags.FLAGS
DENSE = "dense"
PASSES = {
    "unstructured_50": {"pass": "magnitude", "final_sparsity": 0.5},
    "unstructured_80": {"pass": "magnitude", "final_sparsity": 0.8},
    "unstructured_90": {"pass": "magnitude", "final_sparsity": 0.9},
    "2:4": {"pass": "magnitude", "pattern": "2:4"},
    "4x1_80": {"pass": "magnitude", "final_sparsity": 0.8, "pattern": "4x1"},
    "16x1_80": {"pass": "magnitude", "final_sparsity": 0.8, "pattern": "16x1"},
    "64x64_80": {"pass": "magnitude", "final_sparsity": 0.8, "pattern": "64x64"},
    "low_rank_96": {"pass": "low_rank", "rank": 96},
}
SCHEMES = ("float32", "sparse_float32", "dynamic_wi8_afp32")
_REPEATS = 10  # of a turn; the first, which may hold a resize, is not counted


def variants(keras_model):
    """Name -> the model, compressed without training."""
    yield DENSE, keras_model
    for name, fields in PASSES.items():
        step = compress.from_fields(fields)
        if hasattr(step, "prune_at_once"):
            yield name, step.prune_at_once(keras_model)
        else:
            yield name, step.apply(compress.copy_model(keras_model), Context()).model


def main() -> None:
    """Exports, times in turn, and reports."""
    keras_model = model.load(FLAGS.model_dir)
    vocabulary = model.config_of(keras_model).vocab_size
    ids = np.random.default_rng(0).integers(vocabulary, size=FLAGS.tokens).tolist()
    request = {"ids": [ids] * (_REPEATS + 1),
               "first_lengths": [len(ids)] * (_REPEATS + 1)}
    rounds = 2 if FLAGS.smoke else FLAGS.rounds
    figures: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as directory:
        files = {}
        for name, variant in variants(keras_model):
            for scheme in SCHEMES:
                label = f"{name} {scheme}"
                files[label] = Path(directory) / f"{len(files)}.tflite"
                write_whole(files[label], tflite.convert(variant, scheme))
                figures[label] = cost.of_file(files[label]) | cost.of_tflite(
                    files[label])
        seconds = {label: np.array(times)[:, 1:] for label, times in
                   common.seconds_in_turn(files, FLAGS.num_threads, rounds,
                                          request).items()}
    for label, figure in figures.items():
        figure |= common.spread(seconds[label]) | {"time_over_dense": common.over(
            seconds[label], seconds[f"{DENSE} {label.split()[1]}"])}
    common.write_report(figures, num_threads=FLAGS.num_threads, tokens=FLAGS.tokens)


if __name__ == "__main__":
    shared.define_model()
    shared.define_measuring()
    common.define_report()
    flags.DEFINE_integer("tokens", 32, "Length of the text.", lower_bound=1)
    flags.DEFINE_integer("rounds", 20, "Turns of each file.", lower_bound=1)
    shared.run(main)
