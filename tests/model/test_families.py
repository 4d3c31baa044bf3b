"""Families: what of a published checkpoint is read, and what is refused."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tfopt import model
from tfopt.model import EncoderConfig, Head, layer_names
from tfopt.model.families import registry
from tfopt.model.families.base import Family

PUBLISHED = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2,
             "num_attention_heads": 4, "intermediate_size": 64}


def config_of(fields) -> EncoderConfig:
    return registry.of(fields).config(fields)


def refusal(make, *arguments):
    with pytest.raises(ValueError) as caught:
        make(*arguments)
    return str(caught.value)


def test_published_fields_are_all_read():
    config = config_of({
        **PUBLISHED, "model_type": "bert", "max_position_embeddings": 64,
        "type_vocab_size": 3, "hidden_act": "relu", "layer_norm_eps": 1e-5,
        "hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.3,
        "initializer_range": 0.5, "unknown": 1})
    assert config == EncoderConfig(
        vocab_size=100, hidden_size=32, num_heads=(4, 4), intermediate_sizes=(64, 64),
        head_size=8, max_positions=64, type_vocab_size=3, activation="relu",
        layer_norm_epsilon=1e-5, hidden_dropout=0.2, attention_dropout=0.3,
        initializer_range=0.5)


def test_published_fields_left_out_are_berts_own():
    assert config_of(PUBLISHED) == EncoderConfig(
        vocab_size=100, hidden_size=32, num_heads=(4, 4), intermediate_sizes=(64, 64),
        head_size=8, max_positions=512, type_vocab_size=2, activation="gelu",
        layer_norm_epsilon=1e-12, hidden_dropout=0.1, attention_dropout=0.1,
        initializer_range=0.02)


@pytest.mark.parametrize("change, received", [
    ({"position_embedding_type": "relative_key"},
     "position_embedding_type='relative_key'"),
    ({"is_decoder": True}, "is_decoder=True"),
    ({"add_cross_attention": True}, "add_cross_attention=True"),
    ({"hidden_act": "tanh"}, "activation='tanh'"),
    ({"num_attention_heads": 5}, "num_heads=5, hidden_size=32"),
    ({"hidden_size": "32"}, "hidden_size='32'"),
    ({"num_hidden_layers": 2.0}, "num_hidden_layers=2.0"),
    ({"num_hidden_layers": 0}, "num_hidden_layers=0"),
    ({"num_attention_heads": None}, "num_attention_heads=None"),
    ({"intermediate_size": -64}, "intermediate_size=-64"),
    ({"vocab_size": 0}, "vocab_size=0"),
    ({"max_position_embeddings": 0}, "max_positions=0"),
    ({"hidden_dropout_prob": 1.5}, "hidden_dropout=1.5"),
    ({"layer_norm_eps": "1e-12"}, "layer_norm_epsilon='1e-12'"),
])
def test_published_fields_that_are_no_berts_are_refused(change, received):
    message = refusal(config_of, {**PUBLISHED, **change})
    assert message.endswith(f"Received: {received}")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_missing_published_field_is_named(name):
    fields = {key: value for key, value in PUBLISHED.items() if key != name}
    message = refusal(config_of, fields)
    assert message == (f"A config of the family 'bert' must give {[name]}. "
                       f"Received: {sorted(fields)}")


def test_each_family_is_found_by_its_module():
    families = registry.all_families()
    assert "bert" in families and all(
        isinstance(family, Family) and family.name == name
        for name, family in families.items())
    kinds = [kind for family in families.values() for kind in family.model_types]
    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize("kind", ["gpt2", None, ""])
def test_an_unknown_model_type_is_told_those_there_are(kind):
    message = refusal(registry.of, {**PUBLISHED, "model_type": kind})
    assert re.search(f"'bert'.* Received: model_type={kind!r}$", message)


@pytest.mark.parametrize("family", registry.all_families().values(),
                         ids=lambda family: family.name)
def test_what_a_family_writes_it_reads(family):
    config = EncoderConfig.uniform(
        hidden_size=32, num_layers=3, num_heads=4, intermediate_size=48, vocab_size=60,
        max_positions=20, activation="relu", hidden_dropout=0.2, attention_dropout=0.3,
        initializer_range=0.05, family=family.name, **family.fixed,
        **{name: 16 for name in ("embedding_size", "relative_buckets")
           if name in family.sizes})
    assert registry.of(family.to_fields(config)).config(
        family.to_fields(config)) == config
    written = family.published(config)
    names = {name for source in written.values() for name in source.tensors}
    assert family.weights(config, names) == written
    bert = model.build(config, Head(pooler=family.pooler))
    assert set(written) == {layer.name for layer in bert.layers if layer.name in {
        weight.name.split("/")[0] for weight in bert.trainable_weights}}
    tensors = {}
    for layer, source in written.items():
        weights = bert.get_layer(layer).get_weights()
        assert len(source.tensors) == len(weights)
        for name, weight in zip(source.tensors, weights, strict=True):
            # One that several layers share is the same in all.
            np.testing.assert_array_equal(tensors.setdefault(name, weight), weight)


@pytest.mark.parametrize("dropout, expected", [(None, 0.3), (0.0, 0.0), (0.2, 0.2)])
def test_the_head_of_a_bert(dropout, expected):
    fields = {**PUBLISHED, "hidden_dropout_prob": 0.3, "classifier_dropout": dropout}
    bert = registry.of(fields)
    assert bert.head(fields) == Head(dropout=expected)
    assert bert.head(fields, 7) == Head(outputs=7, dropout=expected)
    tokens = {**fields, "architectures": ["BertForTokenClassification"]}
    assert bert.head(tokens, 7) == Head(
        outputs=7, reads="all", pooler=None, dropout=expected)


@pytest.fixture
def renamed(tiny_dir, tmp_path):
    """The tiny checkpoint with tensors of other names, by a function."""
    def change(function, **fields):
        path = shutil.copytree(tiny_dir, tmp_path / "tiny")
        weights = load_file(path / "model.safetensors")
        save_file({function(name): x for name, x in weights.items()},
                  path / "model.safetensors")
        about = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(about | fields))
        return path

    return change


@pytest.mark.parametrize("prefix", ["model.", ""])
def test_a_trained_classifier_is_found_within_a_prefix(renamed, tiny_dir, prefix):
    found = model.load(renamed(lambda name: f"{prefix}{name}"))
    kernels = [own.get_layer(layer_names.CLASSIFIER).kernel.numpy()
               for own in (found, model.load(tiny_dir))]
    np.testing.assert_array_equal(*kernels)


def test_a_classifier_of_tokens_reads_them_all(renamed):
    found = model.load(renamed(str, architectures=["BertForTokenClassification"]))
    assert model.head_of(found) == Head(outputs=3, reads="all", pooler=None)
    assert found.output_shape == (None, None, 3)
