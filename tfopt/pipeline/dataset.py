"""Files -> what a model is trained on and judged by: labels, batches, splits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from tfopt import data as readers
from tfopt import inputs, model, tasks, train
from tfopt.backend import keras
from tfopt.checkpoint_names import RANDOM
from tfopt.data import remarks
from tfopt.data.augment import Fill
from tfopt.data.tokenizer import Tokenizer
from tfopt.pipeline import checks, judging, plain_files, text_side, transfer_texts
from tfopt.pipeline.export_options import Exports
from tfopt.pipeline.options import (
    SMOKE_EXAMPLES,
    Batching,
    Data,
    Devices,
    Files,
)
from tfopt.pipeline.splits import Split, check_labels, encode
from tfopt.pipeline.teacher_options import Teacher
from tfopt.types import PathLike, few


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
        texts: those of `transfer_set`, in its order, which a teacher may read by a
            tokenizer of its own (`read_by`).
        choose: batches that choose the best epoch, of labels that train has; None
            keeps the last.
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
    texts: readers.Texts
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
             labels: Sequence[str] | None = None, fill: Fill | None = None) -> Dataset:
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
            fill: finds the words that replace others in copies; None takes any.

        Raises:
            ValueError: a file is missing or wrong; names file and line.
        """
        # First: workers must be there before TensorFlow computes anything.
        placed, seed = devices.placement(), settings.seed
        task, corpora, notes = _corpora(files, data, labels, seed, smoke, teacher)
        tokenizer = tokenizer or _tokenizer(files, task)
        splits = {name: encode(corpus, tokenizer, task, data.tokens)
                  for name, corpus in corpora.items()}
        own, added = transfer_texts.read(corpora["train"], files, teacher, data, seed,
                                         smoke, notes, fill)
        more = (readers.encode(added, tokenizer, data.tokens) if added else None)
        notes += _on_the_read(task, splits, more, data.tokens)
        choose, learn = splits.pop("holdout", splits["dev"]), splits.pop("train")
        fixed = batching.pad_to_max_length or placed.name == "tpu"  # of fixed shapes
        pad = {"batch_size": placed.batch_size(batching.batch_size),
               "pad_multiple": batching.multiple(settings),
               "pad_to": data.tokens if fixed else None,
               "per_token": task.per_token}

        def learning(split: Split) -> readers.Batches:
            return split.batches(shuffle_seed=seed, sort_window=batching.sort_window,
                                 **pad)

        train_batches, chosen_by = learning(learn), choose.labelled
        return cls(
            tokenizer=tokenizer, task=task, max_length=data.tokens, report=splits,
            notes=notes, train=train_batches,
            texts=own.with_more([added] if added else []),
            transfer_set=train_batches if more is None else learning(
                learn.with_more(more)),
            guard=choose,
            calibration=_calibration(learn.encoded, exports.calibration_texts, seed),
            choose=None if data.keep_epoch == "last" or not chosen_by.targets
            else chosen_by.batches(**pad))

    def read_by(self, tokenizer: Tokenizer, max_length: int, names: Sequence[str]
                ) -> readers.Batches:
        """The transfer set as another tokenizer reads it, in the same order.

        Args:
            tokenizer: such as a teacher's.
            max_length: tokens to which texts are cut.
            names: inputs that its model has, of `types.INPUT_NAMES`.
        """
        own = self.transfer_set
        return readers.Batches(
            readers.encode(self.texts, tokenizer, max_length),
            batch_size=own.batch_size, pad_multiple=own.pad_multiple,
            pad_to=None if own.pad_to is None else max_length, names=names)

    def part(self, rows: np.ndarray) -> Dataset:
        """The dataset with some of the transfer set alone, which may repeat.

        Args:
            rows: numbers of examples, <int>[n].
        """
        return dataclasses.replace(self, texts=self.texts.take(rows.tolist()),
                                   transfer_set=self.transfer_set.part(rows))

    def judged_by(self, outputs: Mapping[str, np.ndarray]) -> Dataset:
        """The dataset for a task whose outputs are compared with the baseline's.

        Args:
            outputs: name of a split (of `report`, and "guard") -> what the baseline
                gives for it, <float>[N, outputs], where that is its target.
        """
        def of(name: str, split: Split) -> Split:
            return dataclasses.replace(
                split, targets=outputs[name]) if name in outputs else split

        return dataclasses.replace(
            self, guard=of("guard", self.guard), report={
                name: of(name, split) for name, split in self.report.items()})

    def log_notes(self) -> None:
        """Says in the log what a reader of the report must know."""
        for note in self.notes:
            logging.info("%s", note)

    def save_text_side(self, directory: PathLike, keras_model: keras.Model | None = None
                       ) -> None:
        """Writes tokenizer, labels, task and length beside a model.

        Args:
            directory: the model's.
            keras_model: whose answers choose what the task chooses by them; None leaves
                that as it is.
        """
        task = self.task if keras_model is None else judging.fitted(
            self.task, keras_model, self.guard)
        text_side.write(directory, self.tokenizer, task, self.max_length)


def _tokenizer(files: Files, task: tasks.Task) -> Tokenizer:
    """The checkpoint's own."""
    directory = model.directory(files.model)
    tokenizer = readers.tokenizer_from(directory)
    if not task.needs_labels:
        checks.check_reading(directory, tokenizer)
    return tokenizer


def _corpora(files: Files, data: Data, labels: Sequence[str] | None, seed: int,
             smoke: bool, teacher: Teacher
             ) -> tuple[tasks.Task, dict[str, readers.Corpus], list[str]]:
    """The task, the files by the names of their splits, and notes on them."""
    kind = tasks.named(files.task)
    columns = data.columns(kind.label_form)
    corpora, notes = (_files(files, columns) if kind.needs_labels
                      else plain_files.read(files, columns, teacher))
    task = kind.from_corpus(
        corpora["train"], labels or model.published_labels(files.model))
    # Mistakes are found before any work.
    task.targets(corpora["train"])
    for name in [name for name in corpora if name != "train"]:
        notes += check_labels(corpora[name], task, name)
    whole = corpora["train"]
    if "dev" not in corpora:
        part = 0.1 if kind.needs_labels else plain_files.held_out(whole)
        corpora["train"], corpora["dev"] = whole.split(part, seed)
        notes.append(f"dev is {'a tenth' if part == 0.1 else len(corpora['dev'])} of "
                     "the train file, held out by chance.")
    task = task.of(corpora["dev"], None if str(files.start).startswith(RANDOM)
                   else model.directory(files.start))
    notes += remarks.on_examples(corpora)
    if smoke:
        corpora = {name: corpus.take(range(min(len(corpus), SMOKE_EXAMPLES[name])))
                   for name, corpus in corpora.items()}
        notes.append("A smoke run: the figures mean nothing.")
    if data.holdout_fraction:
        corpora["train"], corpora["holdout"] = corpora["train"].split(
            data.holdout_fraction, seed)
    without = sorted({*whole.label_list()} - {*corpora["train"].label_list()})
    if without and task.labels and not smoke:
        notes.append("All examples of these labels were held out by chance, and none "
                     f"is left to learn from: {few(without)}.")
    return task, corpora, notes


def _files(files: Files, columns: readers.Columns
           ) -> tuple[dict[str, readers.Corpus], list[str]]:
    """What the files hold; dev may be missing."""
    if files.train is None:
        if files.dev is not None:
            raise ValueError("--dev_file needs --train_file beside it. Received: "
                             f"--dev_file={files.dev}")
        corpora = {"train": readers.read(readers.DEMO_TRAIN_FILE),
                   "dev": readers.read(readers.DEMO_DEV_FILE)}
        notes = ["Data: the embedded support intents."]
    else:
        corpora = {"train": readers.read(files.train, columns)}
        notes = []
        if files.dev is not None:
            corpora["dev"] = readers.read(files.dev, columns)
    if files.test is not None:
        corpora["test"] = readers.read(files.test, columns)
    return corpora, notes


def _on_the_read(task: tasks.Task, splits: Mapping[str, Split],
                 more: readers.Encoded | None, max_length: int) -> list[str]:
    """Notes on texts that were cut, and labels that were lost by it."""
    notes = remarks.on_lengths(
        {name: split.encoded for name, split in splits.items()}
        | ({"the unlabelled set": more} if more else {}), max_length)
    for name, split in splits.items():
        notes += task.remarks(name, split.targets, split.encoded.truncated)
    return notes


def _calibration(encoded: readers.Encoded, texts: int, seed: int
                 ) -> list[dict[str, np.ndarray]]:
    """Some of the texts to learn from, drawn by the seed."""
    rows = np.random.default_rng(seed).choice(
        len(encoded.ids), min(texts, len(encoded.ids)), replace=False)
    return inputs.examples(dataclasses.replace(
        encoded, ids=[encoded.ids[row] for row in rows],
        first_lengths=[encoded.first_lengths[row] for row in rows]))
