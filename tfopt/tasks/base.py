"""The contract of a task: files' labels -> targets, a loss, a quality, answers.

A task is a frozen dataclass in a module of its own here, whose name is the task's; the
registry finds it. What knows labels, losses or metrics elsewhere asks the task. Methods
that train import TensorFlow when they are called.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tfopt.tasks.judged import Judged
from tfopt.tasks.optional import TaskDefaults
from tfopt.types import check_fields

if TYPE_CHECKING:
    from tfopt.model.heads import Head
    from tfopt.train.objective import Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(TaskDefaults, Judged):
    """What a model is trained for, and judged by.

    A task without its fields, `NAME()`, can be made too, where losses and metrics alone
    are asked for.

    Class attributes, beside those of `Judged`:
        label_form: of a label in a file (`data.Columns.form`): "word", "number", with
            a fraction or without, "set", of any number of words, or "tags", of words
            of the text.
        no_target: what stands for a missing target, or for a number of one that is an
            array: -1 or NaN (`types.is_labelled`).
        target_rank: axes of one example's target: 0 of a number, 1 of a row of them.
        per_token: whether the first of these is that of the example's tokens, of which
            the model has outputs each, and whose places in the text answers name.
        published_as: how the names of architectures end, by which others publish models
            of the task; "" of what has no such name, or is a classification.
        problem_type: what `config.json` calls it there, beside a classifier's name.
        pipeline_tag: what the Hugging Face hub calls it; "" where it has no name.

    Attributes:
        labels: label words by class number; empty where the task has none.
    """

    labels: tuple[str, ...] = ()

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: the labels are one word, not a list of words.
        """
        check_fields(self, {})

    label_form: ClassVar[str] = "word"
    no_target: ClassVar[float]
    target_rank: ClassVar[int] = 0
    per_token: ClassVar[bool] = False
    published_as: ClassVar[str] = ""
    problem_type: ClassVar[str] = ""
    pipeline_tag: ClassVar[str] = ""

    @classmethod
    def name(cls) -> str:
        """The task's name: that of its module."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    @abc.abstractmethod
    def from_corpus(cls, corpus: Any, known_labels: Sequence[str] | None = None
                    ) -> Task:
        """Makes the task of a train set.

        Args:
            corpus: a `data.Corpus`.
            known_labels: of the checkpoint, in the order of its classes; or None.
        """

    @property
    @abc.abstractmethod
    def outputs(self) -> int:
        """Numbers that the model gives for an example."""

    @abc.abstractmethod
    def targets(self, corpus: Any) -> list:
        """What the model is to give, for each of N examples.

        Args:
            corpus: a `data.Corpus`.

        Returns:
            N whole numbers, or N floats; or N arrays of either, of one shape but for
            the tokens of `per_token`. Below 0, or NaN, stands for none
            (`types.is_labelled`).

        Raises:
            ValueError: a label cannot be a target; names file and line.
        """

    def evaluation_targets(self, corpus: Any) -> list:
        """Targets of a file to judge by, whose labels may be others than train's.

        A label that the task does not have counts as wrong, whatever a model answers.

        Args:
            corpus: a `data.Corpus`.

        Returns:
            As of `targets`, which a task without labels calls.

        Raises:
            ValueError: as of `targets`, but for unknown labels.
        """
        return self.targets(corpus)

    def unknown_labels(self, corpus: Any) -> list[tuple[str, ...]]:
        """Of each of N examples, its labels that the task does not have.

        Args:
            corpus: a `data.Corpus`.
        """
        if not self.labels:
            return [()] * len(corpus)
        known = {*self.labels}
        return [tuple(word for word in words if word not in known)
                for words in corpus.words()]

    def on_tokens(self, targets: list, corpus: Any, encoded: Any) -> list:
        """What targets are once texts are read: other ones for a task of tokens.

        Args:
            targets: of N examples.
            corpus: of these.
            encoded: the `data.Encoded` of these; with places for a task of tokens.
        """
        return targets

    def remarks(self, name: str, targets: Sequence, truncated: int) -> list[str]:
        """Sentences on what of a split's labels cannot be learned, or answered.

        Args:
            name: of the split.
            targets: of N examples, as `on_tokens` gives them.
            truncated: how many texts were cut.
        """
        return []

    @abc.abstractmethod
    def objective(self) -> Objective:
        """What training minimizes, with its metrics."""

    @abc.abstractmethod
    def guess(self, outputs: Any) -> Any:
        """The targets that the model itself takes for right.

        Args:
            outputs: <float>[B, outputs], TensorFlow's.

        Returns:
            <int32>[B, ...] or <float32>[B, ...], as the task's targets.
        """

    @abc.abstractmethod
    def decode(self, outputs: np.ndarray, encoded: Any = None) -> list[dict[str, Any]]:
        """Answers as a person or a client reads them.

        Args:
            outputs: <float>[N, outputs].
            encoded: the `data.Encoded` that was read, for tasks whose answers name
                places in a text.

        Returns:
            A JSON object for each of N examples.
        """

    def head(self) -> Head:
        """The head of a model of this task."""
        from tfopt.model.heads import Head

        return Head(outputs=self.outputs)

    def check_outputs(self, shape: Sequence[int | None]) -> None:
        """Checks that what a model gives can be answers of this task.

        Args:
            shape: of a model's output, [B, outputs], or [B, T, outputs] of a head that
                reads all tokens. A task without its fields, of no outputs yet, takes
                any.

        Raises:
            ValueError: the shape is another.
        """
        if not self.outputs:
            return
        tokens = [None] if self.head().reads == "all" else []
        own = (None, *tokens, self.outputs)
        if (len(shape), shape[-1]) != (len(own), own[-1]):
            raise ValueError(f"A model of the task {self.name()!r} must give outputs "
                             f"of shape {own}. Received: a model that gives "
                             f"{tuple(shape)}")

    def with_guesses(self, outputs: Any, targets: Any, visible: Any = None) -> Any:
        """Targets, with the model's guesses where there are none.

        Args:
            outputs: <float>[B, outputs].
            targets: <int32>[B, ...] or <float32>[B, ...]; below 0, or NaN, where one is
                missing. <int>[B] of -1 stands for no target of any example, whatever
                the task's are.
            visible: which tokens are no padding, <int>[B, T]; for a task of tokens.

        Returns:
            <int32>[B, ...] or <float32>[B, ...], constants to a gradient.
        """
        from tfopt.backend import tf
        from tfopt.types import is_labelled

        guesses = tf.stop_gradient(self.guess(outputs))
        if targets.shape.rank < guesses.shape.rank:  # [B] -> [B, 1, ...]
            targets = tf.reshape(targets, [-1, *[1] * (guesses.shape.rank - 1)])
        return tf.where(is_labelled(targets), tf.cast(targets, guesses.dtype), guesses)

    def example_loss(self, outputs: Any, targets: Any, visible: Any = None) -> Any:
        """The loss of each example, whose gradient shows what matters in a model.

        A task whose loss of its own guess has no gradient, such as a square of the
        difference, puts another target in the place of a missing one here.

        Args:
            outputs: <float>[B, outputs].
            targets: as of `with_guesses`; for a missing one, the model's own guess is
                taken.
            visible: the same.

        Returns:
            <float32>[B].
        """
        from tfopt.backend import tf

        return self.objective().hard_loss(
            tf.cast(outputs, tf.float32), self.with_guesses(outputs, targets, visible))

    def to_fields(self) -> dict[str, Any]:
        """The task as JSON values: {"task": name, field: value, ...}."""
        return {"task": self.name(), **dataclasses.asdict(self)}


def check_same_number(outputs: Sized, targets: Sized) -> None:
    """Checks that there is an output for each target, and one at all.

    Raises:
        ValueError: the numbers of examples differ, or there are none.
    """
    if len(outputs) != len(targets) or not len(targets):
        raise ValueError("Outputs and targets must be of the same examples. Received: "
                         f"{len(outputs)} outputs, {len(targets)} targets")
