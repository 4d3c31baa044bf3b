"""Options that are to be found: each value is tried for a part of the training.

How many changed copies a train set bears (`--augment=auto`), and what labels weigh
beside a teacher (`--distil_hard_weight=auto`), differ between tasks: sentiment gains by
a dozen copies, intents lose by them. So a fresh student learns the same number of
examples with each value, and is judged on a part of train that nobody learns from; of
values that do as well the first is kept.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from absl import logging

from tfopt import compress, data, model, train
from tfopt.files import read_json, to_json, write_whole
from tfopt.pipeline import judging, masked_words, text_side
from tfopt.pipeline.teacher_options import AUTO
from tfopt.pipeline.teachers import LoadedTeacher, with_teacher

if TYPE_CHECKING:
    from tfopt.pipeline.dataset import Dataset
    from tfopt.pipeline.fine_tuning import FineTuning

Tuning = TypeVar("Tuning", bound="FineTuning")
# Field of the options of a teacher -> the values that are tried, in this order.
TRIED: dict[str, tuple[float, ...]] = {"augment": (0, 1, 4, 12),
                                       "hard_weight": (0.5, 0.0, 2.0)}
_FLAGS = {"augment": "augment", "hard_weight": "distil_hard_weight"}
_HELD_OUT = 0.1  # of train, at least
_PART = 0.25  # of the training


def chosen(tuning: Tuning, settings: train.Distillation | None, dataset: Dataset,
           teacher: LoadedTeacher | None, state: Path
           ) -> tuple[Tuning, train.Distillation | None, Dataset]:
    """Finds what is to be found, and has a masked language model find its words.

    Args:
        tuning: its options of a teacher say what.
        settings: what is learned from the teacher.
        dataset: what is learned, without any copies as yet.
        teacher: who teaches.
        state: of the run; what a killed one has found is there.

    Returns:
        The same with what was found, in the dataset's notes too; the very same where
        nothing is.

    Raises:
        ValueError: the task has no labels to judge by, or the student's checkpoint is
            of another tokenizer than the baseline.
    """
    fields = [name for name in TRIED if getattr(tuning.teacher, name) == AUTO]
    if settings is None or teacher is None or not (
            fields or tuning.teacher.copies and masked_words.named(tuning)):
        return tuning, settings, dataset
    if fields:
        _check(tuning, dataset, fields)
    notes = []
    for name in fields:
        place = state / "trials" / f"{name}.json"
        values = (read_json(place)["values"] if place.is_file() else
                  [_value(tuning, settings, dataset, teacher, state, name, value)
                   for value in TRIED[name]])
        write_whole(place, to_json({"values": values}))
        better = max if dataset.task.monitor[1] == "higher" else min
        best = TRIED[name][values.index(better(values))]
        tuning, settings = _with(tuning, settings, name, best)
        said = ", ".join(f"{value:.4f} with {tried:g}" for tried, value in zip(
            TRIED[name], values, strict=True))
        notes.append(
            f"--{_FLAGS[name]}={best:g} was found by trials of {_PART:.0%} of the "
            f"training: {dataset.task.monitor[0]} on a held-out part of train was "
            f"{said}.")
        logging.info("%s", notes[-1])
    found = tuning.dataset(dataset.tokenizer, dataset.task.labels, state)
    return tuning, settings, dataclasses.replace(
        dataset, texts=found.texts, transfer_set=found.transfer_set,
        notes=[*found.notes, *notes])


def _check(tuning: Tuning, dataset: Dataset, fields: list[str]) -> None:
    if not dataset.task.needs_labels:
        raise ValueError(
            f"--{_FLAGS[fields[0]]}=auto needs a task with labels to judge by. "
            f"Received: --task={dataset.task.name()}")
    own = data.tokenizer_from(model.directory(tuning.model))
    if not text_side.same_ids(own, dataset.tokenizer):
        raise ValueError(
            f"--{_FLAGS[fields[0]]}=auto tries a fresh student, of the checkpoint that "
            f"the baseline was made of. Received: --model_dir={tuning.model} of "
            "another vocabulary than the baseline's")


def _with(tuning: Tuning, settings: train.Distillation, name: str, value: float
          ) -> tuple[Tuning, train.Distillation]:
    """The options with a value in the place of "auto"."""
    change: dict[str, Any] = {name: int(value) if name == "augment" else float(value)}
    teacher = dataclasses.replace(tuning.teacher, **change)
    if name == "hard_weight":
        settings = dataclasses.replace(settings, hard_weight=float(value))
    return dataclasses.replace(tuning, teacher=teacher), settings


def _value(tuning: Tuning, settings: train.Distillation, dataset: Dataset,
           teacher: LoadedTeacher, state: Path, name: str, value: float) -> float:
    """The metric, on the held-out part, of a student that learned with a value."""
    logging.info("Trying --%s=%g", _FLAGS[name], value)
    tuning, settings = _with(tuning, settings, name, value)
    if tuning.teacher.keeps_logits or teacher.tokenizer is not None:
        settings = dataclasses.replace(settings, hidden_weight=0.0,
                                       relations_weight=0.0)
    held_out = max(_HELD_OUT, tuning.data.holdout_fraction)
    tuning = dataclasses.replace(
        tuning, data=dataclasses.replace(tuning.data, holdout_fraction=held_out),
        teacher=dataclasses.replace(
            tuning.teacher, logits_dir=None,
            cache_teacher_logits=tuning.teacher.keeps_logits))
    whole = tuning.dataset(dataset.tokenizer, dataset.task.labels, state)
    learned = max(1.0, _PART * tuning.training_settings().epochs) * len(whole.train)
    part = whole.part(_rows(len(whole.texts), round(learned), tuning.settings.seed))
    context = with_teacher(
        compress.Context(task=part.task, train=part.train), tuning, part, settings,
        state / "trials", teacher)
    with tuning.devices.placement().strategy.scope():
        student = tuning.load(tuning.model, part.task)
    batches, goal = context.training_inputs(student)
    train.fit(student, batches, None, dataclasses.replace(
        tuning.training_settings(), epochs=1), goal=goal)
    return judging.value_of(student, part.task, part.guard.labelled,
                            tuning.measuring.num_threads)


def _rows(among: int, count: int, seed: int) -> np.ndarray:
    """So many numbers, drawn without repeating one before all have been drawn."""
    random = np.random.default_rng(seed)
    return np.concatenate([random.permutation(among)
                           for _ in range(-(-count // among))])[:count]
