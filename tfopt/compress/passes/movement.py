"""Prunes the weights that training moves towards zero.

Sanh et al. 2020, "Movement pruning", arXiv:2005.07683: for high sparsities, and for
models that were pretrained, whose weights are large for reasons of another task.
"""

from __future__ import annotations

import dataclasses

from tfopt.compress.pruning import Pruning


@dataclasses.dataclass(frozen=True, kw_only=True)
class Movement(Pruning):
    """Prunes the weights of least movement: the sum of -w g while training.

    Attributes: those of `compress.pruning.Pruning`.
    """

    score = "movement"
