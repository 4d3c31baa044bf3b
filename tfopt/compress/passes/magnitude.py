"""Prunes the weights of least |w|.

Zhu & Gupta 2017, "To prune, or not to prune", arXiv:1710.01878.
"""

from __future__ import annotations

import dataclasses

from tfopt.compress.pruning.base import Pruning


@dataclasses.dataclass(frozen=True, kw_only=True)
class Magnitude(Pruning):
    """Prunes the weights of least magnitude, while training.

    Attributes: those of `compress.pruning.base.Pruning`.
    """

    score = "magnitude"
