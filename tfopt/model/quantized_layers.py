"""Layers of BERT that compute as their quantized counterparts in a `.tflite` do.

Each is a layer of the plain model with points at which numbers are rounded: by a fixed
grid, once trained, or by a hook while training. Names, weights and wiring are those of
the plain model; weights are rounded already where a grid is fixed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfopt.backend import keras, tf
from tfopt.model import fake_quant
from tfopt.model.attention import SelfAttention
from tfopt.model.inference_layers import members
from tfopt.model.layers import LayerNorm, PositionEmbedding


@dataclasses.dataclass(frozen=True)
class Grid:
    """The numbers that are left at a point.

    Attributes:
        kind: "per_token", "rows" (of a table) or "static".
        low: lowest number of a static one.
        high: highest number.
        channels: those of the last axis that have a range of their own, since theirs
            is many times the others'.
        channels_low: their lowest number.
        channels_high: their highest.
        bits: of "rows".
        block: of "rows"; None for a scale for each row.
    """

    kind: str
    low: float = 0.0
    high: float = 0.0
    channels: tuple[int, ...] = ()
    channels_low: float = 0.0
    channels_high: float = 0.0
    bits: int = 8
    block: int | None = None

    def __call__(self, x):
        """Rounds <float>[..., D]."""
        if self.kind == "per_token":
            return fake_quant.per_token(x)
        if self.kind == "rows":
            return fake_quant.symmetric(x, self.bits, -1, self.block)
        low, high = self.low, self.high
        if self.channels:
            own = members(self.channels, x.shape[-1]) > 0
            low = tf.where(own, self.channels_low, low)
            high = tf.where(own, self.channels_high, high)
        return fake_quant.between(x, low, high)


class Quantized(keras.layers.Layer):
    """What the layers below add to a plain one.

    Args:
        grids: point -> `Grid`, or its fields.
        weight_bits: of the kernel or table, 8 or 4; None leaves it in float.
        weight_block: weights along the input that share a scale; None for all.
        **kwargs: of the plain layer.

    Attributes:
        hooks: point -> what rounds there instead, while training.
    """

    plain: type[keras.layers.Layer]
    points: tuple[str, ...] = ("output",)
    weights_name: str | None = None  # the attribute that is a kernel or table

    def __init__(self, *args, grids: Mapping[str, Any] | None = None,
                 weight_bits: int | None = None, weight_block: int | None = None,
                 **kwargs):
        super().__init__(*args, **kwargs)
        self.grids = {point: grid if isinstance(grid, Grid) else Grid(
            **{**grid, "channels": tuple(grid["channels"])})
            for point, grid in (grids or {}).items()}
        self.weight_bits = weight_bits
        self.weight_block = weight_block
        self.hooks: dict = {}

    def rounded(self, point: str, x):
        """Rounds x at a point, in float32, if there is anything to round it by."""
        hook = self.hooks.get(point) or self.grids.get(point)
        return x if hook is None else tf.cast(hook(tf.cast(x, tf.float32)), x.dtype)

    def get_config(self):
        """Mirrors `__init__`."""
        return {**super().get_config(), "weight_bits": self.weight_bits,
                "weight_block": self.weight_block,
                "grids": {point: {**dataclasses.asdict(grid),
                                  "channels": list(grid.channels)}
                          for point, grid in self.grids.items()}}

    def plain_config(self) -> dict:
        """The config of the plain layer."""
        config = self.get_config()
        for name in ("grids", "weight_bits", "weight_block"):
            del config[name]
        return config


@keras.utils.register_keras_serializable(package="tfopt")
class QuantizedDense(Quantized, keras.layers.Dense):
    """A Dense; its output is rounded before the activation, and after it."""

    plain = keras.layers.Dense
    points = ("input", "output", "activation")
    weights_name = "kernel"

    def call(self, inputs):
        """Maps <float>[..., K] to <float>[..., N]."""
        # First: at a point replicas may talk, and another's turn puts its own kernel in
        # this place. While training, it is rounded in float32.
        kernel = tf.cast(self.kernel, inputs.dtype)
        x = self.rounded("input", inputs)
        x = (tf.matmul(x, kernel) if x.shape.rank == 2 else
             tf.ensure_shape(tf.tensordot(x, kernel, 1), [*x.shape[:-1], self.units]))
        if self.use_bias:
            x = tf.nn.bias_add(x, self.bias)
        x = self.rounded("output", x)
        return self.rounded("activation", self.activation(x))


@keras.utils.register_keras_serializable(package="tfopt")
class QuantizedEmbedding(Quantized, keras.layers.Embedding):
    """An Embedding; its rows are rounded once they are looked up."""

    plain = keras.layers.Embedding
    points = ("rows",)
    weights_name = "embeddings"

    def call(self, inputs):
        """Maps <int32>[...] to <float>[..., D]."""
        return self.rounded("rows", super().call(inputs))


@keras.utils.register_keras_serializable(package="tfopt")
class QuantizedPositions(Quantized, PositionEmbedding):
    """A PositionEmbedding; the rows that it adds are rounded."""

    plain = PositionEmbedding
    points = ("rows",)
    weights_name = "table"


@keras.utils.register_keras_serializable(package="tfopt")
class QuantizedAdd(Quantized, keras.layers.Add):
    """An Add."""

    plain = keras.layers.Add

    def call(self, inputs):
        """Sums."""
        return self.rounded("output", super().call(inputs))


@keras.utils.register_keras_serializable(package="tfopt")
class QuantizedNorm(Quantized, LayerNorm):
    """A LayerNorm; within it nothing is rounded."""

    plain = LayerNorm

    def call(self, inputs):
        """Normalizes."""
        return self.rounded("output", super().call(inputs))


@keras.utils.register_keras_serializable(package="tfopt")
class QuantizedAttention(Quantized, SelfAttention):
    """A SelfAttention; rounded are scores, before the mask, probabilities, context.

    Where positions are relative, also what is added for them, and that sum.
    """

    plain = SelfAttention
    points = ("scores", "rows", "biased", "probabilities", "output")
    weights_name = "relative_bias"


QUANTIZED: dict[type, type[Quantized]] = {kind.plain: kind for kind in (
    QuantizedDense, QuantizedEmbedding, QuantizedPositions, QuantizedAdd, QuantizedNorm,
    QuantizedAttention)}


def quantized_layers_of(model: keras.Model) -> dict[str, Quantized]:
    """The quantized layers of a model by name."""
    return {layer.name: layer for layer in model.layers if isinstance(layer, Quantized)}


def plain_copy(model: keras.Model) -> keras.Model:
    """Copies a model without its grids: the same weights in plain layers."""
    def plain(layer):
        if isinstance(layer, Quantized):
            return layer.plain.from_config(layer.plain_config())
        return type(layer).from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=plain)
    copy.set_weights(model.get_weights())
    return copy
