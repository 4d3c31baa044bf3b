"""tfmot quantizers: rounding by fixed grids, and between ranges that training finds."""

from __future__ import annotations

from typing import Any

import numpy as np

from tfopt.backend import keras, tf, tfmot
from tfopt.compress.pruning.masked_layer import uncast
from tfopt.model import fake_quant
from tfopt.model.anatomy import OUTLIER_RATIO
from tfopt.model.quantized_layers import Grid
from tfopt.train.distribute import workers

# Weight of the old ranges in their moving averages; half is of the last 70 steps.
_DECAY = 0.99
# Phases of a wrapper's ranges.
OBSERVE, TRAIN, FROZEN = 0, 1, 2

Quantizer: Any = tfmot.quantization.keras.quantizers.Quantizer


class Fixed(Quantizer):
    """Rounds by a grid that no range is needed for."""

    def __init__(self, grid: Grid):
        self._grid = grid

    def grid(self) -> Grid:
        """The grid."""
        return self._grid

    def missing(self) -> str:
        """Nothing: no training is needed for it."""
        return ""

    def build(self, tensor_shape, name, layer):
        """Has no variables."""
        return {}

    def __call__(self, inputs, training, weights, **kwargs):
        """Rounds."""
        return self.grid()(inputs)

    def get_config(self):
        """Is made anew by the `QuantizeConfig`."""
        return {}


class Weights(Fixed):
    """Rounds a kernel <float>[K, N], a scale for each of N outputs, or block of K."""

    def __init__(self, bits: int, block: int | None):
        self.bits, self.block = bits, block

    def __call__(self, inputs, training, weights, **kwargs):
        """Rounds."""
        return fake_quant.symmetric(tf.convert_to_tensor(uncast(inputs)), self.bits, 0,
                                    self.block)


class Table(Fixed):
    """Rounds rows by one range for all of their table, from its extremes.

    Args:
        layer: that looks them up; an Embedding or a PositionEmbedding of
            `model.quantized_layers`.
    """

    def __init__(self, layer):
        self._layer = layer

    def __call__(self, inputs, training, weights, **kwargs):
        """Rounds."""
        return fake_quant.between(inputs, *self._extremes())

    def grid(self) -> Grid:
        """The grid as the table is now."""
        low, high = self._extremes()
        return Grid("static", float(low), float(high))

    def _extremes(self):
        table = tf.convert_to_tensor(uncast(getattr(
            self._layer, self._layer.weights_name)))
        return tf.reduce_min(table), tf.reduce_max(table)


class Ranged(Quantizer):
    """Rounds between the moving averages of each batch's extremes.

    After Jacob et al. 2018, arXiv:1712.05877, section 3.1.

    Args:
        point: where; in the names of its variables.
        channels: size of the last axis, if the few channels whose range is many times
            the others' are to have one of their own; None for one range in any case.
    """

    def __init__(self, point: str, channels: int | None = None):
        self.point, self.channels = point, channels

    def missing(self) -> str:
        """What training has not done that it must; "" where it has all."""
        if not self.variables["seen"].numpy():
            return "ranges that saw no batch"
        return "" if self.phase.numpy() >= TRAIN else "ranges that never rounded"

    def build(self, tensor_shape, name, layer):
        """Makes lowest and highest value, and how many batches were seen."""
        def variable(name, shape):
            # Each replica has its own, and all have the same.
            return layer.add_weight(
                f"{self.point}_{name}", shape, tf.float32, "zeros", trainable=False,
                experimental_autocast=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.MEAN)

        shape = [] if self.channels is None else [self.channels]
        self.variables = {"low": variable("low", shape),
                          "high": variable("high", shape),
                          "seen": variable("seen", [])}
        if not hasattr(layer, "phase"):
            # tfmot's own, of int32, lies on the CPU, where XLA does not find it.
            layer.phase = layer.add_weight(
                "phase", [], tf.float32, keras.initializers.Constant(OBSERVE),
                trainable=False, experimental_autocast=False)
        self.phase = layer.phase
        return self.variables

    def __call__(self, inputs, training, weights, **kwargs):
        """Rounds, unless ranges are only observed; while training, updates them."""
        low, high = weights["low"], weights["high"]
        if training:
            axes = list(range(inputs.shape.rank - (self.channels is not None)))
            seen = weights["seen"]
            # Frozen ranges stay; the first few batches count as much as one another.
            kept = tf.where(self.phase >= FROZEN, 1.0,
                            tf.minimum(_DECAY, seen / (seen + 1.0)))
            x = tf.cast(tf.stop_gradient(inputs), tf.float32)
            least, most = _over_replicas(tf.reduce_min(x, axes), tf.reduce_max(x, axes))
            low.assign(kept * low + (1 - kept) * least)
            high.assign(kept * high + (1 - kept) * most)
            seen.assign(seen + 1.0)
        bounds = self._bounds(tf.convert_to_tensor(low), tf.convert_to_tensor(high))
        return tf.cond(self.phase >= TRAIN,
                       lambda: fake_quant.between(inputs, *bounds),
                       lambda: tf.identity(inputs))

    def _bounds(self, low, high):
        if self.channels is None:
            return low, high
        outlier = outlier_channels(low, high)
        return [tf.where(outlier, end(tf.where(outlier, x, 0.0)),
                         end(tf.where(outlier, 0.0, x)))
                for end, x in ((tf.reduce_min, low), (tf.reduce_max, high))]

    def grid(self) -> Grid:
        """The grid as it is now."""
        low, high = (self.variables[name].numpy() for name in ("low", "high"))
        if self.channels is None:
            return Grid("static", float(low), float(high))
        outlier = outlier_channels(low, high).numpy()
        own: dict[str, Any] = {} if not outlier.any() else {
            "channels": tuple(np.flatnonzero(outlier).tolist()),
            "channels_low": float(min(low[outlier].min(), 0.0)),
            "channels_high": float(max(high[outlier].max(), 0.0))}
        return Grid("static", float(min(low[~outlier].min(), 0.0)),
                    float(max(high[~outlier].max(), 0.0)), **own)

    def get_config(self):
        """Is made anew by the `QuantizeConfig`."""
        return {}


def _over_replicas(low, high):
    """The extremes of the whole batch, of which each replica has a share."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return low, high
    all_ends = workers.of_all_replicas(tf.stack([low, high]))  # [replicas, 2, ...]
    return tf.reduce_min(all_ends[:, 0], 0), tf.reduce_max(all_ends[:, 1], 0)


def outlier_channels(low, high):
    """Which of N channels have a range many times the mean: <bool>[N]."""
    reach = tf.maximum(tf.abs(low), tf.abs(high))
    return reach > OUTLIER_RATIO * tf.reduce_mean(reach)
