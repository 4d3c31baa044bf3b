"""The shapes of an encoder's weights, from its config alone: no model is built."""

from __future__ import annotations

import math

from tfopt.model import layer_names as names
from tfopt.model.config import EncoderConfig
from tfopt.model.heads import Head

Shape = tuple[int, ...]


def of_encoder(config: EncoderConfig) -> dict[str, list[Shape]]:
    """Layer -> the shapes of its weights in their order, of all layers with weights.

    Args:
        config: the sizes. A layer without a block has no layers of it.
    """
    width = config.hidden_size
    norm: list[Shape] = [(width,), (width,)]
    below = config.embedding_width
    found: dict[str, list[Shape]] = {
        names.TOKEN_EMBEDDING: [(config.vocab_size, below)],
        names.SEGMENT_EMBEDDING: [(config.type_vocab_size, below)],
        names.POSITION_EMBEDDING: [(config.max_positions, below)],
        names.EMBEDDING_NORM: [(below,), (below,)]}
    if config.embedding_size:
        found[names.EMBEDDING_PROJECTION] = _dense(below, width)
    for i, (heads, neurons) in enumerate(zip(
            config.num_heads, config.intermediate_sizes, strict=True)):
        roles = {names.ATTENTION_NORM: norm, names.FFN_NORM: norm}
        if heads:
            inner = heads * config.head_size
            roles |= {role: _dense(width, inner)
                      for role in (names.QUERY, names.KEY, names.VALUE)}
            roles[names.ATTENTION_OUTPUT] = _dense(inner, width)
            if config.relative_buckets:
                roles[names.ATTENTION] = [(config.relative_buckets, heads)]
        if neurons:
            roles |= {names.INTERMEDIATE: _dense(width, neurons),
                      names.FFN_OUTPUT: _dense(neurons, width)}
        found |= {names.layer_name(i, role): shapes for role, shapes in roles.items()}
    return found


def of_head(width: int, outputs: int | None) -> dict[str, list[Shape]]:
    """The same of a head's layers, as far as there are any.

    Args:
        width: D of the encoder.
        outputs: C of the classifier; None for none.
    """
    found = {names.POOLER: _dense(width, width)}
    return found | {names.CLASSIFIER: _dense(width, outputs)} if outputs else found


def num_parameters(config: EncoderConfig, head: Head) -> int:
    """Weights of an encoder of plain layers and its head."""
    shapes = of_encoder(config) | of_head(config.hidden_size, head.outputs)
    if not head.pooler:
        del shapes[names.POOLER]
    return sum(math.prod(shape) for own in shapes.values() for shape in own)


def _dense(inputs: int, outputs: int) -> list[Shape]:
    return [(inputs, outputs), (outputs,)]
