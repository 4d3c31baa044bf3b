"""MPNet (Song et al. 2020, arXiv:2004.09297): relative positions beside absolute ones.

One table, which all layers share, says what each head adds to the score of two tokens
by their distance. Here each layer has its own copy, since layers may lose other heads;
training may move them apart. Positions count from 2, and there are no segments.
"""

from __future__ import annotations

import dataclasses

from tfopt.model import layer_names as names
from tfopt.model.families.roberta import FAMILY as ROBERTA

FAMILY = dataclasses.replace(
    ROBERTA,
    name="mpnet",
    model_types=("mpnet",),
    encoder="mpnet",
    sizes={**ROBERTA.sizes, "relative_buckets": "relative_attention_num_buckets"},
    added_to_positions=None,
    roles={**ROBERTA.roles,
           names.QUERY: "attention.attn.q",
           names.KEY: "attention.attn.k",
           names.VALUE: "attention.attn.v",
           names.ATTENTION_OUTPUT: "attention.attn.o",
           names.ATTENTION_NORM: "attention.LayerNorm"},
    shared={names.ATTENTION: "encoder.relative_attention_bias"},
)
