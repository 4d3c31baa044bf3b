"""What a recipe's passes may use beside the model: data, a teacher, settings, places.

A field is of use to many passes; what one or two of them ask for is a resource, by a
name that they give in `needs`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tfopt.backend import keras
from tfopt.compress.teacher import check_teacher, taps
from tfopt.model import for_inference
from tfopt.tasks.base import Task
from tfopt.tasks.classification import Classification
from tfopt.train import loop
from tfopt.train.distill import answers
from tfopt.train.distill.config import Distillation
from tfopt.train.distill.teacher_cache import with_cached_logits
from tfopt.train.objective import Objective
from tfopt.train.settings import Settings
from tfopt.types import BatchSource, PathLike


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context:
    """What a recipe's passes may use beside the model; data reaches them only so.

    Attributes:
        task: what the model is for; its objective trains, its losses tell what matters.
        train: labelled batches to learn from, or None.
        dev: labelled batches that choose the best epoch, or None.
        settings: how the passes that train do it.
        state_dir: where a killed run finds its state, or None.
        log_dir: where TensorBoard's files go, or None.
        teacher: a trained model; every pass that trains then distils from it. None
            learns from the labels alone.
        transfer_set: what is learned from the teacher, if not `train` alone: it may
            hold texts without labels, by which nothing is measured; or None.
        distillation: how it is.
        teacher_logits_dir: where the teacher's logits of those are kept, computed
            once; None runs it on every batch.
        states_teacher: of whom hidden states and relations are learned, if not of
            `teacher`, whose logits are kept; a pass may provide it (`passes.retrain`).
        read_by_teacher: the examples of `training_set` in their order, as a teacher
            reads them that has a tokenizer of its own; its logits are then kept. None
            where it reads the same tokens.
        watch: is told the figures of each epoch that a pass trains, such as
            val_accuracy; what it raises ends the training. None watches nothing.
        resources: what single passes ask for by name, in their `needs`, such as
            "tokenizer" (which knows the words behind the ids) or "costs" (config ->
            what the blocks of such an encoder take in time, `compress.costs.Costs`).
    """

    task: Task = Classification()
    train: BatchSource | None = None
    dev: BatchSource | None = None
    settings: Settings = Settings()
    state_dir: PathLike | None = None
    log_dir: PathLike | None = None
    teacher: keras.Model | None = None
    transfer_set: BatchSource | None = None
    distillation: Distillation = Distillation()
    teacher_logits_dir: PathLike | None = None
    states_teacher: keras.Model | None = None
    read_by_teacher: BatchSource | None = None
    watch: Callable[[Mapping[str, float]], object] | None = None
    resources: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        """Checks the fields with one another.

        Raises:
            ValueError: logits are to be kept where there is no teacher, or a teacher
                reads for itself and nothing is kept.
        """
        if self.read_by_teacher is not None and self.teacher_logits_dir is None:
            raise ValueError("The logits of a teacher that reads by a tokenizer of its "
                             "own are kept. Received: teacher_logits_dir=None")
        if self.keeps_logits and self.teacher is None:
            raise ValueError("Logits are kept of a teacher. Received: teacher=None, "
                             f"teacher_logits_dir={self.teacher_logits_dir}")

    @property
    def keeps_logits(self) -> bool:
        """Whether the teacher reads all texts once, not in every step."""
        return self.teacher_logits_dir is not None

    def check_states(self, provided: bool = False) -> None:
        """Checks that there is a teacher of hidden states where these are learned.

        Args:
            provided: whether a pass before has left one.

        Raises:
            ValueError: the teacher's logits alone are kept.
        """
        if self.keeps_logits and self.distillation.uses_layers and not (
                provided or self.states_teacher is not None):
            raise ValueError(
                "What is kept of a teacher is its logits alone; hidden states and "
                "relations need a teacher of the same tokens in every step: keep "
                "nothing, leave out their weights, or let the pass 'retrain' make such "
                "a teacher first. Received: "
                f"hidden_weight={self.distillation.hidden_weight}, "
                f"relations_weight={self.distillation.relations_weight}, "
                f"teacher_logits_dir={self.teacher_logits_dir}")

    def get(self, name: str) -> Any:
        """The field or the resource of a name; None where there is none."""
        return getattr(self, name) if name in _fields() else self.resources.get(name)

    def replaced(self, changes: Mapping[str, Any]) -> Context:
        """The context with other fields and resources.

        Args:
            changes: names of either -> what takes their place.
        """
        fields = {name: changes[name] for name in changes if name in _fields()}
        others = {name: changes[name] for name in changes if name not in fields}
        return dataclasses.replace(self, **{
            "resources": {**self.resources, **others}, **fields})

    @property
    def labelled(self) -> BatchSource:
        """`train`, for a pass that cannot do without.

        Raises:
            ValueError: it is not there.
        """
        if self.train is None:
            raise ValueError("This pass needs batches of train. Received: train=None")
        return self.train

    @property
    def training_set(self) -> BatchSource:
        """The batches that passes train on.

        Raises:
            ValueError: there are none.
        """
        alone = None in (self.teacher, self.transfer_set)
        batches = self.train if alone else self.transfer_set
        if batches is None:
            raise ValueError("Training needs batches. Received: train=None")
        return batches

    def training_inputs(self, model: keras.Model) -> tuple[BatchSource, Objective]:
        """What a model is to be trained on, and for.

        Args:
            model: the student.

        Returns:
            `training_set`, maybe with the teacher's logits, and the objective.

        Raises:
            ValueError: the student is of another task, or the teacher does not fit it.
        """
        self.task.check_outputs(model.output_shape)
        plain = self.task.objective()
        if self.teacher is None:
            return self.training_set, plain
        self.check_states()
        if self.read_by_teacher is None:
            check_teacher(self.teacher, model)
        if self.teacher_logits_dir is None:
            layers = self.distillation.uses_layers
            teacher = answers.to_logits(
                self.teacher if layers else for_inference(self.teacher), plain,
                self.training_set)
            return self.training_set, self.distillation.goal(
                teacher, taps if layers else None, plain)
        batches = with_cached_logits(
            self.training_set, for_inference(self.teacher), self.teacher_logits_dir,
            read_as=self.read_by_teacher, classes=answers.takes_logarithms(plain))
        if self.distillation.uses_layers and self.states_teacher is not None:
            check_teacher(self.states_teacher, model)
            return batches, self.distillation.goal(self.states_teacher, taps, plain)
        return batches, self.distillation.goal(of=plain)

    def fit(self, model: keras.Model, epochs: int | None = None, **options) -> None:
        """Trains a model in place, as the context says.

        Args:
            model: the student, where there is a teacher.
            epochs: None for the settings'; 0 does nothing.
            **options: of `loop.fit`, such as `callbacks`.

        Raises:
            ValueError: the teacher does not fit the student.
        """
        if epochs == 0:
            return
        settings = self.settings if epochs is None else dataclasses.replace(
            self.settings, epochs=epochs)
        train, goal = self.training_inputs(model)
        if self.watch is not None:
            told = keras.callbacks.LambdaCallback(
                on_epoch_end=lambda _, figures: self.watch(figures or {}))
            options["callbacks"] = [*options.get("callbacks", ()), told]
        loop.fit(model, train, self.dev, settings, goal=goal, state_dir=self.state_dir,
                 log_dir=self.log_dir, **options)

    def within(self, label: str) -> Context:
        """The context with directories of a pass's own, or of a part of one."""
        return dataclasses.replace(
            self, state_dir=self.state_dir and Path(self.state_dir) / label,
            log_dir=self.log_dir and Path(self.log_dir) / label)


@functools.cache
def _fields() -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(Context))
