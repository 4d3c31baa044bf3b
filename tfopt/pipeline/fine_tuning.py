"""A fine-tuning: which checkpoint learns what from which files, and how.

    tuning = FineTuning(model="bert_dir", train="train.tsv", dev="dev.tsv")
    dataset = tuning.dataset()
    keras_model, history = tuning.train_model(dataset)

Source: Devlin et al. 2018, arXiv:1810.04805, section 4.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Self

from absl import logging

from tfopt import compress, hub, model, tasks, train
from tfopt.backend import keras
from tfopt.checkpoint_names import RANDOM
from tfopt.data.tokenizer import Tokenizer
from tfopt.pipeline import identity as identities
from tfopt.pipeline import masked_words, run_dir, teachers
from tfopt.pipeline.checks import check_length, check_pairs, check_vocabulary
from tfopt.pipeline.dataset import Dataset
from tfopt.pipeline.export_options import Exports
from tfopt.pipeline.option import Options
from tfopt.pipeline.options import (
    Batching,
    Data,
    Devices,
    Files,
    Measuring,
)
from tfopt.pipeline.teacher_options import Teacher
from tfopt.pipeline.teachers import LoadedTeacher
from tfopt.sentence_files import pooling_of
from tfopt.types import PathLike


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuning(Files):
    """A checkpoint, its files, and how it learns from them.

    Attributes:
        data: how files are read, and which epoch is kept.
        settings: of training.
        batching: how batches are made.
        devices: where training runs.
        teacher: whether, and what, to learn from a teacher.
        exports: how models are exported, and how many texts calibrate that.
        measuring: how artifacts are timed; whether all is a trial.
    """

    data: Data = Data()
    settings: train.Settings = train.Settings()
    batching: Batching = Batching()
    devices: Devices = Devices()
    teacher: Teacher = Teacher()
    exports: Exports = Exports()
    measuring: Measuring = Measuring()

    def training_settings(self) -> train.Settings:
        """The settings as they hold on these devices, and in a trial."""
        placed = self.devices.placement()
        return dataclasses.replace(
            self.settings,
            epochs=1 if self.measuring.smoke else self.settings.epochs,
            learning_rate=placed.learning_rate(self.settings.learning_rate))

    def with_own_length(self) -> Self:
        """The same, with texts as long as a checkpoint of vectors says.

        So where nothing else is asked for, and the files of sentence-transformers name
        a `max_seq_length`; a classifier's texts have no such length.

        Raises:
            ValueError: the files are damaged; names one.
        """
        if (self.data.max_length is not None or not tasks.named(self.task).apart
                or str(self.model).startswith(RANDOM)):
            return self
        found = pooling_of(model.directory(self.model))
        return self if found is None else dataclasses.replace(
            self, data=dataclasses.replace(self.data, max_length=found.max_length))

    def dataset(self, tokenizer: Tokenizer | None = None,
                labels: tuple[str, ...] | None = None, state: Path | None = None
                ) -> Dataset:
        """Reads the files.

        Args:
            tokenizer: to read by; None for the checkpoint's.
            labels: in the order of the classes; None for the checkpoint's own.
            state: of the run, where what a masked language model finds for copies is
                kept; None does without one.

        Raises:
            ValueError: a file is missing or wrong; names file and line.
        """
        fill = None if state is None else masked_words.of(self, state)
        return Dataset.read(
            self, self.data, settings=self.settings, batching=self.batching,
            devices=self.devices, teacher=self.teacher, exports=self.exports,
            smoke=self.measuring.smoke, tokenizer=tokenizer, labels=labels, fill=fill)

    def check_length(self, keras_model: keras.Model, whose: str = "model",
                     tokens: int | None = None) -> None:
        """Checks that a model has a position for every token, and a segment.

        Args:
            keras_model: the model.
            whose: in the message: "model", which is exported, or "teacher".
            tokens: to which texts are cut; None for those of the data.

        Raises:
            ValueError: `max_length`, padded, or `export_length` is above its positions,
                or there are pairs for a model of one segment.
        """
        check_pairs(keras_model, self.data.columns().pair)
        check_length(
            keras_model, tokens or self.data.tokens,
            1 if self.batching.pad_to_max_length
            else self.batching.multiple(self.settings),
            self.exports.export_length if whose == "model" else None, whose)

    def load_teacher(self, settings: train.Distillation | None, dataset: Dataset,
                     states: bool = False) -> LoadedTeacher | None:
        """The teacher that is named, if something is learned from it.

        Args:
            settings: what is learned (`Teacher.distillation`).
            dataset: what is learned.
            states: whether another teacher of hidden states is made on the way.

        Raises:
            ValueError: as `teachers.load`.
        """
        if settings is None:
            return None
        masked_words.named(self)  # what is wrong with it is found now
        if self.teacher.teacher is None:
            return None
        return teachers.load(self, settings, dataset, states)

    def distillation(self, recipes: train.Distillation | None = None,
                     states: bool = False) -> train.Distillation | None:
        """What is to be learned from a teacher (`Teacher.distillation`).

        Without labels a teacher is all there is to learn from, and the weight that a
        recipe gives to labels is passed over.

        Args:
            recipes: what a recipe says of it.
            states: as of `Teacher.distillation`.

        Raises:
            ValueError: what needs a teacher, or labels, is given without.
        """
        labels = tasks.named(self.task).needs_labels or (
            self.train is not None and self.data.text_pair_column is not None)
        if labels:
            return self.teacher.distillation(recipes, states)
        if self.teacher.hard_weight:
            raise ValueError("--distil_hard_weight needs labels. Received: "
                             f"--distil_hard_weight={self.teacher.hard_weight}")
        return self.teacher.distillation(dataclasses.replace(
            recipes or train.Distillation(), hard_weight=0.0), states)

    def load(self, path: PathLike, task: tasks.Task) -> keras.Model:
        """A checkpoint with the head of a task.

        Args:
            path: of the checkpoint.
            task: whose classifier, if it has one, is fresh where the checkpoint's own
                has other outputs.

        Raises:
            ValueError: it cannot be read, or the task has another head.
        """
        head: dict[str, Any] = {"head": task.head()}
        if task.head().outputs and task.head().reads == "first":
            head = {"num_labels": task.outputs}  # its pooler stays the checkpoint's own
        found = model.load(path, seed=self.settings.seed, **head)
        task.check_outputs(found.output_shape)
        return found

    def train_model(self, dataset: Dataset, context: compress.Context | None = None,
                    **places: Any) -> tuple[keras.Model, list[dict[str, float]]]:
        """Fine-tunes the checkpoint.

        Args:
            dataset: what to learn.
            context: with a teacher; None learns from the labels alone.
            **places: `state_dir` and `log_dir` of `train.fit`.

        Returns:
            The model, and the figures of each epoch; none where there are neither
            labels nor a teacher, and the checkpoint is what it is.

        Raises:
            ValueError: the checkpoint cannot be read, or has too few positions.
        """
        with self.devices.placement().strategy.scope():
            keras_model = self.load(self.start, dataset.task)
        self.check_length(keras_model)
        check_vocabulary(keras_model, dataset.tokenizer)
        context = context or compress.Context(task=dataset.task, train=dataset.train)
        if context.teacher is None and not dataset.task.learns_from_labels:
            return keras_model, []  # nothing is to be learned: it is the baseline
        batches, goal = context.training_inputs(keras_model)
        return keras_model, train.fit(
            keras_model, batches, dataset.choose, self.training_settings(), goal=goal,
            **places)

    def with_teacher(self, context: compress.Context, dataset: Dataset,
                     settings: train.Distillation | None, state: Path,
                     teacher: LoadedTeacher | None, keep: bool = False
                     ) -> compress.Context:
        """Adds the teacher, if something is to be learned from one, and its texts.

        Args:
            context: of training without one.
            dataset: what it was trained for.
            settings: what is learned (`Teacher.distillation`).
            state: where its logits are kept, if they are.
            teacher: as `load_teacher` gives it, or the baseline.
            keep: whether its logits are kept in any case.

        Raises:
            ValueError: there is no teacher.
        """
        if settings is None:
            return context
        if teacher is None:
            raise ValueError("--teacher_dir must name the teacher of a fine-tuning. "
                             "Received: none")
        return teachers.with_teacher(context, self, dataset, settings, state, teacher,
                                     keep)

    def fill(self, directory: Path, dataset: Dataset, identity: dict[str, Any],
             places: dict[str, Path], context: compress.Context | None = None) -> None:
        """Fine-tunes into a directory; does nothing where that is done already.

        Args:
            directory: where the model goes, whole or not at all.
            dataset: what to learn.
            identity: of the run.
            places: as of `train_model`.
            context: with a teacher, if there is one.
        """
        if run_dir.is_done(directory, model.KERAS_FILE, identity):
            logging.info("Fine-tuned already: %s", directory)
            return
        keras_model, _ = self.train_model(dataset, context, **places)
        dataset.save_text_side(directory, keras_model)
        run_dir.note_stage(directory, identity)
        model.save(keras_model, directory)

    def identity(self) -> dict[str, Any]:
        """What the run is made of: contents of its files, and all options.

        Raises:
            ValueError: a file cannot be read.
        """
        from tfopt import __version__

        found: dict[str, Any] = {"run": "finetune", "version": __version__}
        for name in ("train", "dev", "test"):
            found[name] = identities.of_file(getattr(self, name))
        found["unlabelled"] = identities.of_file(self.teacher.unlabelled)
        for name, given in (("model", self.model), ("teacher", self.teacher.teacher),
                            ("augment_model", self.teacher.augment_model)):
            found[name] = of_checkpoint(given)
        found["task"] = self.task
        for field in dataclasses.fields(FineTuning):
            record = getattr(self, field.name)
            if isinstance(record, Options | train.Settings):
                found |= identities.of_options(record, {
                    "teacher", "unlabelled", "logits_dir", "augment_model"})
        return found


def of_checkpoint(name: PathLike | None) -> dict[str, str] | None:
    """The identity of a checkpoint by its name; of one of the hub with its commit.

    Raises:
        ValueError: there is none.
    """
    if name is None or str(name).startswith("random:"):
        return identities.of_checkpoint(name)
    return identities.of_checkpoint(name, model.directory(name), hub.revision_of(name))
