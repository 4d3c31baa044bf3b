r"""What pruning costs in quality: scores by patterns by sparsities, several seeds.

    python experiments/studies/pruning_table.py --train_file=F --dev_file=F \
        --seeds=0,1,2 --scores=magnitude,movement --sparsities=0.5,0.8 \
        --report=FILE.json

Source: the passes of `tfopt/compress/passes`. For each seed a model is fine-tuned as
seeds.py does it, and every cell of the table prunes that one while training on, by
default with the same settings. Each cell is reported when it is done, and the same
command after a kill goes on with the next. Cost: a fine-tuning for each seed and each
cell; with --baselines_dir other tables may share the fine-tuned models.
"""

from __future__ import annotations

import dataclasses
import statistics

import seeds
import tables
from absl import flags

from tfopt import compress, report, tasks, train
from tfopt.cli import script as shared
from tfopt.compress.pruning import masks

FLAGS = flags.FLAGS
DENSE = "dense"


def cells() -> dict[str, compress.Pass]:
    """Name -> the pass of each cell; a pattern N:M has but the one sparsity."""
    found = {}
    for score in FLAGS.scores:
        for pattern in FLAGS.patterns:
            fixed = masks.Pattern(pattern).sparsity
            for sparsity in [fixed] if fixed else map(float, FLAGS.sparsities):
                found[f"{score} {pattern} {sparsity:g}"] = compress.from_fields({
                    "pass": score, "pattern": pattern, "final_sparsity": sparsity,
                    "allocation": "uniform" if fixed else FLAGS.allocation,
                    "begin_fraction": FLAGS.begin_fraction,
                    "end_fraction": FLAGS.end_fraction})
    return found


def settings() -> train.Settings:
    """How a cell trains."""
    own = {"epochs": FLAGS.pruning_epochs, "learning_rate": FLAGS.pruning_learning_rate}
    return dataclasses.replace(shared.fine_tuning().training_settings(), **{
        name: value for name, value in own.items()
        if value is not None and not FLAGS.smoke})


def run_cell(dataset, baseline, step: compress.Pass) -> dict[str, float]:
    """Prunes and judges: {artifact split: value, sparsity: of the kernels}."""
    if FLAGS.pruning_epochs == 0:
        pruned = step.prune_at_once(baseline)
    else:
        context = compress.Context(
            task=dataset.task, train=dataset.train, dev=dataset.choose,
            settings=settings())
        outcome, = compress.run(baseline, compress.Recipe(passes=(step,)), context)
        pruned = outcome.model
    kernels = [pruned.get_layer(name).get_weights()[0] for name in step.targets(pruned)]
    zeros = sum(int((kernel == 0).sum()) for kernel in kernels)
    return named(seeds.values(pruned, dataset)) | {
        "sparsity": zeros / sum(kernel.size for kernel in kernels)}


def named(values) -> dict[str, float]:
    """{artifact: {split: value}} -> {"artifact split": value}."""
    return {f"{artifact} {split}": value for artifact, splits in values.items()
            for split, value in splits.items()}


def summary(runs: tables.Runs, kind: tasks.Task) -> dict:
    """Seed -> cell -> figures, and each cell's mean and loss against dense.

    A cell that not every seed has is held against the dense models of its own seeds.
    """
    means: dict[str, dict[str, float]] = {}
    points_lost: dict[str, dict[str, float]] = {}
    for cell in dict.fromkeys(cell for found in runs.values() for cell in found):
        own = [run[cell] for run in runs.values() if cell in run]
        means[cell] = {figure: statistics.fmean(found[figure] for found in own)
                       for figure in own[0]}
        pairs = [(run[cell], run[DENSE]) for run in runs.values()
                 if cell in run and DENSE in run]
        if pairs:
            points_lost[cell] = {
                figure: statistics.fmean(kind.drop(dense[figure], found[figure])
                                         for found, dense in pairs)
                for figure in means[cell] if figure != "sparsity"}
    return {"runs": runs, "means": means, "points_lost": points_lost}


def main() -> None:
    """Fills the table."""
    show(tables.fill(list(cells()), DENSE, begin, summary))


def begin(dataset, baseline):
    """What judges a seed's dense model, and what fills its cells."""
    return (lambda: named(seeds.values(baseline, dataset)) | {"sparsity": 0.0},
            lambda cell: run_cell(dataset, baseline, cells()[cell]))


def show(found: dict) -> None:
    """Prints a summary: each cell's mean and sparsity."""
    for cell, figures in found["means"].items():
        print(f"{cell:32} {tables.kind().monitor[0]} "
              f"{figures[f'{report.BASELINE} dev']:.4f} "
              f"sparsity {figures['sparsity']:.4f}")


def define_flags() -> None:
    """Defines the flags of this script."""
    seeds.define_flags()
    tables.define_flags()
    flags.DEFINE_integer("pruning_epochs", None, "Epochs of each cell; 0 prunes at "
                         "once, without training. Left out: --epochs.",
                         lower_bound=0)
    flags.DEFINE_float("pruning_learning_rate", None, "Peak learning rate of each "
                       "cell. Left out: --learning_rate.", lower_bound=1e-12)
    flags.DEFINE_list("scores", ["magnitude", "movement", "taylor", "fisher"],
                      "Pruning passes.")
    flags.DEFINE_list("patterns", ["unstructured", "2:4"], "Patterns of zeros.")
    flags.DEFINE_list("sparsities", ["0.5", "0.8", "0.9"], "Fractions of zeros.")
    flags.DEFINE_enum("allocation", "uniform", masks.ALLOCATIONS, "How the zeros are "
                      "shared among the kernels.")
    flags.DEFINE_float("begin_fraction", 0.05, "First pruning, as part of the run.",
                       lower_bound=0.0, upper_bound=1.0)
    flags.DEFINE_float("end_fraction", 0.7, "Last pruning, as part of the run.",
                       lower_bound=0.0, upper_bound=1.0)


if __name__ == "__main__":
    define_flags()
    shared.run(main)
