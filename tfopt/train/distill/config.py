"""Distillation: an objective made from a teacher, for any training.

    goal = tfopt.Distillation(temperature=2.0).goal(teacher)
    train.fit(student, batches, dev, goal=goal)

A student is trained on a mix, by weights: the labels, the teacher's logits, its hidden
states, and how its tokens relate to one another (`train.distill.losses` has the
equations).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from tfopt import checks
from tfopt.backend import keras, tf
from tfopt.train import objective
from tfopt.train.distill import answers
from tfopt.train.distill.student import DistillationLoss, StudentModel, Taps
from tfopt.types import check_fields, check_types

LAYERS = ("even", "nearest")
RELATIONS = ("query", "key", "value")  # as `Taps.projections` has them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distillation:
    """What a student is trained on, beside the targets.

    Attributes:
        temperature: by which both models' logits are divided, above 0.
        soft_weight: of the teacher's logits; their divergence times temperature^2.
        hard_weight: of the cross-entropy with the labels; examples without a label
            learn from the teacher alone.
        hidden_weight: of the hidden states, mean over layers. Where the teacher is
            wider, one trained matrix takes the student's states to its width; it is
            thrown away after training.
        relations_weight: of the relations between tokens in the last layer that has
            attention, in each model; mean over `relations`.
        layers: "even", layers at even steps follow one another; "nearest", the same
            layers of the teacher are each followed by the student's layer that is
            nearest in this step, after CoFi.
        relations: pairs of "query", "key", "value". Each with itself is MiniLMv2;
            (("query", "key"), ("value", "value")) is attention and values, MiniLM v1.
        relation_heads: parts into which queries, keys and values are cut for that;
            must divide both models' widths of them. None for the most, up to the
            teacher's heads, that do.
    """

    temperature: float = 2.0
    soft_weight: float = 1.0
    hard_weight: float = 0.5
    hidden_weight: float = 0.0
    relations_weight: float = 0.0
    layers: str = "even"
    relations: tuple[tuple[str, str], ...] = tuple((x, x) for x in RELATIONS)
    relation_heads: int | None = None

    def __post_init__(self):
        """Checks the values.

        Raises:
            ValueError: one is out of its range, or the teacher has no weight.
        """
        check_types(self)
        weights = {name: getattr(self, name) for name in (
            "soft_weight", "hidden_weight", "relations_weight", "hard_weight")}
        check_fields(self, {
            "temperature": (0 < self.temperature < math.inf, "a finite number above 0"),
            **{name: (0 <= value < math.inf, "a finite number from 0")
               for name, value in weights.items()},
            "layers": (self.layers in LAYERS, f"one of {LAYERS}"),
            "relations": (self.relations and all(
                len(pair) == 2 and set(pair) <= set(RELATIONS)
                for pair in self.relations), f"pairs of {RELATIONS}"),
            "relation_heads": (self.relation_heads is None or self.relation_heads >= 1,
                               "at least 1"),
        })
        if not self.soft_weight and not self.uses_layers:
            raise ValueError(
                "One of soft_weight, hidden_weight and relations_weight must be above "
                "0, or the teacher teaches nothing. Received: "
                + ", ".join(f"{name}={value}" for name, value in weights.items()))

    @property
    def uses_layers(self) -> bool:
        """Whether more than the teacher's logits is used, so that it must be there."""
        return bool(self.hidden_weight or self.relations_weight)

    def goal(self, teacher: keras.Model | None = None,
             taps: Callable[[keras.Model], Taps] | None = None,
             of: objective.Objective | None = None) -> objective.Objective:
        """Makes the objective.

        Args:
            teacher: functional, of the student's inputs and classes; it is copied, and
                never trained. None where the batches carry its logits.
            taps: finds hidden states and projections in a model, such as
                `compress.teacher.taps` in a BERT; needed for these alone.
            of: the objective without a teacher, as of a task; default cross-entropy.

        Returns:
            What `fit` takes; or, in a script of one's own, what makes of a student the
            model to compile and fit: `goal.prepare(student)`.

        Raises:
            ValueError: the teacher is missing, subclassed, or gives probabilities where
                logits are asked for, but those of a softmax, of which it takes the
                logarithms; or `taps` are missing.
        """
        if self.uses_layers and (teacher is None or taps is None):
            raise ValueError(
                "Hidden states and relations need the teacher itself, not its logits "
                f"alone, and `taps` to find them. Received: teacher={teacher}, "
                f"taps={taps}")
        plain = of or objective.cross_entropy()
        if teacher is not None:
            checks.check_one_output(teacher, "A teacher")
            teacher = answers.to_logits(teacher, plain)
            plain.check(teacher, "A teacher")
        return _Teaching(settings=self, teacher=teacher, taps=taps, **vars(plain))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Teaching(objective.Objective):
    """The objective of `Distillation.goal`; on dev, the student is judged alone."""

    settings: Distillation
    teacher: keras.Model | None
    taps: Callable[[keras.Model], Taps] | None

    @property
    def reads_layers(self) -> bool:
        """Whether hidden states or relations are compared."""
        return self.settings.uses_layers

    @property
    def needs_targets(self) -> bool:
        """Not so: where labels have a weight and are none, the loss says it."""
        return False

    def prepare(self, model: keras.Model, precision: str = "float32") -> keras.Model:
        """Makes the model that learns from the teacher while it is fitted.

        Raises:
            ValueError: the teacher has other classes, or widths do not fit.
        """
        with model.distribute_strategy.scope():
            return StudentModel(model, DistillationLoss(
                self, model, precision))

    def trained_variables(self, prepared: Any) -> list[tf.Variable]:
        """The student's variables and those of the matrix between the widths."""
        return prepared.trained_variables
