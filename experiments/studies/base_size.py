r"""A base-size encoder compressed from itself as teacher: speeds, sparsities, int8.

    python experiments/studies/base_size.py --model_dir=all-mpnet-base-v2 \
        --train_file=F --dev_file=F --seeds=0 --epochs=3 --learning_rate=3e-5 \
        --points=2,5,12 --sparsities=0.5,0.8 --hour_price=2.5 --report=FILE.json

Source: Xia et al. 2022, "CoFi", arXiv:2204.00408, table 2: BERT-Base on SST-2, on a
GPU, 2.1x for 0.2 points, 4.7x for 0.6, 12.2x for 2.8, in up to 20 hours; here speeds
are those of int8 files on a CPU. A model is fine-tuned for each seed: baseline and
teacher of every cell. "int8" is its file; "2x" and so on are cut to that speed, learn
logits and hidden states, and are exported to int8; "0.5 zeros" and so on are pruned by
magnitude from the same teacher. Cost: a fine-tuning, and --shrunk_epochs for each cell;
an hour on one H100 for all of SST-2. Each cell is reported when it is done, with its
hours and what they cost, and the same command after a kill goes on with the next.
Expected: 2x -0.2, 5x -0.8, 12x -2.5 points.
"""

from __future__ import annotations

import dataclasses
import functools
import time

import seeds
import shrink_table
import tables
from absl import flags

from tfopt import compress
from tfopt.cli import script as shared
from tfopt.pipeline.options import Tables
from tfopt.pipeline.teacher_options import Teacher

FLAGS = flags.FLAGS
DENSE = "dense"
INT8 = "int8"
# Speedup -> points of dev accuracy that CoFi lost of BERT-Base on SST-2.
COFI = {"2.1x": 0.2, "4.7x": 0.6, "12.2x": 2.8}


def cells() -> list[str]:
    """Names of the cells, in the order of the flags."""
    return [INT8, *(f"{float(point):g}x" for point in FLAGS.points),
            *(f"{float(part):g} zeros" for part in FLAGS.sparsities)]


def run_cell(dataset, baseline, cell: str) -> dict:
    """Compresses, judges, and counts the time.

    Args:
        dataset: the data.
        baseline: fine-tuned.
        cell: its name.

    Returns:
        Figures as of `shrink_table.run_cell`, and hours and their cost.
    """
    begun = time.monotonic()
    if cell == INT8:
        found = shrink_table.measured(dataset, baseline)
    elif cell.endswith("x"):
        found = shrink_table.run_cell(dataset, baseline, f"{cell} distilled")
    else:
        found = pruned(dataset, baseline, float(cell.split()[0]))
    hours = (time.monotonic() - begun) / 3600
    return {**found, "hours": hours, "cost": hours * FLAGS.hour_price}


def pruned(dataset, baseline, sparsity: float) -> dict:
    """The model without so many of its weights, trained from itself as it was."""
    epochs = 1 if FLAGS.smoke else FLAGS.shrunk_epochs
    steps = dataset.transfer_set.steps_per_epoch * epochs
    context = compress.Context(
        task=dataset.task, train=dataset.train, dev=dataset.choose, teacher=baseline,
        transfer_set=dataset.transfer_set,
        distillation=shared.read(Teacher).distillation(),
        settings=dataclasses.replace(
            shared.fine_tuning().training_settings(), epochs=epochs,
            learning_rate=FLAGS.shrunk_learning_rate))
    step = compress.from_fields({"pass": "magnitude", "final_sparsity": sparsity,
                                 "end_step": max(1, steps // 2)})
    outcome = compress.run(baseline, compress.Recipe(passes=(step,)), context)[-1]
    return {**shrink_table.measured(dataset, outcome.model),
            "nonzeros": outcome.figures["nonzeros"]}


def begin(dataset, baseline):
    """What judges a seed's model before, and what fills its cells."""
    return (functools.partial(shrink_table.measured, dataset, baseline),
            functools.partial(run_cell, dataset, baseline))


def summary(runs: tables.Runs, kind) -> dict:
    """Figures by seed and cell, means, points lost, all hours, and CoFi's points."""
    found = tables.summary(runs, DENSE, kind)
    spent = [cell for run in runs.values() for cell in run.values() if "hours" in cell]
    return {**found, "hours": sum(cell["hours"] for cell in spent),
            "cost": sum(cell["cost"] for cell in spent), "cofi_points_lost": COFI}


def main() -> None:
    """Fills the table."""
    found = tables.fill(cells(), DENSE, begin, summary)
    metric = f"keras_{tables.kind().monitor[0]}"
    for cell, figures in found["means"].items():
        print(f"{tables.said_of(cell, found)}, float {figures[metric]:.4f}, "
              f"{figures.get('hours', 0):.2f} h")
    print(f"In all {found['hours']:.2f} hours, {found['cost']:.2f}; CoFi, BERT-Base on "
          f"SST-2, points lost: {COFI}")


def define_flags() -> None:
    """Defines the flags of this script."""
    seeds.define_flags()
    tables.define_flags()
    shared.define(Teacher)
    shared.define(Tables)
    shrink_table.define_cuts()
    flags.DEFINE_list("points", ["2", "5", "12"], "Target speedups.")
    flags.DEFINE_list("sparsities", ["0.5", "0.8"], "Parts of the weights that go.")
    flags.DEFINE_float("hour_price", 0.0, "What an hour of the machine costs.",
                       lower_bound=0.0)
    flags.FLAGS.set_default("distil_hidden_weight", 1.0)


if __name__ == "__main__":
    define_flags()
    shared.run(main)
