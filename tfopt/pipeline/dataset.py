"""Files -> what a model is trained on and judged by: labels, batches, splits."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from tfopt import data as readers
from tfopt import inputs, model, tasks, train
from tfopt.data.tokenizer import Tokenizer
from tfopt.pipeline import text_side
from tfopt.pipeline.options import (
    SMOKE_EXAMPLES,
    Batching,
    Data,
    Devices,
    Exports,
    Files,
    Teacher,
)
from tfopt.types import PathLike


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """One file's examples, encoded.

    Attributes:
        encoded: token ids.
        targets: what the model is to give for each.
    """

    encoded: readers.Encoded
    targets: list

    @property
    def lengths(self) -> list[int]:
        """Token counts of the texts."""
        return [len(ids) for ids in self.encoded.ids]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """What a model is trained on and judged by.

    Attributes:
        tokenizer: the checkpoint's, or the baseline's.
        task: what is to be learned.
        max_length: tokens to which texts are cut.
        train: batches to learn from.
        transfer_set: batches to learn from where there is a teacher: those of train,
            and texts without labels.
        choose: batches that choose the best epoch; None keeps the last.
        guard: the part held out of train, or dev where none is; budgets are held on it.
        calibration: texts to learn from as inputs of a model, for ranges.
        report: split name -> the examples to report on.
        notes: what a reader of the report must know.
    """

    tokenizer: Tokenizer
    task: tasks.Task
    max_length: int
    train: readers.Batches
    transfer_set: readers.Batches
    choose: readers.Batches | None
    guard: Split
    calibration: list[dict]
    report: dict[str, Split]
    notes: list[str]

    @classmethod
    def read(cls, files: Files, data: Data = Data(), *,  # noqa: B008
             settings: train.Settings = train.Settings(),  # noqa: B008
             batching: Batching = Batching(),  # noqa: B008
             devices: Devices = Devices(),  # noqa: B008
             teacher: Teacher = Teacher(),  # noqa: B008
             exports: Exports = Exports(),  # noqa: B008
             smoke: bool = False, tokenizer: Tokenizer | None = None,
             labels: Sequence[str] | None = None) -> Dataset:
        """Reads the files.

        Args:
            files: which, and the checkpoint.
            data: how.
            settings: of training, whose seed draws what is drawn.
            batching: how batches are made.
            devices: where training runs.
            teacher: may name texts without labels.
            exports: how many texts calibrate.
            smoke: takes a few examples.
            tokenizer: to read by; None for the checkpoint's.
            labels: in the order of the classes; None for the checkpoint's own.

        Raises:
            ValueError: a file is missing or wrong; names file and line.
        """
        # First: workers must be there before TensorFlow computes anything.
        placed = devices.placement()
        batch_size, seed = placed.batch_size(batching.batch_size), settings.seed
        kind = tasks.named(files.task)
        corpora, notes = _corpora(files, data.columns(kind.number_labels), seed)
        task = kind.from_corpus(
            corpora["train"], labels or model.published_labels(files.model))
        for corpus in corpora.values():
            task.targets(corpus)  # a label that train lacks is found before any work
        if smoke:
            corpora = {name: corpus.take(range(min(len(corpus), SMOKE_EXAMPLES[name])))
                       for name, corpus in corpora.items()}
            notes.append("A smoke run: the figures mean nothing.")
        if data.holdout_fraction:
            corpora["train"], corpora["holdout"] = corpora["train"].split(
                data.holdout_fraction, seed)
        tokenizer = tokenizer or readers.tokenizer_from(model.directory(files.model))
        _check_teacher(teacher.teacher, task, tokenizer)
        splits = {name: encode(corpus, tokenizer, task, data.tokens)
                  for name, corpus in corpora.items()}
        choose, learn = splits.pop("holdout", splits["dev"]), splits.pop("train")
        more = _unlabelled(corpora["train"], teacher, data, tokenizer, seed, smoke,
                           notes)
        pad = {"batch_size": batch_size,
               "pad_multiple": batching.multiple(settings),
               # A TPU knows fixed shapes alone, and XLA is to compile few.
               "pad_to": data.tokens if batching.pad_to_max_length
               or placed.name == "tpu" else None}

        def learning(split: Split) -> readers.Batches:
            return readers.Batches(
                split.encoded, split.targets, shuffle_seed=seed,
                sort_window=batching.sort_window, **pad)

        train_batches = learning(learn)
        return cls(
            tokenizer=tokenizer, task=task, max_length=data.tokens, report=splits,
            notes=notes, train=train_batches,
            transfer_set=train_batches if more is None else learning(Split(
                encoded=readers.join([learn.encoded, more]),
                targets=[*learn.targets, *[task.no_target] * len(more.ids)])),
            guard=choose,
            calibration=_calibration(learn.encoded, exports.calibration_texts, seed),
            choose=None if data.keep_epoch == "last" else readers.Batches(
                choose.encoded, choose.targets, **pad))

    def save_text_side(self, directory: PathLike) -> None:
        """Writes tokenizer, labels, task and length beside a model."""
        text_side.write(directory, self.tokenizer, self.task, self.max_length)


def encode(corpus: readers.Corpus, tokenizer: Tokenizer, task: tasks.Task,
           max_length: int) -> Split:
    """Encodes a corpus, and says how many texts were cut."""
    encoded = tokenizer.encode(corpus.texts, corpus.pairs, max_length=max_length)
    if encoded.truncated:
        logging.warning("%s: %d of %d texts are cut to %d tokens", corpus.path,
                        encoded.truncated, len(corpus), max_length)
    return Split(encoded=encoded, targets=task.targets(corpus))


def check_length(keras_model: Any, max_length: int, multiple: int) -> None:
    """Checks that a model has a position for every token.

    Args:
        keras_model: an encoder of tfopt's.
        max_length: tokens to which texts are cut.
        multiple: of tokens, to which batches are padded.

    Raises:
        ValueError: the length, padded, is above its positions.
    """
    positions = model.config_of(keras_model).max_positions
    if -(-max_length // multiple) * multiple > positions:
        raise ValueError(
            "--max_length, rounded up to --pad_multiple, must not be above the model's "
            f"{positions} positions. Received: --max_length={max_length}, "
            f"--pad_multiple={multiple}")


def check_pairs(keras_model: Any, column: str | None) -> None:
    """Checks that a model can tell the second texts of pairs from the first.

    Args:
        keras_model: an encoder of tfopt's; one without segments reads pairs, too.
        column: of the second texts; None for none.

    Raises:
        ValueError: there is one, and one segment alone.
    """
    if column and model.config_of(keras_model).type_vocab_size == 1:
        raise ValueError(
            "Pairs of texts need a model of two segments, or of none. Received: "
            f"--text_pair_column={column}, a model of type_vocab_size=1")


def _corpora(files: Files, columns: readers.Columns, seed: int
             ) -> tuple[dict[str, readers.Corpus], list[str]]:
    """The files by the names of their splits, and notes on them."""
    notes = []
    if files.train is None:
        if files.dev is not None:
            raise ValueError("--dev_file needs --train_file beside it. Received: "
                             f"--dev_file={files.dev}")
        corpora = {"train": readers.read(readers.DEMO_TRAIN_FILE),
                   "dev": readers.read(readers.DEMO_DEV_FILE)}
        notes.append("Data: the embedded support intents.")
    else:
        corpora = {"train": readers.read(files.train, columns)}
        if files.dev is not None:
            corpora["dev"] = readers.read(files.dev, columns)
        else:
            corpora["train"], corpora["dev"] = corpora["train"].split(0.1, seed)
            notes.append("dev is a tenth of the train file, held out by chance.")
    if files.test is not None:
        corpora["test"] = readers.read(files.test, columns)
    return corpora, notes


def check_trained_for(task: tasks.Task, path: PathLike, what: str) -> None:
    """Checks that the model of a directory was trained for this very task.

    Where nothing says what it was trained for, a task without labels takes its word.

    Args:
        task: the task.
        path: the directory.
        what: named it, such as "--teacher_dir".

    Raises:
        ValueError: its task or its labels are others.
    """
    own = tasks.read(model.directory(path), model.published_labels(path))
    if own != task and (own is not None or task.labels):
        labels = f" of the labels {list(task.labels)}" if task.labels else ""
        has = ("no labels" if own is None else
               f"the task {own.name()!r} of the labels {list(own.labels)}")
        raise ValueError(f"{what} must be trained for the task {task.name()!r}"
                         f"{labels}, in the train file's order. Received: {path} with "
                         f"{has}")


def _check_teacher(path: PathLike | None, task: tasks.Task, tokenizer: Tokenizer
                   ) -> None:
    """Checks, before any work, that a teacher was trained for this very task.

    Raises:
        ValueError: its labels or its vocabulary are others.
    """
    if path is None:
        return
    check_trained_for(task, path, "--teacher_dir")
    own = readers.tokenizer_from(path)
    if not text_side.same_ids(own, tokenizer):
        raise ValueError("--teacher_dir must have the vocabulary of the model, whose "
                         f"token ids it reads: {tokenizer.vocab_size} entries. "
                         f"Received: {path} with other {own.vocab_size}")


def _unlabelled(corpus: readers.Corpus, teacher: Teacher, data: Data,
                tokenizer: Tokenizer, seed: int, smoke: bool, notes: list[str]
                ) -> readers.Encoded | None:
    """The texts without labels that are asked for, encoded; None for none."""
    parts = []
    if teacher.unlabelled is not None:
        found = readers.read_texts(teacher.unlabelled, data.columns())
        if smoke:
            most = SMOKE_EXAMPLES["train"]
            found = readers.Texts(texts=found.texts[:most],
                                  pairs=found.pairs and found.pairs[:most])
        parts.append(found)
        notes.append(f"{len(found)} texts without labels, judged by the teacher.")
    if teacher.augment:
        parts.append(readers.Augmentation(seed=seed)(
            readers.Texts(texts=corpus.texts, pairs=corpus.pairs), teacher.augment))
        notes.append(f"{len(parts[-1])} changed copies of train's texts, judged by the "
                     "teacher.")
    if not parts:
        return None
    return readers.join([tokenizer.encode(part.texts, part.pairs,
                                          max_length=data.tokens) for part in parts])


def _calibration(encoded: readers.Encoded, texts: int, seed: int
                 ) -> list[dict[str, np.ndarray]]:
    """Some of the texts to learn from, drawn by the seed."""
    rows = np.random.default_rng(seed).choice(
        len(encoded.ids), min(texts, len(encoded.ids)), replace=False)
    return inputs.examples(dataclasses.replace(
        encoded, ids=[encoded.ids[row] for row in rows],
        first_lengths=[encoded.first_lengths[row] for row in rows]))
