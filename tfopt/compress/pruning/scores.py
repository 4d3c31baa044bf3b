"""Why a weight goes: its score, the larger the more it matters.

Each is a function of the weight w and of what was gathered of its gradients g while
training; the gradients are those of the pruned model, and of pruned weights too, so
that these may come back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tfopt.backend import tf

# Of the running means; half of it is of the last 70 steps.
_DECAY = 0.99


@dataclasses.dataclass(frozen=True)
class Score:
    """One way to score weights.

    Attributes:
        of: (w, gathered) -> scores, all <float>[..., K, N], in NumPy or TensorFlow.
        gather: (gathered, w, g) -> gathered after a step, in TensorFlow; None where the
            weight alone tells.
    """

    of: Callable[[Any, Any], Any]
    gather: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor] | None = None


SCORES = {
    # Zhu & Gupta 2017, arXiv:1710.01878: |w|.
    "magnitude": Score(of=lambda w, _: abs(w)),
    # Sanh et al. 2020, "Movement pruning", arXiv:2005.07683, equation 3: the sum of
    # -w g, which rises while training moves a weight away from 0.
    "movement": Score(of=lambda _, total: total,
                      gather=lambda total, w, g: total - w * g),
    # Molchanov et al. 2017, arXiv:1611.06440, equation 6: the mean of |w g|, by which
    # the loss would change, to first order, without the weight.
    "taylor": Score(of=lambda _, mean: mean,
                    gather=lambda mean, w, g: _moving(mean, tf.abs(w * g))),
    # LeCun et al. 1989, "Optimal brain damage", equation 5, with the mean of g^2 of a
    # batch in place of the second derivative: w^2 g^2 / 2.
    "fisher": Score(of=lambda w, mean: 0.5 * w * w * mean,
                    gather=lambda mean, _, g: _moving(mean, g * g)),
}


def _moving(mean, value):
    return _DECAY * mean + (1 - _DECAY) * value
