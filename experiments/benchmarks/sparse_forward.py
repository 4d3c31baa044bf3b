r"""What sparse kernels do for a whole model in Keras, and where the rest of it goes.

    python experiments/benchmarks/sparse_forward.py --report=FILE.json

A BERT of random weights, its encoder's kernels pruned in blocks, as it is and after the
pass `sparse_dense`, in turn, each one graph. Then each kind of encoder layer alone, as
often as the model has it. All of that once for each number of threads within an
operation (TF_NUM_INTRAOP_THREADS), in a process of its own, several times over: many
small products side by side do best with one, a large one with all. Cost: six minutes on
two cores for BERT-Base, and the trials of "auto", kept under ~/.cache/tfopt. Expected:
at 90 % of blocks of 64x64 and 128 tokens 2.5 times as fast, each with the number that
suits it; what is left is attention and LayerNorm, which have no zeros.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import common
import numpy as np
from absl import flags, logging

from tfopt import compress, inputs, model
from tfopt.backend import keras, tf
from tfopt.cli import script as shared
from tfopt.compress.passes.sparse_dense import SparseDense
from tfopt.files import to_json, write_whole
from tfopt.types import INPUT_NAMES

FLAGS = flags.FLAGS


def pruned(config: model.EncoderConfig) -> keras.Model:
    """A BERT whose encoder kernels have zeros in random blocks."""
    made = model.build(config)
    random = np.random.default_rng(0)
    for layer in made.layers:
        if isinstance(layer, keras.layers.Dense) and layer.name.startswith("layer_"):
            sizes = layer.kernel.shape
            if any(size % FLAGS.block for size in sizes):
                raise ValueError("--block must divide the encoder's kernels. Received: "
                                 f"{FLAGS.block}, {layer.name} of {tuple(sizes)}")
            places = np.arange(np.prod([size // FLAGS.block for size in sizes]))
            kept = random.permutation(places) >= round(FLAGS.sparsity * len(places))
            mask = kept.reshape(sizes[0] // FLAGS.block, -1)
            layer.kernel.assign(layer.kernel * np.kron(
                mask, np.ones([FLAGS.block, FLAGS.block])))
    return made


def graph(call: Callable, arrays: Sequence, times: int = 1) -> Callable[[], float]:
    """One graph of a call on inputs, so many times one after another.

    Returns:
        A function that runs it, and tells the seconds of one.
    """
    @tf.function(input_signature=[tf.TensorSpec(x.shape, x.dtype) for x in arrays],
                 autograph=False)
    def repeated(*x):
        done = []
        for _ in range(times):
            with tf.control_dependencies(done[-1:]):
                fresh = list(map(tf.identity, x))  # else one would do for all
                done.append(call(fresh if len(fresh) > 1 else fresh[0])[:1, :1])
        return tf.add_n(done)

    compiled = repeated.get_concrete_function()

    def run() -> float:
        start = time.perf_counter()
        compiled(*arrays).numpy()
        return (time.perf_counter() - start) / times

    return run


def in_turn(calls: Mapping[str, Callable], rounds: int) -> dict[str, np.ndarray]:
    """Seconds <float>[rounds] of each, after two that warm up."""
    seconds: dict[str, list] = {name: [] for name in calls}
    for _ in range(rounds + 2):
        for name, run in calls.items():
            seconds[name].append(run())
    return {name: np.array(taken[2:]) for name, taken in seconds.items()}


def kind_of(layer: keras.layers.Layer) -> str | None:
    """Name of an encoder layer's part, such as "ffn_output"; None of other layers."""
    head, _, tail = layer.name.removeprefix("layer_").partition("_")
    return tail if layer.name.startswith("layer_") and head.isdigit() else None


def by_kind(models: Mapping[str, keras.Model]) -> dict[str, dict[str, float]]:
    """Times a layer of each kind alone: kind -> ms of all of that kind, by model."""
    random = np.random.default_rng(0)
    calls: dict[str, Callable] = {}
    counts: dict[str, int] = {}
    for name, whole in models.items():
        counts.clear()
        for layer in whole.layers:
            kind = kind_of(layer)
            if kind is None or isinstance(layer, keras.layers.Dropout):
                continue
            counts[kind] = counts.get(kind, 0) + 1
            if counts[kind] == 1:
                given = layer.input if isinstance(layer.input, list) else [layer.input]
                arrays = [
                    tf.ones([1, FLAGS.tokens], tf.int32) if x.dtype == tf.int32 else
                    tf.constant(random.standard_normal([1, FLAGS.tokens, x.shape[-1]]),
                                x.dtype) for x in given]
                calls[f"{name} {kind}"] = graph(layer, arrays, times=8)
    seconds = in_turn(calls, 3 if FLAGS.smoke else FLAGS.rounds)
    return {kind: {f"{name}_ms": 1e3 * count * float(np.median(
        seconds[f"{name} {kind}"])) for name in models}
            for kind, count in counts.items()}


