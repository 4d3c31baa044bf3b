"""ELECTRA (Clark et al. 2020, arXiv:2003.10555): BERT with narrow embeddings.

A Dense maps them to the width of the encoder, where they are narrower. The classifier
reads the first token through a Dense with a GELU.
"""

from __future__ import annotations

import dataclasses

from tfopt.model import layer_names as names
from tfopt.model.families.bert import FAMILY as BERT

FAMILY = dataclasses.replace(
    BERT,
    name="electra",
    model_types=("electra",),
    encoder="electra",
    sizes={**BERT.sizes, "embedding_size": "embedding_size"},
    pooler="gelu",
    below={**BERT.below, names.EMBEDDING_PROJECTION: "embeddings_project"},
    above={names.POOLER: "classifier.dense", names.CLASSIFIER: "classifier.out_proj"},
    beside=(names.POOLER, names.CLASSIFIER),
    masked_lm=None,  # the discriminator finds words that are replaced
    passed_over=(r"(^|\.)(discriminator|generator)_(predictions|lm_head)\.",
                 r"embeddings\.(position|token_type)_ids$"),
)
