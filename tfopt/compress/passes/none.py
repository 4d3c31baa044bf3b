"""The pass that changes nothing: the baseline that every recipe is held against."""

from __future__ import annotations

import dataclasses

from tfopt.backend import keras
from tfopt.compress.base import Context, Outcome, Pass, Stage
from tfopt.compress.counting import count_parameters


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity(Pass):
    """Returns the model as it is."""

    stage = Stage.SHAPE
    may_touch_nothing = True

    def apply(self, model: keras.Model, context: Context) -> Outcome:
        """Passes the model on."""
        return Outcome(model=model, touched=(),
                       figures={"parameters": float(count_parameters(model))})
