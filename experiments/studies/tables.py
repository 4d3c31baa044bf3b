"""What the tables of several seeds share: fine-tuned models, and filling cells.

A figure that is the task's own metric bears its name, such as "accuracy".
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags, logging

from tfopt import model, tasks
from tfopt.cli import script as shared

FLAGS = flags.FLAGS
# The flags count as those of the script that asks for them: --help lists them.
flags.disclaim_key_flags()

Figures = dict[str, Any]
Runs = dict[str, dict[str, Figures]]  # seed -> cell -> figures


def define_flags() -> None:
    """Where fine-tuned models are."""
    flags.DEFINE_string("baselines_dir", None, "Where the fine-tuned models are kept "
                        "and looked for, by seed alone.")
    flags.DEFINE_bool("baseline_cell", True, "Whether the fine-tuned model itself is "
                      "judged; --nobaseline_cell where another table, filled beside "
                      "this one, has it (join_tables.py).")


def kind() -> tasks.Task:
    """The task that the flags name, for its metrics alone."""
    return tasks.named(FLAGS.task)()


def said_of(cell: str, found: dict) -> str:
    """A line on a cell of a summary: the mean of the metric, and what it lost."""
    metric = kind().monitor[0]
    said = f"{cell:32} {metric} {found['means'][cell][metric]:.4f}"
    if cell in found["points_lost"]:
        said += f", {kind().drop_unit} lost {found['points_lost'][cell]:.2f}"
    return said


def values(dataset, outputs: Mapping[str, np.ndarray]) -> Figures:
    """The task's metric on dev: prefix of a figure's name -> outputs -> figure."""
    task, targets = dataset.task, dataset.report["dev"].targets
    return {prefix + task.monitor[0]: task.value(task.fitted_quality(found, targets))
            for prefix, found in outputs.items()}


def fill(cells: Sequence[str], first: str, begin: Callable,
         summary: Callable[[Runs, tasks.Task], dict]
         ) -> dict:
    """Fills what a killed run of the same command has left, and reports each cell.

    Args:
        cells: names of the cells of a seed.
        first: name of the cell of the fine-tuned model itself.
        begin: (dataset, model) -> what gives that cell's figures, and what gives
            those of another by its name.
        summary: (figures of all cells, the task) -> what the report holds.

    Returns:
        The summary of the whole table.
    """
    runs: Runs = (shared.reported_figures(FLAGS.report) or {"runs": {}})["runs"]
    for seed in FLAGS.seeds:
        FLAGS.seed = int(seed)
        done = runs.setdefault(seed, {})
        wanted = [first, *cells] if FLAGS.baseline_cell else cells
        left = [name for name in wanted if name not in done]
        if not left:
            continue
        dataset = shared.fine_tuning().dataset()
        judge, run_cell = begin(dataset, fine_tuned(dataset))
        for name in left:
            done[name] = judge() if name == first else run_cell(name)
            logging.info("Seed %s, %s: %s", seed, name, done[name])
            shared.write_figures(FLAGS.report, summary(runs, kind()))
    return summary(runs, kind())


def fine_tuned(dataset):
    """The model that cells begin with: of --baselines_dir, if it has this seed's."""
    if FLAGS.baselines_dir is None:
        return shared.fine_tuning().train_model(dataset)[0]
    directory = Path(FLAGS.baselines_dir) / f"seed_{FLAGS.seed}"
    if not (directory / model.KERAS_FILE).exists():
        model.save(shared.fine_tuning().train_model(dataset)[0], directory)
    with shared.placement().strategy.scope():
        return model.load(directory)


def summary(runs: Runs, first: str, kind: tasks.Task) -> dict:
    """Means over seeds, and what is lost against a cell of the same seed.

    Args:
        runs: the figures of each cell; lists among them have no mean.
        first: the cell that all are held against.
        kind: the task, whose metric's loss is counted as by `Task.drop`.

    Returns:
        `runs`, "means" and "points_lost" by cell; these not of cells that have no run
        with the first one.
    """
    metric = kind.monitor[0]
    means, lost = {}, {}
    for cell in dict.fromkeys(cell for found in runs.values() for cell in found):
        found = [run[cell] for run in runs.values() if cell in run]
        means[cell] = {figure: statistics.fmean(one[figure] for one in found)
                       for figure, value in found[0].items()
                       if not isinstance(value, list)}
        points = [kind.drop(run[first][metric], run[cell][metric])
                  for run in runs.values() if cell in run and first in run]
        if points:
            lost[cell] = statistics.fmean(points)
    return {"runs": runs, "means": means, "points_lost": lost}
