"""Which layer of an encoder plays which role: model -> its parts, as objects.

So that no other module spells a layer's name. Sizes are read back from the layers
themselves, so a model whose heads or neurons were cut away needs no record beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfopt.backend import keras
from tfopt.model.config import EncoderConfig
from tfopt.model.layer_names import (
    ATTENTION,
    ATTENTION_NORM,
    ATTENTION_OUTPUT,
    CLASSIFIER,
    CLASSIFIER_DROPOUT,
    EMBEDDING_DROPOUT,
    EMBEDDING_NORM,
    EMBEDDING_PROJECTION,
    FFN_NORM,
    FFN_OUTPUT,
    FFN_PRODUCT,
    INTERMEDIATE,
    KEY,
    OUTLIER_RATIO,
    POOLER,
    POSITION_EMBEDDING,
    QUERY,
    SEGMENT_EMBEDDING,
    TOKEN_EMBEDDING,
    VALUE,
    has_outlier_channels,
    is_in_ffn,
    is_masked_scores,
    layer_name,
    outlier_layer,
    renumbered,
    role_of,
)
from tfopt.model.parts import (
    Attention,
    Embeddings,
    EncoderLayer,
    Ffn,
    HeadParts,
    Layer,
)

__all__ = [
    "FFN_PRODUCT",
    "OUTLIER_RATIO",
    "Anatomy",
    "Attention",
    "Embeddings",
    "EncoderLayer",
    "Ffn",
    "HeadParts",
    "config_of",
    "has_outlier_channels",
    "is_in_ffn",
    "is_masked_scores",
    "outlier_layer",
    "renumbered",
    "role_of",
]

@dataclasses.dataclass(frozen=True)
class Anatomy:
    """The layers of a model by what they do.

    Layers are those of the model: plain, quantized, or wrapped for training.

    Attributes:
        model: whose they are.
        embeddings: below the encoder.
        layers: of the encoder, in order.
        head: above it.
    """

    model: keras.Model
    embeddings: Embeddings
    layers: tuple[EncoderLayer, ...]
    head: HeadParts

    @staticmethod
    def known(model: keras.Model) -> bool:
        """Whether the model has the layers that `encoder.build` makes."""
        found = {layer.name for layer in model.layers}
        return {TOKEN_EMBEDDING, layer_name(0, FFN_NORM), CLASSIFIER_DROPOUT} <= found

    @classmethod
    def of(cls, model: keras.Model) -> Anatomy:
        """Finds the layers of a model.

        Args:
            model: made by `encoder.build`, or by a pass from such a one.

        Returns:
            Its anatomy.

        Raises:
            ValueError: the model is no encoder of tfopt's.
        """
        if not cls.known(model):
            raise ValueError("The model must be an encoder made by tfopt. Received: "
                             f"layers {[layer.name for layer in model.layers[:5]]}...")
        made = {layer.name: layer for layer in model.layers}
        layers: list[EncoderLayer] = []
        while layer_name(len(layers), FFN_NORM) in made:
            layers.append(_encoder_layer(made, len(layers)))
        return cls(
            model=model,
            embeddings=Embeddings(made[TOKEN_EMBEDDING], made.get(SEGMENT_EMBEDDING),
                                  made[POSITION_EMBEDDING], made[EMBEDDING_NORM],
                                  made.get(EMBEDDING_PROJECTION)),
            layers=tuple(layers),
            head=HeadParts(made.get(POOLER), made.get(CLASSIFIER),
                           made[CLASSIFIER_DROPOUT]))

    @property
    def dense(self) -> list[Layer]:
        """The projections of every encoder layer, in the order of computation.

        Six of each; a layer without attention or ffn block has not those.
        """
        return [dense for layer in self.layers for block in layer.blocks if block
                for dense in block.dense]

    @property
    def stream_readers(self) -> list[Layer]:
        """The Dense layers that take the residual stream, or a token's vector of it."""
        readers: list[Layer] = []
        for layer in self.layers:
            if layer.attention:
                readers += layer.attention.projections.values()
            if layer.ffn:
                readers.append(layer.ffn.intermediate)
        return readers + [*filter(None, (self.head.pooler or self.head.classifier,))]

    @property
    def stream_writers(self) -> list[Layer]:
        """The Dense layers whose output is added to the residual stream."""
        return [block.output for layer in self.layers for block in layer.blocks
                if block]

    @property
    def stream_norms(self) -> list[Layer]:
        """The LayerNorms that give the residual stream, in order.

        The first is a Dense where embeddings are mapped to its width.
        """
        return [self.embeddings.last, *(norm for layer in self.layers for norm in (
            layer.attention_norm, layer.ffn_norm))]

    @property
    def hidden_states(self) -> list:
        """Symbolic outputs <float>[B, T, D] of the embeddings and of each layer."""
        return [self.embeddings.last.output,
                *(layer.ffn_norm.output for layer in self.layers)]

    @property
    def config(self) -> EncoderConfig:
        """The sizes; `encoder.build` of it gives a model of the same shapes."""
        tokens, positions = map(_plain, (self.embeddings.token,
                                         self.embeddings.position))
        segments = self.embeddings.segment and _plain(self.embeddings.segment)
        project = self.embeddings.projection and _plain(self.embeddings.projection)
        width = project.units if project else tokens.output_dim
        # What no layer shows is of no consequence.
        shown: dict[str, Any] = {"head_size": width}
        heads, neurons = [], []
        for layer in self.layers:
            core = _plain(layer.attention.core) if layer.attention else None
            wide = _plain(layer.ffn.intermediate) if layer.ffn else None
            heads.append(core.num_heads if core else 0)
            neurons.append(wide.units if wide else 0)
            query = _plain(layer.attention.query) if layer.attention else None
            if core and query:  # a wrapper that prunes has a name of its own
                shown |= {"head_size": query.units // core.num_heads,
                          "attention_dropout": core.dropout,
                          "relative_buckets": core.relative_buckets}
            if wide:
                shown["activation"] = wide.activation.__name__
        return EncoderConfig(
            family=self.model.name,
            vocab_size=tokens.input_dim,
            hidden_size=width,
            embedding_size=tokens.output_dim if project else None,
            num_heads=tuple(heads),
            intermediate_sizes=tuple(neurons),
            max_positions=positions.max_positions,
            type_vocab_size=segments.input_dim if segments else 0,
            layer_norm_epsilon=_plain(self.embeddings.norm).epsilon,
            hidden_dropout=_plain(self.model.get_layer(EMBEDDING_DROPOUT)).rate,
            initializer_range=positions.initializer_range,
            **shown,
        )


def config_of(model: keras.Model) -> EncoderConfig:
    """Reads the sizes of an encoder from its layers.

    Args:
        model: made by `encoder.build`, or by a pass from such a one.

    Returns:
        Its config; `encoder.build` of it gives a model of the same shapes.

    Raises:
        ValueError: the model is no encoder of tfopt's.
    """
    return Anatomy.of(model).config


def _encoder_layer(made: Mapping[str, Layer], index: int) -> EncoderLayer:
    def role(name):
        return made.get(layer_name(index, name))

    norms = role(ATTENTION_NORM), role(FFN_NORM)
    attention = role(ATTENTION) and Attention(
        role(QUERY), role(KEY), role(VALUE), role(ATTENTION), role(ATTENTION_OUTPUT),
        norms[0])
    ffn = role(INTERMEDIATE) and Ffn(role(INTERMEDIATE), role(FFN_OUTPUT), norms[1])
    return EncoderLayer(attention, ffn, *norms)


def _plain(layer: Layer) -> Layer:
    """A layer, or the one in a wrapper that trains it."""
    return getattr(layer, "layer", layer)
