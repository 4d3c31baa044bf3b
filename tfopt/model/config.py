"""EncoderConfig: the sizes of a BERT, per layer, as one frozen record.

Source: Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional
Transformers", arXiv:1810.04805. Unlike the published configurations, the number
of heads and the ffn width are kept *per layer*, since structured pruning leaves
layers of different sizes.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from tfopt.files import to_json

ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "silu")
_MOST_LAYERS = 1000
_MOST_BUCKETS = 128  # from 256 on, distances up to the last exact one would not grow
# Names other libraries, and Keras, give to the same functions.
_ACTIVATION_ALIASES = {
    "gelu_python": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "swish": "silu",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Sizes and constants of an encoder, without what stands on it (`heads.Head`).

    Attributes:
        family: name of the module of `model.families` whose checkpoints it is of; the
            model's name.
        vocab_size: V, rows of the token embedding.
        hidden_size: D, width of the residual stream.
        num_heads: H of each layer; its length is the number of layers. 0 where a layer
            has no attention block, but its LayerNorm.
        intermediate_sizes: F of each layer; 0 where it has no ffn block.
        head_size: K, width of one head.
        max_positions: longest input, in tokens.
        embedding_size: E, width of the embeddings, where a Dense maps them to D; None
            where they are as wide as the stream.
        relative_buckets: buckets of distance between tokens, by which each head adds a
            number to its scores (`relative.bucket_of`); 0 for none.
        type_vocab_size: number of segments; 0 for none, nor an input of them.
        activation: of the ffn: "gelu" (erf), "gelu_tanh", "relu" or "silu", or
            another library's name for one of them.
        layer_norm_epsilon: added to the variance.
        hidden_dropout: fraction in [0, 1), after embeddings and both blocks.
        attention_dropout: fraction in [0, 1), on the attention probabilities.
        initializer_range: standard deviation of fresh weights.
    """

    vocab_size: int
    hidden_size: int
    num_heads: tuple[int, ...]
    intermediate_sizes: tuple[int, ...]
    head_size: int
    max_positions: int = 512
    embedding_size: int | None = None
    relative_buckets: int = 0
    type_vocab_size: int = 2
    activation: str = "gelu"
    layer_norm_epsilon: float = 1e-12
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    initializer_range: float = 0.02
    family: str = "bert"

    def __post_init__(self):
        """Checks the rules between the fields.

        Raises:
            ValueError: a rule is broken; the message ends with what was received.
        """
        object.__setattr__(self, "num_heads", tuple(self.num_heads))
        object.__setattr__(self, "intermediate_sizes", tuple(self.intermediate_sizes))
        object.__setattr__(self, "activation", _ACTIVATION_ALIASES.get(
            str(self.activation), self.activation))
        for name in ("vocab_size", "hidden_size", "head_size", "max_positions"):
            _require(_is_size(getattr(self, name)), "a positive whole number", self,
                     name)
        segments = self.type_vocab_size
        _require(_is_size(segments) or (segments == 0 and type(segments) is int),
                 "a whole number from 0", self, "type_vocab_size")
        _require(self.embedding_size is None or _is_size(self.embedding_size),
                 "a positive whole number, or None", self, "embedding_size")
        buckets = self.relative_buckets
        _require(type(buckets) is int and (buckets == 0 or (
            4 <= buckets <= _MOST_BUCKETS and buckets % 4 == 0)),
            f"0, or a multiple of 4 up to {_MOST_BUCKETS}", self, "relative_buckets")
        _require(isinstance(self.family, str) and self.family.isidentifier(),
                 "the name of a family", self, "family")
        for name in ("num_heads", "intermediate_sizes"):
            _require(all(size == 0 or _is_size(size) for size in getattr(self, name)),
                     "whole numbers from 0, one a layer", self, name)
        _require(self.num_heads, "at least one layer", self, "num_heads")
        if len(self.num_heads) != len(self.intermediate_sizes):
            raise ValueError(
                "`num_heads` and `intermediate_sizes` must name the same number of "
                f"layers. Received: num_heads={self.num_heads}, "
                f"intermediate_sizes={self.intermediate_sizes}"
            )
        _require(self.activation in ACTIVATIONS, f"one of {ACTIVATIONS}", self,
                 "activation")
        for name in ("hidden_dropout", "attention_dropout"):
            _require(_is_number(getattr(self, name)) and getattr(self, name) < 1,
                     "a fraction in [0, 1)", self, name)
        for name in ("layer_norm_epsilon", "initializer_range"):
            _require(_is_number(getattr(self, name)), "a number from 0", self, name)

    @property
    def embedding_width(self) -> int:
        """Of the tables, and the LayerNorm behind them: E, or D."""
        return self.embedding_size or self.hidden_size

    @property
    def num_layers(self) -> int:
        """Number of encoder layers."""
        return len(self.num_heads)

    @classmethod
    def uniform(
        cls, *, hidden_size: int, num_layers: int, num_heads: int,
        intermediate_size: int, vocab_size: int = 30522, **others: Any,
    ) -> EncoderConfig:
        """Builds a config whose layers are all of one size, as published BERTs are.

        Args:
            hidden_size: D; `num_heads` must divide it.
            num_layers: number of encoder layers.
            num_heads: H of every layer.
            intermediate_size: F of every layer.
            vocab_size: V.
            **others: further fields of the config.

        Returns:
            The config.

        Raises:
            ValueError: the heads do not divide the width, or a field's rule is broken.
        """
        if num_layers > _MOST_LAYERS:
            raise ValueError(f"A model has at most {_MOST_LAYERS} layers. Received: "
                             f"num_layers={num_layers}")
        if num_heads < 1 or hidden_size % num_heads:
            raise ValueError(
                "The number of heads must divide the hidden size. Received: "
                f"num_heads={num_heads}, hidden_size={hidden_size}"
            )
        return cls(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_heads=(num_heads,) * num_layers,
            intermediate_sizes=(intermediate_size,) * num_layers,
            head_size=hidden_size // num_heads,
            **others,
        )

    def to_json(self) -> str:
        """Returns the fields as a JSON object."""
        return to_json(dataclasses.asdict(self), indent=2) + "\n"

    def without_empty_layers(self) -> EncoderConfig:
        """The sizes of the layers that have a block; of the last one if none has."""
        layers = [sizes for sizes in zip(self.num_heads, self.intermediate_sizes,
                                         strict=True) if any(sizes)]
        heads, neurons = zip(*layers or [(0, 0)], strict=True)
        return self.replace(num_heads=heads, intermediate_sizes=neurons)

    def replace(self, **changes: Any) -> EncoderConfig:
        """Returns a copy with some fields changed, checked anew."""
        return dataclasses.replace(self, **changes)


