"""Zeroes small weights, without training.

|w| below a threshold goes: an absolute one, or a multiple of each kernel's standard
deviation, as Han et al. 2015, arXiv:1506.02626, section 3.1, set theirs.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfopt.backend import keras
from tfopt.compress.base import Context, Outcome, Pass, Stage
from tfopt.compress.counting import count_nonzeros
from tfopt.compress.layer_selection import choose_layers, kernel_name, skipped
from tfopt.types import Expression


@dataclasses.dataclass(frozen=True, kw_only=True)
class Truncate(Pass):
    """Sets weights below a threshold to zero.

    Attributes:
        threshold: |w| below it goes, > 0; in the weights' own unit.
        deviations: instead, the threshold as a multiple of each kernel's standard
            deviation, > 0.
        only: regular expressions of layer names; the layers meant.
        leave: regular expressions; layers to leave as they are.
    """

    threshold: float | None = None
    deviations: float | None = None
    only: tuple[Expression, ...] = ()
    leave: tuple[Expression, ...] = ()

    stage = Stage.WEIGHTS

    def __post_init__(self):
        """Checks the thresholds.

        Raises:
            ValueError: none or both are given, or one is not above 0.
        """
        super().__post_init__()
        given = [value for value in (self.threshold, self.deviations)
                 if value is not None]
        if len(given) != 1 or not given[0] > 0:
            raise ValueError("One of `threshold` and `deviations` must be given, above "
                             f"0. Received: threshold={self.threshold!r}, "
                             f"deviations={self.deviations!r}")

    @classmethod
    def example(cls) -> Truncate:
        """A third or so of the weights."""
        return cls(deviations=0.5)

    def apply(self, model: keras.Model, context: Context) -> Outcome:
        """Truncates every chosen kernel.

        Raises:
            ValueError: no layer is chosen.
        """
        before = count_nonzeros(model)
        lost = 0
        layers = choose_layers(model, self.only, self.leave)
        for layer in layers:
            kernel = getattr(layer, kernel_name(layer))
            weights = kernel.numpy()
            threshold = self.threshold or self.deviations * weights.std()
            small = np.abs(weights) < threshold
            lost += int(np.count_nonzero(weights[small]))
            kernel.assign(np.where(small, 0, weights))
        touched = tuple(layer.name for layer in layers)
        return Outcome(model=model, touched=touched, skipped=skipped(model, touched),
                       figures={"nonzeros": float(before - lost)})
