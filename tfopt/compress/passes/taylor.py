"""Prunes the weights without which the loss would change least, to first order.

Molchanov et al. 2017, arXiv:1611.06440.
"""

from __future__ import annotations

import dataclasses

from tfopt.compress.pruning.base import Pruning


@dataclasses.dataclass(frozen=True, kw_only=True)
class Taylor(Pruning):
    """Prunes the weights of least mean |w g| while training.

    Attributes: those of `compress.pruning.base.Pruning`.
    """

    score = "taylor"
    same_on_replicas = False  # |g| and g^2 are not the sums of those of shares