# Shapes for benchmarks with random weights (`random:NAME`). bert_* after Turc et
# al. 2019, arXiv:1908.08962; minilm_* after Wang et al. 2020, arXiv:2002.10957.
_SHAPES = {  # layers, width, heads, ffn
    "bert_tiny": (2, 128, 2, 512),
    "bert_mini": (4, 256, 4, 1024),
    "bert_small": (4, 512, 8, 2048),
    "bert_medium": (8, 512, 8, 2048),
    "bert_base": (12, 768, 12, 3072),
    "bert_large": (24, 1024, 16, 4096),
    "minilm_l6": (6, 384, 12, 1536),
    "minilm_l12": (12, 384, 12, 1536),
    "distilbert_base": (6, 768, 12, 3072),
    "roberta_base": (12, 768, 12, 3072),
    "electra_small": (12, 256, 4, 1024),
    "electra_base": (12, 768, 12, 3072),
    "mpnet_base": (12, 768, 12, 3072),
}
SHAPE_NAMES = tuple(_SHAPES)
_FIELDS: dict[str, dict[str, Any]] = {  # of a shape, or what its name begins with
    "distilbert": {"family": "distilbert", "type_vocab_size": 0},
    "roberta": {"family": "roberta", "type_vocab_size": 0, "vocab_size": 50265,
                "layer_norm_epsilon": 1e-5},
    "electra": {"family": "electra"},
    "electra_small": {"family": "electra", "embedding_size": 128},
    "mpnet": {"family": "mpnet", "type_vocab_size": 0, "vocab_size": 30527,
              "layer_norm_epsilon": 1e-5, "relative_buckets": 32},
}


def named(name: str, **others: Any) -> EncoderConfig:
    """Returns the config of a published shape, such as "bert_base".

    Args:
        name: one of `SHAPE_NAMES`.
        **others: fields to set, such as `max_positions`.

    Returns:
        The config.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in _SHAPES:
        raise ValueError(
            f"A named shape must be one of {SHAPE_NAMES}. Received: name={name!r}")
    layers, width, heads, ffn = _SHAPES[name]
    fields = _FIELDS.get(name) or _FIELDS.get(name.partition("_")[0], {})
    return EncoderConfig.uniform(
        hidden_size=width, num_layers=layers, num_heads=heads, intermediate_size=ffn,
        **{**fields, **others})


def _is_size(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_number(value) -> bool:
    return (isinstance(value, int | float) and not isinstance(value, bool)
            and 0 <= value < math.inf)


def _require(condition, rule: str, config: EncoderConfig, name: str) -> None:
    if not condition:
        raise ValueError(
            f"`{name}` must be {rule}. Received: {name}={getattr(config, name)!r}")
