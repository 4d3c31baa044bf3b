"""The contract of a compression pass: Model -> Model.

A pass is a frozen dataclass in a file of its own under `passes/`; its fields are its
only knobs, its module's name is its name. A pass that trains gives `wrap`,
`callbacks` and `strip`, which also serve a user's own `model.fit`; one that does not
overrides `apply`.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from tfopt.backend import keras
from tfopt.compress.costs import Costs
from tfopt.compress.teacher import check_teacher, taps
from tfopt.model import EncoderConfig, for_inference
from tfopt.tasks.base import Task
from tfopt.tasks.classification import Classification
from tfopt.train import loop
from tfopt.train.distill.config import Distillation
from tfopt.train.distill.teacher_cache import with_cached_logits
from tfopt.train.objective import Objective
from tfopt.types import BatchSource, PathLike


class Stage(enum.IntEnum):
    """What a pass changes. A recipe's passes never go back a stage."""

    SHAPE = 1  # sizes
    WEIGHTS = 2  # values
    NUMERICS = 3  # arithmetic


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
        teacher_logits_file: where the teacher's logits of those are kept, computed
            once; None runs it on every batch.
        costs: what the blocks of a BERT of some config take in time, or None.
        removable_tokens: ids that a vocabulary can do without -> the id read in the
            place of each, which stays; or None (`data.WordPiece.removable` tells).
    """

    task: Task = Classification()
    train: BatchSource | None = None
    dev: BatchSource | None = None
    settings: loop.Settings = loop.Settings()
    state_dir: PathLike | None = None
    log_dir: PathLike | None = None
    teacher: keras.Model | None = None
    transfer_set: BatchSource | None = None
    distillation: Distillation = Distillation()
    teacher_logits_file: PathLike | None = None
    costs: Callable[[EncoderConfig], Costs] | None = None
    removable_tokens: Mapping[int, int] | None = None

    def __post_init__(self):
        """Checks the fields with one another.

        Raises:
            ValueError: logits are to be kept where there is no teacher, or where more
                than its logits is learned from.
        """
        if self.teacher_logits_file is None:
            return
        if self.teacher is None:
            raise ValueError("Logits are kept of a teacher. Received: teacher=None, "
                             f"teacher_logits_file={self.teacher_logits_file}")
        if self.distillation.uses_layers:
            raise ValueError(
                "A file keeps a teacher's logits alone; hidden states and relations "
                "need the teacher in every step: leave out the file, or their weights. "
                f"Received: hidden_weight={self.distillation.hidden_weight}, "
                f"relations_weight={self.distillation.relations_weight}, "
                f"teacher_logits_file={self.teacher_logits_file}")

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
            ValueError: the teacher does not fit the student.
        """
        plain = self.task.objective()
        if self.teacher is None:
            return self.training_set, plain
        check_teacher(self.teacher, model)
        if self.distillation.uses_layers:
            return self.training_set, self.distillation.goal(self.teacher, taps, plain)
        quick = for_inference(self.teacher)
        if self.teacher_logits_file is None:
            return self.training_set, self.distillation.goal(quick, of=plain)
        return (with_cached_logits(self.training_set, quick, self.teacher_logits_file),
                self.distillation.goal(of=plain))

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
        loop.fit(model, train, self.dev, settings, goal=goal, state_dir=self.state_dir,
                 log_dir=self.log_dir, **options)

    def within(self, label: str) -> Context:
        """The context with directories of a pass's own, or of a part of one."""
        return dataclasses.replace(
            self, state_dir=self.state_dir and Path(self.state_dir) / label,
            log_dir=self.log_dir and Path(self.log_dir) / label)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a pass did.

    Attributes:
        model: the compressed model.
        touched: names of the layers it changed.
        skipped: names of the layers it could have changed and did not -> the reason.
        figures: what it claims, by metric name; held against measurement.
        notes: sentences for the report.
        kept_tokens: where token ids are numbered anew, the ids from before in their new
            order (`data.WordPiece.keeping` makes the tokenizer); else None.
        context: fields of the Context that the passes after it need in place of the
            ones given, such as batches of the new ids.
        details: facts for pictures, as JSON has them; the pass says which.
    """

    model: keras.Model
    touched: tuple[str, ...]
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)
    figures: Mapping[str, float] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    kept_tokens: tuple[int, ...] | None = None
    context: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pass:
    """Base of all passes; a subclass adds fields and methods.

    Class attributes:
        stage: what it changes.
        needs: names of the `Context` fields without which it cannot run.
        same_on_replicas: whether several devices give, but for rounding, the weights
            that one gives; not so where a pass gathers squares of gradients, say, and
            each replica those of its own share of the batch.
        may_touch_nothing: whether that there is nothing to do is an answer, such as
            where a trial tells; elsewhere it is an error.
    """

    stage: ClassVar[Stage]
    needs: ClassVar[tuple[str, ...]] = ()
    same_on_replicas: ClassVar[bool] = True
    may_touch_nothing: ClassVar[bool] = False

    @classmethod
    def name(cls) -> str:
        """The name in a recipe: that of the pass's module."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def example(cls) -> Pass:
        """The smallest instance that does something, for tests."""
        return cls()

    def resolve(self, context: Context) -> Pass:
        """Fills in what only the context can tell, such as the length of the run."""
        return self

    def wrap(self, model: keras.Model) -> keras.Model:
        """Returns a copy of the model, ready to be trained under this pass."""
        raise TypeError(f"The pass {self.name()!r} does not train. Received: wrap()")

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns the callbacks that `fit` of the wrapped model needs."""
        return []

    def strip(self, model: keras.Model) -> keras.Model:
        """Returns a plain model from a wrapped and trained one."""
        raise TypeError(f"The pass {self.name()!r} does not train. Received: strip()")

    def first_valid_step(self) -> int:
        """The training step from which a wrapped model is in its final form."""
        return 0

    def outcome(self, before: keras.Model, after: keras.Model) -> Outcome:
        """Says what `strip` left: layers touched and skipped, and the figures."""
        raise TypeError(f"The pass {self.name()!r} does not train. Received: outcome()")

    def apply(self, model: keras.Model, context: Context) -> Outcome:
        """Runs the pass: by default wrap, fit, strip.

        Args:
            model: a copy that is the pass's own.
            context: has all that `needs` names.

        Returns:
            What was done, with the new model.
        """
        chosen = self.resolve(context)
        wrapped = chosen.wrap(model)
        context.fit(wrapped, callbacks=chosen.callbacks(),
                    first_valid_step=chosen.first_valid_step())
        return chosen.outcome(model, chosen.strip(wrapped))

    def to_fields(self) -> dict[str, Any]:
        """The pass as JSON values: {"pass": name, field: value, ...}."""
        return {"pass": self.name(), **dataclasses.asdict(self)}


def copy_model(model: keras.Model) -> keras.Model:
    """Copies a functional model with variables of its own.

    Args:
        model: functional; its layers must be rebuilt by their `get_config`.

    Returns:
        The copy, of the same weights; not compiled.

    Raises:
        ValueError: the model is subclassed, and Keras cannot tell its layers.
    """
    if not getattr(model, "_is_graph_network", False):
        raise ValueError(
            "A model must be functional or Sequential (and built), so that its layers "
            f"can be told apart. Received: {type(model).__name__}")
    # from_config rather than clone_model: the latter keeps the layer objects of some
    # wrappers, and with them their variables.
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy
