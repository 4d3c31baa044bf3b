"""Which layer of a BERT plays which role: the only module that knows layer names.

`bert.build` names its layers by this module, the checkpoint reader and the passes
find them by it. A config is read back from the layers themselves, so a model whose
heads or neurons were cut away needs no record beside it.
"""

from __future__ import annotations

import re

from tfopt.backend import keras
from tfopt.model.config import EncoderConfig
from tfopt.types import INPUT_NAMES

TOKEN_EMBEDDING = "token_embedding"
SEGMENT_EMBEDDING = "segment_embedding"
POSITION_EMBEDDING = "position_embedding"
EMBEDDING_NORM = "embedding_norm"
EMBEDDING_DROPOUT = "embedding_dropout"
HEAD_TOKENS = "head_tokens"
FIRST_TOKEN = "first_token"
MEAN_TOKENS = "mean_tokens"
POOLER = "pooler"
CLASSIFIER_DROPOUT = "classifier_dropout"
CLASSIFIER = "classifier"

# Roles within one encoder layer; the Dense ones in the order of computation.
DENSE_ROLES = ("query", "key", "value", "attention_output", "intermediate",
               "ffn_output")
# Of the second product of an ffn: at some tokens a few channels of its output are a
# hundred times all others ("massive activations", Sun et al. 2024, arXiv:2402.17762),
# and one int8 range for all would leave nothing of these. As names of tensors have it.
OUTLIER_OUTPUT = rf"/layer_\d+_{DENSE_ROLES[-1]}/"
# A channel is massive whose largest |value| is so many times the mean of all channels'.
OUTLIER_RATIO = 8.0
# Both products of an ffn: at these tokens the first takes and gives a few such numbers.
FFN_PRODUCT = rf"/layer_\d+_({'|'.join(DENSE_ROLES[-2:])})/"
ATTENTION = "attention"
ATTENTION_NORM = "attention_norm"
FFN_NORM = "ffn_norm"


def layer_name(index: int, role: str) -> str:
    """Name of the layer that plays `role` in encoder layer `index`, from 0."""
    return f"layer_{index}_{role}"


def has_outlier_channels(name: str) -> bool:
    """Whether a layer of this name gives a few channels that dwarf all others."""
    return re.search(OUTLIER_OUTPUT, f"/{name}/") is not None


def norm_behind(name: str) -> str:
    """Name of the LayerNorm behind an ffn's second product."""
    return name.replace(DENSE_ROLES[-1], FFN_NORM)


def is_in_ffn(name: str) -> bool:
    """Whether a layer of this name is a product of an ffn."""
    return re.search(FFN_PRODUCT, f"/{name}/") is not None


def layer_names(model: keras.Model) -> set[str]:
    """Names of all the layers that `bert.build` gives a model of this depth."""
    names = {*INPUT_NAMES, "embedding_sum", TOKEN_EMBEDDING, SEGMENT_EMBEDDING,
             POSITION_EMBEDDING, EMBEDDING_NORM, EMBEDDING_DROPOUT, HEAD_TOKENS,
             FIRST_TOKEN, MEAN_TOKENS, POOLER, CLASSIFIER_DROPOUT, CLASSIFIER}
    roles = (*DENSE_ROLES, ATTENTION, "attention_dropout", "attention_sum",
             ATTENTION_NORM, "ffn_dropout", "ffn_sum", FFN_NORM)
    return names | {layer_name(i, role)
                    for i in range(num_layers(model)) for role in roles}


def is_bert(model: keras.Model) -> bool:
    """Whether the model has the layers `bert.build` makes."""
    names = {layer.name for layer in model.layers}
    return {TOKEN_EMBEDDING, layer_name(0, FFN_NORM), CLASSIFIER_DROPOUT} <= names


def num_layers(model: keras.Model) -> int:
    """Number of encoder layers."""
    names = {layer.name for layer in model.layers}
    count = 0
    while layer_name(count, FFN_NORM) in names:
        count += 1
    return count


def encoder_dense(model: keras.Model) -> list[keras.layers.Layer]:
    """The six projections of every encoder layer, in the order of computation.

    A layer without attention or ffn block has not those.
    """
    made = {layer.name: layer for layer in model.layers}
    names = (layer_name(i, role)
             for i in range(num_layers(model)) for role in DENSE_ROLES)
    return [made[name] for name in names if name in made]


def hidden_states(model: keras.Model) -> list:
    """Symbolic outputs <float>[B, T, D] of the embeddings and of each layer."""
    return [model.get_layer(EMBEDDING_NORM).output] + [
        model.get_layer(layer_name(i, FFN_NORM)).output
        for i in range(num_layers(model))]


def config_of(model: keras.Model) -> EncoderConfig:
    """Reads the sizes of a BERT from its layers.

    Args:
        model: made by `bert.build`, or by a pass from such a one.

    Returns:
        Its config; `bert.build` of it gives a model of the same shapes.

    Raises:
        ValueError: the model is no BERT of tfopt's.
    """
    if not is_bert(model):
        raise ValueError("The model must be a BERT made by tfopt. Received: layers "
                         f"{[layer.name for layer in model.layers[:5]]}...")
    # A layer, or the one in a wrapper that trains it.
    made = {layer.name: getattr(layer, "layer", layer) for layer in model.layers}

    def roles(role):  # that of each layer; None where the layer has not its block
        return [made.get(layer_name(i, role)) for i in range(num_layers(model))]

    get = made.__getitem__
    tokens = get(TOKEN_EMBEDDING)
    positions = get(POSITION_EMBEDDING)
    attention, intermediate = roles(ATTENTION), roles("intermediate")
    # What no layer tells is of no consequence.
    told = {"head_size": tokens.output_dim}
    for layer, query in zip(attention, roles("query"), strict=True):
        if layer:
            told |= {"head_size": query.units // layer.num_heads,
                     "attention_dropout": layer.dropout}
    for layer in filter(None, intermediate):
        told["activation"] = layer.activation.__name__
    return EncoderConfig(
        vocab_size=tokens.input_dim,
        hidden_size=tokens.output_dim,
        num_heads=[layer.num_heads if layer else 0 for layer in attention],
        intermediate_sizes=[layer.units if layer else 0 for layer in intermediate],
        max_positions=positions.max_positions,
        type_vocab_size=get(SEGMENT_EMBEDDING).input_dim,
        layer_norm_epsilon=get(EMBEDDING_NORM).epsilon,
        hidden_dropout=get(EMBEDDING_DROPOUT).rate,
        initializer_range=positions.initializer_range,
        **told,
    )
