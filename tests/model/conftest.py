"""A checkpoint of TensorFlow's, for the tests of what is read."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from tfopt.backend import tf

ROLES = ["attention/self/query", "attention/self/key", "attention/self/value",
         "attention/output/dense", "attention/output/LayerNorm", "intermediate/dense",
         "output/dense", "output/LayerNorm"]


@pytest.fixture(scope="session")
def google_dir(tiny_dir, tmp_path_factory):
    """The tiny checkpoint in the layout of Google's original BERT."""
    path = tmp_path_factory.mktemp("google")
    source = load_file(tiny_dir / "model.safetensors")
    variables = {
        f"bert/embeddings/{kind}": source[f"bert.embeddings.{kind}.weight"]
        for kind in ("word_embeddings", "token_type_embeddings", "position_embeddings")}
    names = ["bert/embeddings/LayerNorm", "bert/pooler/dense",
             *(f"bert/encoder/layer_{i}/{role}" for i in range(3) for role in ROLES)]
    for name in names:
        published = re.sub(r"layer_(\d)", r"layer.\1", name).replace("/", ".")
        weight, bias = (source[f"{published}.{kind}"] for kind in ("weight", "bias"))
        if name.endswith("LayerNorm"):
            variables |= {f"{name}/gamma": weight, f"{name}/beta": bias}
        else:
            variables |= {f"{name}/kernel": weight.T, f"{name}/bias": bias}
    variables |= {"output_weights": source["classifier.weight"],
                  "output_bias": source["classifier.bias"],
                  "global_step": np.int64(7)}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, value in variables.items():
            tf.compat.v1.get_variable(name, initializer=value)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(
            session, str(path / "bert_model.ckpt"), write_meta_graph=False)
    fields = json.loads((tiny_dir / "config.json").read_text())
    kept = ("attention_probs_dropout_prob", "hidden_act", "hidden_dropout_prob",
            "hidden_size", "initializer_range", "intermediate_size",
            "max_position_embeddings", "num_attention_heads", "num_hidden_layers",
            "type_vocab_size", "vocab_size")
    (path / "bert_config.json").write_text(json.dumps({k: fields[k] for k in kept}))
    shutil.copy(tiny_dir / "vocab.txt", path)
    return path
