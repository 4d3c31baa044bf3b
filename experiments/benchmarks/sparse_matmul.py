r"""When zeros pay in TensorFlow: products without them against dense ones.

    python experiments/benchmarks/sparse_matmul.py --report=FILE.json

Of the sizes of a BERT's kernels, each pruned at random, by single weights and by
blocks; times are of one product in a graph, in turn with `tf.matmul` by the kernel with
its zeros, a speedup the median of the rounds'. "auto" is the form that `tfopt.sparse`
chooses from a trial of its own for that many rows, timed alone with dense. A shape is
reported when it is done, and the same command after a kill goes on with the next. Cost:
about half an hour on two cores. Expected, of 128 rows: blocks of 64 pay from
between half and eight tenths zeros on, those of 32 from eight tenths, single weights
from 95 %, if the CSR matrix is made once; auto is never slower than dense by more than
3 %, but for the noise of products below 0.3 ms.
"""

from __future__ import annotations

import dataclasses
import io
import tempfile
from collections.abc import Mapping
from pathlib import Path

import common
import numpy as np
from absl import flags, logging

from tfopt.backend import tf
from tfopt.cli import script as shared
from tfopt.files import write_whole
from tfopt.sparse import choose, matmul, storage
from tfopt.sparse.choose import in_one_call, seconds_in_turn, speedup

FLAGS = flags.FLAGS
UNSTRUCTURED = "unstructured"
DENSE, AUTO, CONSTANT = "dense", "auto", "csr_constant"
_PAIR = 5  # times as many rounds for auto beside dense
_LOST = 4.0  # times as slow as dense: the rounds after the second are spared


def kernel_of(inputs: int, outputs: int, block: int, sparsity: float) -> np.ndarray:
    """A random kernel <float32>[K, N] of which so many blocks are zeros."""
    random = np.random.default_rng(0)
    rows, columns = inputs // block, outputs // block
    count = rows * columns
    kept = random.permutation(count) >= min(count - 1, round(sparsity * count))
    mask = kept.reshape(rows, columns).repeat(block, 0).repeat(block, 1)
    return (mask * random.standard_normal([inputs, outputs])).astype(np.float32)


def product_of(kernel: np.ndarray, backend: str, block: int | None):
    """A function x -> x W; its values are in a variable, as those of a layer."""
    if backend == CONSTANT:
        stored = storage.store(kernel, "csr").constant()
        return lambda x: matmul(x, stored)
    stored = storage.store(kernel, backend, block)
    variable = tf.Variable(stored.values)
    if backend == "coo":
        return lambda x: matmul(x, tf.SparseTensor(
            stored.indices, variable.read_value(), stored.dense_shape))
    return lambda x: matmul(x, dataclasses.replace(stored,
                                                   values=variable.read_value()))


def forms(block: int) -> list[str]:
    """The forms to time of a pattern."""
    asked = [name for name in FLAGS.backends if name != DENSE]
    return [name for name in asked if block > 1 or not storage.is_block(name)]


def time_kernel(kernel: np.ndarray, block: int, chosen: Mapping) -> dict[str, dict]:
    """Times one kernel in all its forms.

    Args:
        kernel: <float32>[K, N].
        block: in which it is pruned; 1 for single weights.
        chosen: M -> the `Choice` of auto.

    Returns:
        M -> figures.
    """
    inputs = len(kernel)
    dense = tf.Variable(kernel)  # one for all: where it lies counts for 8 % of one row
    calls = {DENSE: in_one_call(lambda x: tf.matmul(x, dense), inputs)}
    size = block if block > 1 else None
    for name in forms(block) if (kernel == 0).any() else ():
        calls[name] = in_one_call(product_of(kernel, name, size), inputs)
    autos = {(found.backend, found.block) for found in chosen.values()}
    by_choice = {(name, size): in_one_call(
        (lambda x: matmul(x, dense)) if name == DENSE else product_of(
            kernel, CONSTANT if name == "csr" and FLAGS.frozen else name, size), inputs)
                 for name, size in autos}
    figures = {}
    for rows, found in chosen.items():
        rounds = 3 if FLAGS.smoke else FLAGS.rounds
        seconds = seconds_in_turn(calls, rows, inputs, rounds, lost=_LOST)
        reference = seconds.pop(DENSE)
        speedups = {name: speedup(reference, taken) for name, taken in seconds.items()}
        # Alone with dense, and longer: what counts is a difference of 3 %.
        pair = seconds_in_turn({DENSE: calls[DENSE], AUTO: by_choice[
            found.backend, found.block]}, rows, inputs, _PAIR * rounds)
        speedups[AUTO] = speedup(pair[DENSE], pair[AUTO])
        figures[str(rows)] = {
            "dense_ms": 1e3 * float(np.median(reference)),
            "auto_backend": found.backend, "auto_block": found.block,
            "auto_foretold": found.speedup, "speedup": speedups,
            "given_up": sorted(set(calls) - set(speedups) - {DENSE})}
    return figures


def time_shape(inputs: int, outputs: int) -> dict:
    """Times kernels of one shape: pattern -> sparsity -> M -> figures."""
    figures: dict[str, dict] = {}
    for block in map(int, FLAGS.blocks):
        pattern = f"{block}x{block}" if block > 1 else UNSTRUCTURED
        if inputs % block or outputs % block:
            raise ValueError("A block must divide all shapes. Received: "
                             f"{block}, {inputs}x{outputs}")
        for sparsity in map(float, FLAGS.sparsities):
            kernel = kernel_of(inputs, outputs, block, sparsity)
            with tempfile.TemporaryDirectory() as directory:
                chosen = {rows: choose(kernel, rows=rows, frozen=FLAGS.frozen,
                                       cache_file=Path(directory) / "choices.json")
                          for rows in map(int, FLAGS.rows)}
            figures.setdefault(pattern, {})[f"{sparsity:g}"] = found = time_kernel(
                kernel, block, chosen)
            logging.info("%dx%d %s %g: %s", inputs, outputs, pattern, sparsity, {
                rows: f"{own['auto_backend']} {own['speedup'][AUTO]:.2f}"
                for rows, own in found.items()})
    return figures


