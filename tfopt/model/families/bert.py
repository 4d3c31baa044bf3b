"""BERT (Devlin et al. 2018, arXiv:1810.04805), and all that is published as one."""

from __future__ import annotations

from tfopt.model import layer_names as names
from tfopt.model.families.base import Family

FAMILY = Family(
    name="bert",
    model_types=("bert",),
    encoder="bert",
    sizes={
        "vocab_size": "vocab_size",
        "hidden_size": "hidden_size",
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "intermediate_size": "intermediate_size",
    },
    options={
        "max_positions": "max_position_embeddings",
        "type_vocab_size": "type_vocab_size",
        "activation": "hidden_act",
        "layer_norm_epsilon": "layer_norm_eps",
        "hidden_dropout": "hidden_dropout_prob",
        "attention_dropout": "attention_probs_dropout_prob",
        "initializer_range": "initializer_range",
    },
    honoured={
        "position_embedding_type": "absolute",
        "is_decoder": False,
        "add_cross_attention": False,
    },
    head_dropout=("classifier_dropout", "hidden_dropout_prob"),
    below={
        names.TOKEN_EMBEDDING: "embeddings.word_embeddings",
        names.SEGMENT_EMBEDDING: "embeddings.token_type_embeddings",
        names.POSITION_EMBEDDING: "embeddings.position_embeddings",
        names.EMBEDDING_NORM: "embeddings.LayerNorm",
    },
    layers="encoder.layer.{}",
    roles={
        names.QUERY: "attention.self.query",
        names.KEY: "attention.self.key",
        names.VALUE: "attention.self.value",
        names.ATTENTION_OUTPUT: "attention.output.dense",
        names.ATTENTION_NORM: "attention.output.LayerNorm",
        names.INTERMEDIATE: "intermediate.dense",
        names.FFN_OUTPUT: "output.dense",
        names.FFN_NORM: "output.LayerNorm",
    },
    above={names.POOLER: "pooler.dense", names.CLASSIFIER: "classifier"},
    masked_lm=("cls.predictions.transform.dense",
               "cls.predictions.transform.LayerNorm", "cls.predictions"),
    passed_over=(r"(^|\.)cls\.", r"embeddings\.(position|token_type)_ids$"),
)
