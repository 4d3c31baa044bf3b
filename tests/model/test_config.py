"""EncoderConfig: the three ways to make one, and every rule's refusal."""

from __future__ import annotations

import json
import re

import pytest

from tfopt.model import SHAPE_NAMES, EncoderConfig, named

SIZES = {"vocab_size": 100, "hidden_size": 32, "num_heads": (4, 2),
         "intermediate_sizes": (64, 48), "head_size": 8}



def refusal(make, *arguments, **keywords):
    with pytest.raises(ValueError) as caught:
        make(*arguments, **keywords)
    return str(caught.value)


def test_layers_may_differ_in_size():
    config = EncoderConfig(**SIZES)
    assert config.num_layers == 2
    assert (config.num_heads, config.intermediate_sizes) == ((4, 2), (64, 48))


def test_lists_become_tuples():
    lists = {**SIZES, "num_heads": [4, 2], "intermediate_sizes": [64, 48]}
    assert EncoderConfig(**lists) == EncoderConfig(**SIZES)
    assert hash(EncoderConfig(**lists)) == hash(EncoderConfig(**SIZES))


def test_uniform_repeats_the_sizes_for_every_layer():
    config = EncoderConfig.uniform(hidden_size=48, num_layers=3, num_heads=4,
                                intermediate_size=96)
    assert config == EncoderConfig(
        vocab_size=30522, hidden_size=48, num_heads=(4,) * 3,
        intermediate_sizes=(96,) * 3, head_size=12)


@pytest.mark.parametrize("heads, width", [(5, 32), (0, 32), (-4, 32), (64, 32)])
def test_heads_must_divide_the_width(heads, width):
    message = refusal(EncoderConfig.uniform, hidden_size=width, num_layers=1,
                      num_heads=heads, intermediate_size=8)
    assert message.endswith(f"Received: num_heads={heads}, hidden_size={width}")


def test_uniform_needs_a_layer():
    message = refusal(EncoderConfig.uniform, hidden_size=8, num_layers=0, num_heads=1,
                      intermediate_size=8)
    assert message.endswith("Received: num_heads=()")


@pytest.mark.parametrize("change", [
    *({name: value} for value in (0, -1, 1.5, "8", None, True) for name in (
        "vocab_size", "hidden_size", "head_size", "max_positions")),
    *({"type_vocab_size": value} for value in (-1, 1.5, "8", None, True, False)),
    *({"family": value} for value in ("", "a b", None)),
    {"num_heads": (4, -2)}, {"num_heads": (4, 2.0)},
    {"intermediate_sizes": (64, -1)}, {"intermediate_sizes": ("64", 48)},
    *({name: value} for value in (-0.1, 1, 1.0, 2.5, None, "0.1") for name in (
        "hidden_dropout", "attention_dropout")),
    *({name: value} for value in (-1e-12, None, "1e-12") for name in (
        "layer_norm_epsilon", "initializer_range")),
    *({"activation": value} for value in ("tanh", "", None, ["gelu"])),
], ids=str)
def test_a_broken_rule_names_its_field(change):
    (name, value), = change.items()
    message = refusal(EncoderConfig, **{**SIZES, **change})
    assert message.startswith(f"`{name}` must be ")
    assert message.endswith(f"Received: {name}={value!r}")


@pytest.mark.parametrize("heads, ffn", [((4,), (64, 48)), ((4, 2), ()), ((4, 2), (8,))])
def test_per_layer_sizes_must_be_equally_many(heads, ffn):
    message = refusal(EncoderConfig, **{**SIZES, "num_heads": heads,
                                     "intermediate_sizes": ffn})
    assert message.endswith(f"Received: num_heads={heads}, intermediate_sizes={ffn}")


def test_no_layer_at_all_is_refused():
    message = refusal(EncoderConfig, **{**SIZES, "num_heads": (),
                                     "intermediate_sizes": ()})
    assert message.endswith("Received: num_heads=()")


@pytest.mark.parametrize("alias, activation", [
    ("gelu_new", "gelu_tanh"), ("gelu_pytorch_tanh", "gelu_tanh"), ("swish", "silu"),
    ("gelu", "gelu"), ("gelu_tanh", "gelu_tanh"), ("relu", "relu"), ("silu", "silu")])
def test_other_libraries_names_of_activations_are_known(alias, activation):
    assert EncoderConfig(**SIZES, activation=alias).activation == activation


@pytest.mark.parametrize("name, layers, width, heads, ffn", [
    ("bert_tiny", 2, 128, 2, 512), ("bert_base", 12, 768, 12, 3072),
    ("minilm_l6", 6, 384, 12, 1536)])
def test_named_shapes(name, layers, width, heads, ffn):
    config = named(name, max_positions=4)
    assert config == EncoderConfig.uniform(
        hidden_size=width, num_layers=layers, num_heads=heads, intermediate_size=ffn,
        max_positions=4)


def test_every_shape_name_is_known():
    assert all(named(name).num_layers > 0 for name in SHAPE_NAMES)


def test_an_unknown_shape_is_told_the_known_ones():
    message = refusal(named, "bert_huge")
    assert re.search("'bert_tiny'.*'minilm_l12'.* Received: name='bert_huge'$", message)


def test_json_round_trip():
    config = EncoderConfig(**SIZES, activation="silu", hidden_dropout=0.0)
    text = config.to_json()
    assert text.endswith("}\n")
    assert json.loads(text)["num_heads"] == [4, 2]
    assert EncoderConfig(**json.loads(text)) == config


def test_replace_checks_anew():
    config = EncoderConfig(**SIZES)
    assert config.replace(vocab_size=9).vocab_size == 9
    assert config.vocab_size == 100
    assert refusal(config.replace, vocab_size=0).endswith("Received: vocab_size=0")
