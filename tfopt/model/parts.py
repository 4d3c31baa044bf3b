"""The parts of an encoder, as objects that hold its layers (`anatomy.Anatomy`)."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfopt.backend import keras

Layer: Any = keras.layers.Layer


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """The layers below the encoder.

    No `segment` where the inputs have no segments, no `projection` where the tables are
    as wide as the stream.
    """

    token: Layer
    segment: Layer | None
    position: Layer
    norm: Layer
    projection: Layer | None

    @property
    def last(self) -> Layer:
        """The layer whose output the stream begins with."""
        return self.projection or self.norm


@dataclasses.dataclass(frozen=True)
class Attention:
    """The layers of an attention block, and the LayerNorm behind it."""

    query: Layer
    key: Layer
    value: Layer
    core: Layer
    output: Layer
    norm: Layer

    @property
    def projections(self) -> dict[str, Layer]:
        """Query, key and value by these words."""
        return {"query": self.query, "key": self.key, "value": self.value}

    @property
    def dense(self) -> tuple[Layer, ...]:
        """Its Dense layers, in the order of computation."""
        return self.query, self.key, self.value, self.output


@dataclasses.dataclass(frozen=True)
class Ffn:
    """The layers of an ffn block, and the LayerNorm behind it."""

    intermediate: Layer
    output: Layer
    norm: Layer

    @property
    def dense(self) -> tuple[Layer, ...]:
        """Its Dense layers, in the order of computation."""
        return self.intermediate, self.output


@dataclasses.dataclass(frozen=True)
class EncoderLayer:
    """One layer: its blocks, None where it has not one, and its LayerNorms."""

    attention: Attention | None
    ffn: Ffn | None
    attention_norm: Layer
    ffn_norm: Layer

    @property
    def blocks(self) -> tuple[Attention | Ffn | None, ...]:
        """Attention and ffn."""
        return self.attention, self.ffn

    @property
    def all(self) -> tuple[Layer, ...]:
        """Those of its layers that have weights, or would."""
        attention, ffn = (block.dense if block else () for block in self.blocks)
        return *attention, self.attention_norm, *ffn, self.ffn_norm


@dataclasses.dataclass(frozen=True)
class HeadParts:
    """The layers of a head; None where it has not one."""

    pooler: Layer | None
    classifier: Layer | None
    dropout: Layer
