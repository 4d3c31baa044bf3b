"""DistilBERT (Sanh et al. 2019, arXiv:1910.01108): BERT without segments and pooler.

Its classifier reads the first token through a Dense with a ReLU, `pre_classifier`.
"""

from __future__ import annotations

from tfopt.model import layer_names as names
from tfopt.model.families.base import Family

FAMILY = Family(
    name="distilbert",
    model_types=("distilbert",),
    encoder="distilbert",
    sizes={
        "vocab_size": "vocab_size",
        "hidden_size": "dim",
        "num_layers": "n_layers",
        "num_heads": "n_heads",
        "intermediate_size": "hidden_dim",
    },
    options={
        "max_positions": "max_position_embeddings",
        "activation": "activation",
        "hidden_dropout": "dropout",
        "attention_dropout": "attention_dropout",
        "initializer_range": "initializer_range",
    },
    fixed={"type_vocab_size": 0, "layer_norm_epsilon": 1e-12},
    head_dropout=("seq_classif_dropout",),
    default_head_dropout=0.2,
    pooler="relu",
    below={
        names.TOKEN_EMBEDDING: "embeddings.word_embeddings",
        names.POSITION_EMBEDDING: "embeddings.position_embeddings",
        names.EMBEDDING_NORM: "embeddings.LayerNorm",
    },
    layers="transformer.layer.{}",
    roles={
        names.QUERY: "attention.q_lin",
        names.KEY: "attention.k_lin",
        names.VALUE: "attention.v_lin",
        names.ATTENTION_OUTPUT: "attention.out_lin",
        names.ATTENTION_NORM: "sa_layer_norm",
        names.INTERMEDIATE: "ffn.lin1",
        names.FFN_OUTPUT: "ffn.lin2",
        names.FFN_NORM: "output_layer_norm",
    },
    above={names.POOLER: "pre_classifier", names.CLASSIFIER: "classifier"},
    beside=(names.POOLER, names.CLASSIFIER),
    masked_lm=("vocab_transform", "vocab_layer_norm", "vocab_projector"),
    passed_over=(r"(^|\.)vocab_(transform|layer_norm|projector)\.",
                 r"embeddings\.position_ids$"),
)
