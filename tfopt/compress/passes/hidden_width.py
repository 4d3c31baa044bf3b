"""Narrows the residual stream of a BERT, the width that every layer reads and writes.

The same dimensions stay in all layers, as the hidden mask of CoFi has it (Xia et al.
2022, arXiv:2204.00408, section 3.1); heads and neurons stay as they are. Scores of some
examples say which, least squares have what reads the stream make up for the others
(a minute, no training); then training recovers the rest, from a teacher where there is
one, whose states may be wider.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from absl import logging

from tfopt.backend import keras
from tfopt.compress.base import Context, Outcome, Pass, Stage
from tfopt.compress.structure import hidden_width
from tfopt.model import config_of
from tfopt.model.heads import head_of
from tfopt.model.weight_shapes import num_parameters
from tfopt.tasks.base import Task
from tfopt.tasks.classification import Classification
from tfopt.types import BatchSource, check_fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class HiddenWidth(Pass):
    """Removes dimensions of the residual stream, physically.

    Attributes:
        width: how many stay, a multiple of `multiple` below the model's.
        keep: instead, the fraction in (0, 1) of them that stays; rounded down to a
            multiple.
        multiple: of which the width is one. In exports of 4 bits, 32 inputs of a
            kernel share a scale, and kernels of other widths keep 8 bits; the parts in
            which the runtime computes products are of 8 or 16.
        score: one of `hidden_width.WIDTH_SCORES`, by which the highest stay.
        examples: how many score the dimensions, and fit the kernels.
        reconstruct: whether the kernels that read the stream are fitted to the model
            before.
        epochs: of training; None for the settings', 0 for none.
    """

    width: int | None = None
    keep: float | None = None
    multiple: int = 32
    score: str = "taylor"
    examples: int = 1024
    reconstruct: bool = True
    epochs: int | None = None

    stage = Stage.SHAPE
    needs = ("train",)

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: one is out of its range, or there is not one target.
        """
        super().__post_init__()
        if (self.width is None) == (self.keep is None):
            raise ValueError("One of `width` and `keep` must be given. Received: "
                             f"width={self.width}, keep={self.keep}")
        check_fields(self, {
            "multiple": (self.multiple >= 1, "at least 1"),
            "keep": (self.keep is None or 0 < self.keep < 1, "a fraction in (0, 1)"),
            "score": (self.score in hidden_width.WIDTH_SCORES,
                      f"one of {hidden_width.WIDTH_SCORES}"),
            "examples": (self.examples >= 1, "at least 1"),
            "epochs": (self.epochs is None or self.epochs >= 0, "at least 0, or None"),
        })
        if self.width is not None and (self.width < 1 or self.width % self.multiple):
            raise ValueError("`width` must be a multiple of `multiple`, above 0. "
                             f"Received: width={self.width}, multiple={self.multiple}")

    @classmethod
    def example(cls) -> HiddenWidth:
        """Half of the dimensions, without training."""
        return cls(keep=0.5, multiple=1, examples=16, epochs=0)

    def apply(self, model: keras.Model, context: Context) -> Outcome:
        """Cuts, fits and trains.

        Raises:
            ValueError: the model is no BERT of plain layers, or not wider than asked.
        """
        hidden_width.check_plain(model)
        kept, pooled = self.choose(model, context.train, context.task)
        small = hidden_width.narrow(model, kept, pooled)
        if self.reconstruct:
            hidden_width.reconstruct(model, small, pooled, context.labelled,
                                     self.examples)
        note = f"{len(kept)} of {config_of(model).hidden_size} dimensions stay"
        logging.info("Of the residual stream, %s", note)
        context.fit(small, self.epochs)
        shapes = {layer.name: [w.shape for w in layer.weights]
                  for layer in model.layers}
        touched = tuple(layer.name for layer in small.layers
                        if [w.shape for w in layer.weights] != shapes[layer.name])
        return Outcome(model=small, touched=touched,
                       figures={"parameters": float(num_parameters(
                           config_of(model).replace(hidden_size=len(kept)),
                           head_of(model)))},
                       notes=(f"of the residual stream, {note}",))

    def choose(self, model: keras.Model, train: BatchSource | None = None,
               task: Task = Classification()  # noqa: B008
               ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Chooses what stays: that of the highest scores.

        Args:
            model: a BERT of plain layers.
            train: batches; needed by all scores but "magnitude".
            task: whose loss tells what matters.

        Returns:
            Numbers of the dimensions, and of the pooler's units; ascending.

        Raises:
            ValueError: the model is not wider than asked, or no multiple is as narrow.
        """
        whole = config_of(model).hidden_size
        width = self.width
        if self.keep is not None:
            width = int(self.keep * whole) // self.multiple * self.multiple
        if width is None or not 0 < width < whole:
            raise ValueError(
                f"A multiple of {self.multiple} must be left, below the model's width "
                f"of {whole}. Received: width={self.width}, keep={self.keep}")
        found = hidden_width.scores(model, self.score, train, self.examples, task)
        dimensions, units = (
            tuple(sorted(np.argsort(-own, kind="stable")[:width].tolist()))
            for own in found)
        return dimensions, units