def draw(figures: Mapping[str, Mapping]) -> bytes | None:
    """Draws speedups over sparsity: a row a pattern, a column a number of rows.

    Returns:
        A PNG, each line the median of all shapes; None without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import NullFormatter, ScalarFormatter
    except ImportError:
        logging.warning("No picture: matplotlib is not installed")
        return None
    patterns = list(next(iter(figures.values())))
    counts = list(map(str, FLAGS.rows))
    figure = Figure(figsize=(3.2 * len(counts), 2.8 * len(patterns)),
                    layout="constrained")
    axes = figure.subplots(len(patterns), len(counts), squeeze=False, sharex=True,
                           sharey=True)
    names = [*[name for name in FLAGS.backends if name != DENSE], AUTO]
    for i, pattern in enumerate(patterns):
        for j, rows in enumerate(counts):
            for number, name in enumerate(names):
                points = [(float(sparsity), np.median(found)) for sparsity in map(
                    "{:g}".format, map(float, FLAGS.sparsities)) if (found := [
                        shape[pattern][sparsity][rows]["speedup"][name]
                        for shape in figures.values()
                        if name in shape[pattern][sparsity][rows]["speedup"]])]
                if points:
                    axes[i, j].plot(*zip(*points, strict=True), color=f"C{number}",
                                    label=name, marker="." if name != AUTO else "",
                                    linestyle="--" if name == AUTO else "-")
            axes[i, j].axhline(1, color="#888888", linewidth=0.8)  # breaks even
            axes[i, j].set(yscale="log", title=f"{pattern}, rows of x: {rows}")
        axes[i, 0].set(ylabel="times as fast as dense", yticks=[0.25, 0.5, 1, 2, 4])
        axes[i, 0].yaxis.set_major_formatter(ScalarFormatter())
        axes[i, 0].yaxis.set_minor_formatter(NullFormatter())
    for bottom in axes[-1]:
        bottom.set_xlabel("zeros")
    lines = {line.get_label(): line for own in axes.flat for line in own.get_lines()
             if not line.get_label().startswith("_")}
    figure.legend(lines.values(), lines.keys(), ncols=len(lines), frameon=False,
                  loc="outside lower center")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def main() -> None:
    """Times shape after shape, reports and draws."""
    unknown = set(FLAGS.backends) - {*storage.BACKENDS, CONSTANT}
    if unknown:
        raise ValueError(f"--backends are of {(*storage.BACKENDS, CONSTANT)}. "
                         f"Received: {sorted(unknown)}")
    figures = shared.reported_figures(FLAGS.report) or {"shapes": {}}
    for shape in FLAGS.shapes:
        if shape not in figures["shapes"]:
            figures["shapes"][shape] = time_shape(*map(int, shape.split("x")))
            shared.write_figures(FLAGS.report, figures)
    cells = [cell for shape in figures["shapes"].values() for pattern in shape.values()
             for sparsity in pattern.values() for cell in sparsity.values()]
    autos = [cell["speedup"][AUTO] for cell in cells]
    left = [cell["speedup"][AUTO] for cell in cells if cell["auto_backend"] != DENSE]
    figures["auto"] = {
        "least_speedup": min(autos), "median_speedup": float(np.median(autos)),
        "cells": len(cells), "cells_slower_by_3_percent": sum(
            value < 0.97 for value in autos),
        "cells_not_dense": len(left),
        # Dense beside dense tells but the noise.
        "least_speedup_not_dense": min(left, default=None)}
    common.write_report(figures, choice_rounds=FLAGS.rounds)
    if FLAGS.picture and (drawn := draw(figures["shapes"])):
        write_whole(FLAGS.picture, drawn)


if __name__ == "__main__":
    common.define_report()
    flags.DEFINE_list("shapes", ["768x768", "768x3072", "3072x768", "384x384",
                                 "384x1536", "1536x384"], "Inputs x outputs.")
    flags.DEFINE_list("blocks", ["1", "64", "32"], "Blocks in which kernels are pruned;"
                      " 1 for single weights.")
    flags.DEFINE_list("sparsities", ["0", "0.5", "0.8", "0.9", "0.95", "0.99"],
                      "Parts of the blocks that are zeros.")
    flags.DEFINE_list("rows", ["1", "16", "128", "1024"], "Rows of x.")
    flags.DEFINE_list("backends", ["csr", CONSTANT, "block", "block_unrolled",
                                    "block_strips"],
                      f"Forms to time beside dense: of {storage.BACKENDS}, and "
                      f"{CONSTANT}, whose matrix is made once. coo takes long.")
    flags.DEFINE_bool("frozen", True, "Whether auto is for a process that only runs a "
                      "model: a CSR matrix is made once then.")
    flags.DEFINE_integer("rounds", 11, "Turns of each form.", lower_bound=1)
    flags.DEFINE_string("picture", None, "PNG of speedups over sparsity.")
    flags.DEFINE_bool("smoke", False, "Three rounds: shows that everything runs.")
    shared.run(main)
