"""Prunes the weights that training moves towards zero.

Sanh et al. 2020, "Movement pruning", arXiv:2005.07683: for models that are pretrained
and learn their task while they are pruned, in many epochs. In a model that is
fine-tuned already gradients are noise about zero, and their sum tells little: there,
`taylor` keeps what `movement` loses.
"""

from __future__ import annotations

import dataclasses

from tfopt.compress.pruning.base import Pruning


@dataclasses.dataclass(frozen=True, kw_only=True)
class Movement(Pruning):
    """Prunes the weights of least movement: the sum of -w g while training.

    Attributes: those of `compress.pruning.base.Pruning`.
    """

    score = "movement"
