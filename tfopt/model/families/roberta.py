"""RoBERTa (Liu et al. 2019, arXiv:1907.11692): BERT with another head.

Its positions count from 2, and its one segment is added to every token; both are taken
into the table of positions when it is read. The classifier reads the first token
through a Dense with a tanh of its own.
"""

from __future__ import annotations

import dataclasses

from tfopt.model import layer_names as names
from tfopt.model.families.bert import FAMILY as BERT

FAMILY = dataclasses.replace(
    BERT,
    name="roberta",
    model_types=("roberta",),
    encoder="roberta",
    sizes={**BERT.sizes, "max_positions": "max_position_embeddings"},
    options={ours: theirs for ours, theirs in BERT.options.items()
             if ours not in ("max_positions", "type_vocab_size")},
    fixed={"type_vocab_size": 0},
    honoured={**BERT.honoured, "pad_token_id": 1},
    below={layer: stem for layer, stem in BERT.below.items()
           if layer != names.SEGMENT_EMBEDDING},
    first_position=2,
    added_to_positions="embeddings.token_type_embeddings",
    above={names.POOLER: "classifier.dense", names.CLASSIFIER: "classifier.out_proj"},
    beside=(names.POOLER, names.CLASSIFIER),
    masked_lm=("lm_head.dense", "lm_head.layer_norm", "lm_head"),
    # BERT's pooler is there in some, though nothing was trained through it.
    passed_over=(r"(^|\.)lm_head\.", r"(^|\.)pooler\.dense\.",
                 r"embeddings\.(position|token_type)_ids$"),
)
