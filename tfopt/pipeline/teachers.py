"""A directory -> a teacher: of the student's task, by whatever tokenizer it reads.

Logits, and vectors, are learned from an encoder of any family, vocabulary or casing,
for each model reads the texts by its own tokenizer. All that does not go together is
found here, before any training.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import logging

from tfopt import compress, data, model, tasks, train
from tfopt.backend import keras
from tfopt.data.tokenizer import Tokenizer
from tfopt.model.anatomy import Anatomy
from tfopt.pipeline import checks, narrowed, text_side
from tfopt.train.distill import answers
from tfopt.types import INPUT_NAMES, PathLike, shown

if TYPE_CHECKING:
    from tfopt.pipeline.dataset import Dataset
    from tfopt.pipeline.fine_tuning import FineTuning

_TRIED_TEXTS = 512  # by which it is tried whether two tokenizers read alike
_ASKED_TEXTS = 32  # by which it is seen whether a teacher's answers are numbers
_DIRECTORY = "teacher_logits"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedTeacher:
    """A teacher, and how it reads texts.

    Attributes:
        model: to the outputs of the student's task, in its order.
        tokenizer: its own; None where it reads the student's tokens.
        max_length: tokens to which it cuts texts.
        narrow_to: numbers of the student's vectors, where its own have more.
    """

    model: keras.Model
    tokenizer: Tokenizer | None = None
    max_length: int = 0
    narrow_to: int | None = None


def load(tuning: FineTuning, settings: train.Distillation, dataset: Dataset,
         states: bool = False) -> LoadedTeacher:
    """Loads the teacher that is named, and has it answer a few texts.

    Args:
        tuning: names it.
        settings: what is learned from it.
        dataset: that a student learns.
        states: whether hidden states are another teacher's.

    Raises:
        ValueError: it cannot be read, was trained for something else, has too few
            positions, gives what is no number, or reads other tokens where states of
            tokens are learned.
    """
    path, task = tuning.teacher.teacher, dataset.task
    assert path is not None
    order = output_order(task, path)
    directory = model.directory(path)
    own = data.tokenizer_from(directory)
    other = reads_otherwise(own, dataset)
    if other and (settings.uses_layers and not states or task.per_token):
        learned = ("an output for each token" if task.per_token else
                   f"hidden_weight={settings.hidden_weight}, "
                   f"relations_weight={settings.relations_weight}")
        raise ValueError(
            "Hidden states, relations and outputs of tokens are learned from a teacher "
            "that reads the same tokens; logits of texts from any (set these weights "
            f"to 0). Received: --teacher_dir={path}, {other}; {learned}")
    keras_model = (model.load(path) if task.needs_labels
                   else tuning.load(path, task))
    checks.check_vocabulary(keras_model, own)
    _check_outputs(task, keras_model, path)
    narrow_to = None if task.needs_labels else _narrow_to(
        keras_model, tuning.load(tuning.start, task), path)
    length = dataset.max_length
    if other:
        length = text_side.read(directory).max_length or length
        logging.info("The teacher reads by its own tokenizer (%s), up to %d tokens",
                     other, length)
    tuning.check_length(keras_model, "teacher", length)
    if order is not None:
        keras_model = reordered(keras_model, order, path)
    found = LoadedTeacher(model=keras_model, tokenizer=own if other else None,
                          max_length=length, narrow_to=narrow_to)
    first = dataset.texts.part(0, _ASKED_TEXTS)
    asked = data.Batches(data.encode(first, own, length), batch_size=_ASKED_TEXTS,
                         names=_names(keras_model))
    answers.to_logits(keras_model, task.objective(), asked)
    return found


def with_teacher(context: compress.Context, tuning: FineTuning, dataset: Dataset,
                 settings: train.Distillation, state: Path, teacher: LoadedTeacher,
                 keep: bool = False) -> compress.Context:
    """Adds a teacher to a context, and the texts that it teaches.

    Args:
        context: of training without one.
        tuning: says whether, and where, its logits are kept.
        dataset: what the student learns.
        settings: what is learned.
        state: of the run.
        teacher: who teaches.
        keep: whether its logits are kept in any case.
    """
    place = tuning.teacher.logits_dir
    kept = keep or tuning.teacher.keeps_logits or teacher.tokenizer is not None
    keras_model = teacher.model
    if teacher.narrow_to is not None:
        read_by = dataclasses.replace(
            dataset, texts=_some(dataset.texts, narrowed.TEXTS)).read_by(
                teacher.tokenizer or dataset.tokenizer, teacher.max_length,
                _names(keras_model))
        keras_model = narrowed.narrowed(keras_model, teacher.narrow_to, read_by,
                                        state / "narrowed.npz")
    return dataclasses.replace(
        context, transfer_set=dataset.transfer_set, distillation=settings,
        teacher=keras_model,
        teacher_logits_dir=(place or state / _DIRECTORY) if kept else None,
        read_by_teacher=None if teacher.tokenizer is None else dataset.read_by(
            teacher.tokenizer, teacher.max_length, _names(keras_model)))


def reads_otherwise(own: Tokenizer, dataset: Dataset) -> str:
    """How a teacher's tokenizer differs from the student's; "" where it does not.

    Args:
        own: the teacher's.
        dataset: whose tokenizer, and texts, it is held against.
    """
    student = dataset.tokenizer
    if not text_side.same_ids(own, student):
        return (f"which has a vocabulary of {own.vocab_size} entries, and the student "
                + ("another of as many" if own.vocab_size == student.vocab_size
                   else f"one of {student.vocab_size}"))
    tried = _some(dataset.texts, _TRIED_TEXTS)
    ids, others = (reader.encode(tried.texts, max_length=dataset.max_length).ids
                   for reader in (student, own))
    for text, one, another in zip(tried.texts, ids, others, strict=True):
        if one != another:
            return (f"which reads {shown(text, 60)} otherwise than the student (in "
                    "case, accents or Chinese characters)")
    return ""


def output_order(task: tasks.Task, path: PathLike) -> list[int] | None:
    """Of each output of a task, the number of the teacher's that has its name.

    Args:
        task: the student's.
        path: the teacher's directory.

    Returns:
        The numbers; None where they are in order.

    Raises:
        ValueError: the teacher is of another task or of other labels.
    """
    own = tasks.read(model.directory(path), model.published_labels(path))
    if own is not None and own.labels != task.labels and (
            sorted(own.labels) == sorted(task.labels) and not task.per_token):
        turned = dataclasses.replace(own, labels=task.labels)
        if turned.unfitted == task.unfitted:
            logging.info("The teacher's labels are in another order; they are mapped "
                         "by name")
            return [own.labels.index(label) for label in task.labels]
    checks.check_trained_for(task, path, "--teacher_dir")
    return None


def reordered(keras_model: keras.Model, order: list[int], path: PathLike
              ) -> keras.Model:
    """Turns a classifier's outputs round, in place.

    Args:
        keras_model: an encoder.
        order: of each output, the number of the one that takes its place.
        path: named in the error.

    Raises:
        ValueError: it has no classifier that could be turned.
    """
    classifier = (Anatomy.of(keras_model).head.classifier
                  if Anatomy.known(keras_model) else None)
    weights = [] if classifier is None else classifier.get_weights()
    if [weight.shape[-1] for weight in weights] != [len(order)] * len(weights) or (
            not weights):
        raise ValueError(
            "--teacher_dir must have its labels in the train file's order, where its "
            f"head is not one of tfopt's. Received: {path}, a model that ends in "
            f"{keras_model.layers[-1].name!r}")
    assert classifier is not None
    classifier.set_weights([np.take(weight, order, axis=-1) for weight in weights])
    return keras_model


def _some(texts: data.Texts, count: int) -> data.Texts:
    """About so many of the texts, spread evenly over them; all, where they are few."""
    return texts.take(range(0, len(texts), max(1, len(texts) // count)))


def _names(keras_model: keras.Model) -> list[str]:
    """The inputs that a model has."""
    return [name for name in INPUT_NAMES if name in keras_model.input_names]


def _narrow_to(teacher: keras.Model, student: keras.Model, path: PathLike
               ) -> int | None:
    """Numbers of the student's vectors; None where the teacher's have as many."""
    own, wanted = (found.output_shape[-1] for found in (teacher, student))
    if own < wanted:
        raise ValueError("--teacher_dir must give vectors of at least as many numbers "
                         f"as the model, {wanted}. Received: {path}, which gives {own}")
    return wanted if own > wanted else None


def _check_outputs(task: tasks.Task, keras_model: keras.Model, path: PathLike) -> None:
    try:
        task.check_outputs(keras_model.output_shape)
    except ValueError as error:
        raise ValueError(f"--teacher_dir={path}: {error}") from error