def time_models() -> dict:
    """Times both models with the threads that TensorFlow was started with."""
    config = model.named(FLAGS.shape)
    dense = pruned(config)
    found = SparseDense(block=FLAGS.block, backend=FLAGS.backend, rows=(FLAGS.tokens,)
                        ).apply(compress.copy_model(dense), compress.Context())
    models = {"dense": dense, "sparse": found.model}
    ids = np.random.default_rng(0).integers(config.vocab_size, size=[1, FLAGS.tokens])
    values = [tf.constant(value)
              for value in inputs.build(ids, [FLAGS.tokens]).values()]

    def forward(whole):
        return lambda x: whole(dict(zip(INPUT_NAMES, x, strict=True)), training=False)

    difference = common.check_agreement(
        *(forward(whole)(values) for whole in models.values()), 1e-3, "Logits")
    seconds = in_turn({name: graph(forward(whole), values)
                       for name, whole in models.items()},
                      3 if FLAGS.smoke else FLAGS.rounds)
    return {
        **{f"{name}_ms": 1e3 * float(np.median(taken))
           for name, taken in seconds.items()},
        "speedup": float(np.median(seconds["dense"] / seconds["sparse"])),
        "largest_difference_of_logits": difference,
        "layers_sparse": len(found.touched), "by_kind": by_kind(models)}


def in_a_process(threads: int, turn: int) -> dict:
    """`time_models` with so many threads within an operation."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "figures.json"
        logging.info("Turn %d of %d, %d threads within an operation", turn + 1,
                     FLAGS.turns, threads)
        subprocess.run(
            [sys.executable, *sys.argv, f"--report={path}", "--within"], check=True,
            env={**os.environ, "TF_NUM_INTRAOP_THREADS": str(threads),
                 "TF_NUM_INTEROP_THREADS": str(FLAGS.num_threads)})
        return json.loads(path.read_text(encoding="utf-8"))


def main() -> None:
    """Times, reports."""
    if FLAGS.within:
        write_whole(FLAGS.report, to_json(time_models()))
        return
    counts = sorted({1, FLAGS.num_threads})
    turns = [{count: in_a_process(count, turn) for count in counts}
             for turn in range(FLAGS.turns)]

    def median(count, name):
        return float(np.median([turn[count][name] for turn in turns]))

    best = {f"{name}_ms": min(median(count, f"{name}_ms") for count in counts)
            for name in ("dense", "sparse")}
    figures = {
        **best, "speedup": float(np.median([
            min(turn[count]["dense_ms"] for count in counts)
            / min(turn[count]["sparse_ms"] for count in counts) for turn in turns])),
        "by_threads_within": {str(count): {
            **{name: median(count, name) for name in ("dense_ms", "sparse_ms",
                                                      "speedup")},
            **{name: turns[-1][count][name] for name in (
                "largest_difference_of_logits", "layers_sparse", "by_kind")}}
            for count in counts}}
    common.write_report(figures, shape=FLAGS.shape, tokens=FLAGS.tokens,
                        block=FLAGS.block, sparsity=FLAGS.sparsity,
                        num_threads=FLAGS.num_threads)


if __name__ == "__main__":
    common.define_report()
    flags.DEFINE_enum("shape", "bert_base", model.SHAPE_NAMES, "The model.")
    flags.DEFINE_integer("tokens", 128, "Of the one text in the batch.", lower_bound=1)
    flags.DEFINE_integer("block", 64, "Blocks that are zeros or not.", lower_bound=1)
    flags.DEFINE_float("sparsity", 0.9, "Part of the blocks that is zeros.")
    flags.DEFINE_string("backend", "auto", "Of the pass sparse_dense.")
    flags.DEFINE_integer("rounds", 31, "Rounds of both models in a process.",
                         lower_bound=1)
    flags.DEFINE_integer("turns", 3, "Processes of each number of threads.",
                         lower_bound=1)
    flags.DEFINE_integer("num_threads", 2, "Most threads.", lower_bound=1)
    flags.DEFINE_bool("within", False, "Times in this process; for the script itself.")
    flags.DEFINE_bool("smoke", False, "Three rounds: shows that everything runs.")
    shared.run(main)
