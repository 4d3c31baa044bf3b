"""Prunes the weights without which the loss would change least, to second order.

LeCun et al. 1989, "Optimal brain damage", with a diagonal Fisher information of the
batches that are trained on.
"""

from __future__ import annotations

import dataclasses

from tfopt.compress.pruning.base import Pruning


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fisher(Pruning):
    """Prunes the weights of least w^2 times the mean g^2 while training.

    Attributes: those of `compress.pruning.base.Pruning`.
    """

    score = "fisher"
    same_on_replicas = False  # |g| and g^2 are not the sums of those of shares
