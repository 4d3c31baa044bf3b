"""Makes a student of fewer encoder layers, out of the model's own.

Layers that stay keep their weights, as DistilBERT's were taken from its teacher (Sanh
et al. 2019, arXiv:1910.01108, section 3); then the student is trained, from a teacher
where there is one. "even" keeps the last layer and those at even steps before it: the
uniform map of TinyBERT (Jiao et al. 2020, arXiv:1909.10351, section 4.1) and of Patient
KD's "skip" (Sun et al. 2019, arXiv:1908.09355, section 3.2). The head was trained on
the last layer's states, and distillation of hidden states has each layer follow the
very one that it was. "cheapest" is greedy: what goes next is the layer without which
the loss is least.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from absl import logging

from tfopt.backend import keras
from tfopt.compress.base import Context, Outcome, Pass, Stage
from tfopt.compress.samples import mean_loss, with_targets
from tfopt.compress.structure.slicing import shorten
from tfopt.model import config_of
from tfopt.model.anatomy import Anatomy
from tfopt.model.heads import head_of
from tfopt.model.weight_shapes import num_parameters
from tfopt.tasks.base import Task
from tfopt.tasks.classification import Classification
from tfopt.train.distill import losses
from tfopt.types import BatchSource, check_fields

CHOICES = ("even", "first", "last", "cheapest")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Student(Pass):
    """Keeps some of a BERT's encoder layers, and trains what is left.

    Attributes:
        layers: how many to keep, at least 1 and fewer than there are.
        which: "even", the last one and those at even steps before; "first" or "last",
            that many from that end; "cheapest", those left when the layer whose removal
            raises the loss least has gone, again and again.
        examples: how many of train that loss is measured on.
        epochs: of training; None for the settings', 0 for none.
    """

    layers: int
    which: str = "even"
    examples: int = 512
    epochs: int | None = None

    stage = Stage.SHAPE

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: one is out of its range.
        """
        super().__post_init__()
        check_fields(self, {
            "layers": (self.layers >= 1, "at least 1"),
            "which": (self.which in CHOICES, f"one of {CHOICES}"),
            "examples": (self.examples >= 1, "at least 1"),
            "epochs": (self.epochs is None or self.epochs >= 0, "at least 0, or None"),
        })

    @classmethod
    def example(cls) -> Student:
        """A single layer, chosen by its loss, and trained."""
        return cls(layers=1, which="cheapest", examples=16)

    def resolve(self, context: Context) -> Student:
        """Checks that there is data where it is used.

        Raises:
            ValueError: there is none, and the pass measures losses or trains.
        """
        if context.train is None and (self.which == "cheapest" or self.epochs != 0):
            raise ValueError(
                f"The pass {self.name()!r} needs train to choose the cheapest layers, "
                f"and to train. Received: train=None, which={self.which!r}, "
                f"epochs={self.epochs}")
        return self

    def apply(self, model: keras.Model, context: Context) -> Outcome:
        """Drops layers and trains.

        Raises:
            ValueError: the model is no BERT of more than `layers` plain layers, or
                there is no data.
        """
        self.resolve(context)
        kept = self.choose(model, context.train, context.task)
        logging.info("Encoder layers kept, of %d: %s", config_of(model).num_layers,
                     kept)
        student = shorten(model, kept)
        context.fit(student, self.epochs)
        return _outcome(model, student, kept)

    def choose(self, model: keras.Model, train: BatchSource | None = None,
               task: Task = Classification()) -> tuple[int, ...]:  # noqa: B008
        """Chooses the layers to keep.

        Args:
            model: a BERT.
            train: labelled batches; for "cheapest" alone.
            task: whose loss "cheapest" goes by.

        Returns:
            Their numbers in the model, ascending.

        Raises:
            ValueError: the model is no BERT of more than `layers` layers, or there are
                no batches to choose the cheapest by.
        """
        total = config_of(model).num_layers
        if self.layers >= total:
            raise ValueError(f"`layers` must be below the model's {total}. Received: "
                             f"layers={self.layers}")
        if self.which == "even":
            return tuple(losses.evenly(self.layers, total))
        if self.which == "cheapest":
            if train is None:
                raise ValueError("The cheapest layers are chosen on batches. Received: "
                                 "train=None")
            return cheapest(model, self.layers, train, self.examples, task)
        first = 0 if self.which == "first" else total - self.layers
        return tuple(range(first, first + self.layers))


def cheapest(model: keras.Model, layers: int, train: BatchSource, examples: int,
             task: Task = Classification()  # noqa: B008
             ) -> tuple[int, ...]:
    """Drops encoder layers one by one, each the one whose loss is missed least.

    Args:
        model: a BERT.
        layers: how many to keep.
        train: batches; of examples without a target, the model's own guess.
        examples: how many of them are read, rounded up to whole batches.
        task: whose loss it is.

    Returns:
        Numbers of the layers that stay, ascending.
    """
    found = with_targets(model, train, examples, task)
    kept = tuple(range(config_of(model).num_layers))
    while len(kept) > layers:
        rests = [kept[:i] + kept[i + 1:] for i in range(len(kept))]
        losses = [mean_loss(shorten(model, rest), found, task) for rest in rests]
        best = int(np.argmin(losses))
        logging.info("Without layer %d the loss is %.4f; without another, up to %.4f",
                     kept[best], losses[best], max(losses))
        kept = rests[best]
    return kept


def _outcome(before: keras.Model, after: keras.Model, kept: Sequence[int]) -> Outcome:
    touched = tuple(layer.name for i, gone in enumerate(Anatomy.of(before).layers)
                    if i not in kept for layer in gone.all if layer.weights)
    note = f"of the encoder layers, from 0, stay {', '.join(map(str, kept))}"
    config = config_of(before)
    config = config.replace(
        num_heads=[config.num_heads[i] for i in kept],
        intermediate_sizes=[config.intermediate_sizes[i] for i in kept])
    return Outcome(
        model=after, touched=touched, notes=(note,),
        figures={"parameters": float(num_parameters(config, head_of(before)))})
