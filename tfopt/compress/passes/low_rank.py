"""Keeps the best part of low rank of each kernel, without training.

The truncated singular value decomposition is the closest matrix of its rank (Eckart &
Young 1936). W <float>[K, N] = U S V' becomes (U sqrt(S))[K, r] (sqrt(S) V')[r, N].
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfopt.backend import keras
from tfopt.compress.base import Context, Outcome, Pass, Stage
from tfopt.compress.counting import count_parameters
from tfopt.compress.layer_selection import choose_layers, skipped
from tfopt.model import LowRankDense
from tfopt.types import Expression


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowRank(Pass):
    """Replaces Dense kernels by their best approximation of a lower rank.

    Attributes:
        rank: r, at least 1; kernels of no higher rank are left.
        energy: instead, the smallest r whose singular values hold this fraction of the
            sum of squares of all, in (0, 1).
        fold: False makes two thin Dense products of it, where those have fewer weights
            than the kernel, and leaves the layer as it is where they have not; True
            multiplies them back into a kernel of the same shape.
        only: regular expressions of layer names; the layers meant.
        leave: regular expressions; layers to leave as they are.
    """

    rank: int | None = None
    energy: float | None = None
    fold: bool = False
    only: tuple[Expression, ...] = ()
    leave: tuple[Expression, ...] = ()

    stage = Stage.SHAPE

    def __post_init__(self):
        """Checks the rank.

        Raises:
            ValueError: none or both of `rank` and `energy` are given, or out of range.
        """
        super().__post_init__()
        if (self.rank is None) == (self.energy is None):
            raise ValueError("One of `rank` and `energy` must be given. Received: "
                             f"rank={self.rank!r}, energy={self.energy!r}")
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"`rank` must be at least 1. Received: rank={self.rank}")
        if self.energy is not None and not 0 < self.energy < 1:
            raise ValueError("`energy` must be a fraction in (0, 1). Received: "
                             f"energy={self.energy!r}")

    @classmethod
    def example(cls) -> LowRank:
        """Rank 4, as thin layers."""
        return cls(rank=4)

    def apply(self, model: keras.Model, context: Context) -> Outcome:
        """Approximates every chosen kernel.

        Raises:
            ValueError: no layer is chosen.
        """
        factors: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        untouched, parameters = {}, count_parameters(model)
        for layer in choose_layers(model, self.only, self.leave):
            if not isinstance(layer, keras.layers.Dense):
                untouched[layer.name] = "no Dense layer"
                continue
            down, up = self._factors(layer.kernel.numpy())
            rank = up.shape[0]
            if rank == min(layer.kernel.shape):
                untouched[layer.name] = f"of no higher rank than {rank}"
            elif self.fold:
                layer.kernel.assign(down @ up)
                factors[layer.name] = down, up
            elif down.size + up.size >= np.prod(layer.kernel.shape):
                untouched[layer.name] = f"no smaller as two kernels of rank {rank}"
            else:
                factors[layer.name] = down, up
                parameters += down.size + up.size - layer.kernel.shape.num_elements()
        after = model if self.fold else _replace(model, factors)
        return Outcome(model=after, touched=tuple(factors),
                       skipped=skipped(model, tuple(factors)) | untouched,
                       figures={"parameters": float(parameters)})

    def _factors(self, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """<float>[K, N] -> <float>[K, r], <float>[r, N]."""
        left, values, right = np.linalg.svd(kernel.astype(np.float64),
                                            full_matrices=False)
        rank = self.rank or len(values)
        if self.energy is not None:
            held = np.cumsum(values ** 2) / np.sum(values ** 2)
            rank = int(np.searchsorted(held, self.energy)) + 1
        root = np.sqrt(values[:rank])
        return ((left[:, :rank] * root).astype(np.float32),
                (root[:, None] * right[:rank]).astype(np.float32))


def _replace(model: keras.Model, factors) -> keras.Model:
    """The model with thin layers in the place of some."""
    def thin(layer):
        if layer.name not in factors:
            return layer
        return LowRankDense(layer.units, rank=factors[layer.name][1].shape[0],
                            activation=layer.activation, use_bias=layer.use_bias,
                            name=layer.name, dtype=layer.dtype_policy)

    after = keras.models.clone_model(model, clone_function=thin)
    for name, (down, up) in factors.items():
        bias = model.get_layer(name).get_weights()[1:]
        after.get_layer(name).set_weights([down, up, *bias])
    return after
