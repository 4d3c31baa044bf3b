"""What the blocks of an encoder cost, in time or multiplications: config -> costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from tfopt.model import EncoderConfig

Measure = Callable[[EncoderConfig, EncoderConfig], tuple[float, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Costs:
    """What the blocks of a model cost, and the whole.

    Attributes:
        heads: <float>[H + 1] a layer, of 0 to H heads.
        neurons: <float>[F + 1] a layer, of 0 to F neurons.
        whole: the cost of a model by its config; it need not be the sum of its blocks,
            but grows with it.
        unit: what is counted, such as "ms".
        measure: (sizes of a whole model, of a smaller one) -> what each takes on this
            machine, timed in turn, in `unit`; None where costs are only predicted.
    """

    heads: tuple[np.ndarray, ...]
    neurons: tuple[np.ndarray, ...]
    whole: Callable[[EncoderConfig], float]
    unit: str
    measure: Measure | None = None


def multiplications(config: EncoderConfig) -> Costs:
    """Costs by the multiplications of the encoder's products a token, in thousands."""
    head = 4 * config.hidden_size * config.head_size / 1e3
    neuron = 2 * config.hidden_size / 1e3
    return Costs(
        heads=tuple(head * np.arange(count + 1) for count in config.num_heads),
        neurons=tuple(neuron * np.arange(count + 1)
                      for count in config.intermediate_sizes),
        whole=lambda own: (head * sum(own.num_heads)
                           + neuron * sum(own.intermediate_sizes)),
        unit="k multiplications")
