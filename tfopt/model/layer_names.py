"""The names of an encoder's layers: the only module that spells them.

`encoder.build` and `heads.make` name layers by the constants here, and a family maps a
published checkpoint onto them; all others ask an `anatomy.Anatomy`, or for the layer
of an exported tensor the functions here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tfopt.backend import keras
from tfopt.types import INPUT_NAMES

TOKEN_EMBEDDING = "token_embedding"
SEGMENT_EMBEDDING = "segment_embedding"
POSITION_EMBEDDING = "position_embedding"
EMBEDDING_SUM = "embedding_sum"
EMBEDDING_NORM = "embedding_norm"
EMBEDDING_DROPOUT = "embedding_dropout"
EMBEDDING_PROJECTION = "embedding_projection"
TOKEN_DISTANCES = "token_distances"
HEAD_TOKENS = "head_tokens"
FIRST_TOKEN = "first_token"
MEAN_TOKENS = "mean_tokens"
POOLER = "pooler"
CLASSIFIER_DROPOUT = "classifier_dropout"
CLASSIFIER = "classifier"

# Roles within one encoder layer.
QUERY, KEY, VALUE = "query", "key", "value"
ATTENTION = "attention"
ATTENTION_OUTPUT = "attention_output"
ATTENTION_DROPOUT = "attention_dropout"
ATTENTION_SUM = "attention_sum"
ATTENTION_NORM = "attention_norm"
INTERMEDIATE = "intermediate"
FFN_OUTPUT = "ffn_output"
FFN_DROPOUT = "ffn_dropout"
FFN_SUM = "ffn_sum"
FFN_NORM = "ffn_norm"

# The Dense ones in the order of computation.
_DENSE_ROLES = (QUERY, KEY, VALUE, ATTENTION_OUTPUT, INTERMEDIATE, FFN_OUTPUT)
_ROLES = (*_DENSE_ROLES, ATTENTION, ATTENTION_DROPOUT, ATTENTION_SUM, ATTENTION_NORM,
          FFN_DROPOUT, FFN_SUM, FFN_NORM)
_OTHERS = (TOKEN_EMBEDDING, SEGMENT_EMBEDDING, POSITION_EMBEDDING, EMBEDDING_SUM,
           EMBEDDING_NORM, EMBEDDING_DROPOUT, EMBEDDING_PROJECTION, TOKEN_DISTANCES,
           HEAD_TOKENS, FIRST_TOKEN, MEAN_TOKENS, POOLER, CLASSIFIER_DROPOUT,
           CLASSIFIER)

# Of the second product of an ffn: at some tokens a few channels of its output are a
# hundred times all others ("massive activations", Sun et al. 2024, arXiv:2402.17762),
# and one int8 range for all would leave nothing of these. As names of tensors have it.
_OUTLIER_OUTPUT = rf"/(layer_\d+_{FFN_OUTPUT})/"
# An outlier channel's largest |value| is this many times the mean of all channels'.
OUTLIER_RATIO = 8.0
# Both products of an ffn: at these tokens the first takes and gives a few such numbers.
FFN_PRODUCT = rf"/layer_\d+_(?:{INTERMEDIATE}|{FFN_OUTPUT})/"
# Scores of attention with the mask added, as names of tensors have them.
_MASKED_SCORES = rf"_{ATTENTION}/add[^/]*$"


def layer_name(index: int, role: str) -> str:
    """Name of the layer that plays `role` in encoder layer `index`, from 0."""
    return f"layer_{index}_{role}"


def outlier_layer(tensor: str) -> str | None:
    """The layer with outlier channels that gives a tensor; None for another tensor."""
    found = re.search(_OUTLIER_OUTPUT, tensor)
    return found and found[1]


def has_outlier_channels(name: str) -> bool:
    """Whether a layer of this name gives a few channels that dwarf all others."""
    return outlier_layer(f"/{name}/") is not None


def norm_behind(name: str) -> str:
    """Name of the LayerNorm behind an ffn's second product."""
    return name.replace(FFN_OUTPUT, FFN_NORM)


def is_in_ffn(name: str) -> bool:
    """Whether a layer of this name is a product of an ffn."""
    return re.search(FFN_PRODUCT, f"/{name}/") is not None


def is_masked_scores(tensor: str) -> bool:
    """Whether a tensor of a converted model holds scores to which a mask was added."""
    return re.search(_MASKED_SCORES, tensor) is not None


def role_of(name: str) -> str | None:
    """What a layer does within its encoder layer; None for one outside of these."""
    found = re.fullmatch(rf"layer_\d+_({'|'.join(_ROLES)})", name)
    return found and found[1]


def renumbered(name: str, numbers: Sequence[int]) -> str:
    """The name of a layer where its encoder layer has another number.

    Args:
        name: of any layer.
        numbers: the other number of each encoder layer.
    """
    found = re.fullmatch(r"layer_(\d+)_(\w+)", name)
    return layer_name(numbers[int(found[1])], found[2]) if found else name


def unknown(model: keras.Model) -> list[str]:
    """Names of a model's layers that `encoder.build` does not give, ascending."""
    return sorted(layer.name for layer in model.layers
                  if layer.name not in (*INPUT_NAMES, *_OTHERS)
                  and role_of(layer.name) is None)


def check_known(model: keras.Model) -> None:
    """Checks that an encoder has no layers beside those that it would be rebuilt with.

    Raises:
        ValueError: it has, such as a head of somebody's own.
    """
    others = unknown(model)
    if others:
        raise ValueError(
            "An encoder is built anew for this, of the layers of tfopt's encoders and "
            "heads alone; do it before another head stands on it. Received: "
            f"{model.name!r} with the layers {others[:6]}")
