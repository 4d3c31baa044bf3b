"""What the baseline says of a task: its width, and the targets that it stands for.

A task without labels is judged by what the baseline gives for the texts of dev; what
becomes of the baseline is held against that.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tfopt.measure import runners
from tfopt.pipeline.dataset import Dataset
from tfopt.pipeline.splits import Split

_GUARD = "guard"


def completed(dataset: Dataset, baseline: Path) -> Dataset:
    """The dataset with what the baseline tells.

    Args:
        dataset: as the baseline reads it.
        baseline: its directory.

    Raises:
        ValueError: it cannot be read, or gives other outputs than the task has.
    """
    task = dataset.task
    if task.needs_labels:
        return dataset
    runner = runners.open_artifact(baseline, pad_id=dataset.tokenizer.pad_id)
    dataset = dataclasses.replace(dataset, task=task.giving(runner.outputs))
    return dataset.judged_by({
        name: runner.logits(split.encoded.ids, split.encoded.first_lengths)
        for name, split in _splits(dataset).items() if not split.paired})


def as_in(dataset: Dataset, other: Dataset) -> Dataset:
    """A dataset of the same texts, which another tokenizer has read.

    Args:
        dataset: as it was read.
        other: has what the baseline tells.
    """
    if other.task.needs_labels:
        return dataset
    return dataclasses.replace(dataset, task=other.task).judged_by({
        name: split.targets for name, split in _splits(other).items()
        if not split.paired})


def _splits(dataset: Dataset) -> dict[str, Split]:
    return {**dataset.report, _GUARD: dataset.guard}
