"""Integrated gradients: they sum up to what the logit changes by, token by token."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from tfopt import data, model, tasks
from tfopt.pipeline import attributions
from tfopt.pipeline.attributions import TOLERANCE, Explainer

TEXT = "it was not really good, this movie!"


@pytest.fixture(scope="module")
def tokenizer(tiny_dir):
    return data.tokenizer_from(tiny_dir)


@pytest.fixture(scope="module")
def encoded(tokenizer):
    found = tokenizer.encode([TEXT], places=True)
    return found.ids[0], found.places[0]


@pytest.mark.parametrize("output", [None, 0, 1, 2])
def test_the_sum_is_the_change_of_the_logit(output, tiny_model, encoded):
    found = Explainer(tiny_model).explain(*encoded, output=output)
    assert found.gap <= TOLERANCE
    assert found.values.sum() == pytest.approx(
        found.logit - found.without, rel=TOLERANCE)
    assert output in (None, found.output)
    assert found.values[0] == found.values[-1] == 0.0  # [CLS] and [SEP]
    assert np.count_nonzero(found.values) == len(encoded[0]) - 2


def test_the_logits_are_the_models(tiny_model, encoded):
    ids, _ = encoded
    found = Explainer(tiny_model).explain(*encoded)
    logits = tiny_model({
        "input_ids": np.array([ids]), "attention_mask": np.ones([1, len(ids)]),
        "token_type_ids": np.zeros([1, len(ids)])}).numpy()[0]
    assert (found.output, found.logit) == (
        logits.argmax(), pytest.approx(logits.max(), abs=1e-5))
    padded = [ids[0], *[0] * (len(ids) - 2), ids[-1]]
    assert found.without == pytest.approx(tiny_model({
        "input_ids": np.array([padded]), "attention_mask": np.ones([1, len(ids)]),
        "token_type_ids": np.zeros([1, len(ids)])}).numpy()[0, found.output], abs=1e-5)


def test_words_have_what_their_pieces_have(tiny_model, tokenizer, encoded):
    ids, places = encoded
    found = Explainer(tiny_model).explain(*encoded)
    words = attributions.by_word(found, places)
    assert [word for word, _ in words] == [
        "it", "was", "not", "really", "good", ",", "this", "movie", "!"]
    assert sum(value for _, value in words) == pytest.approx(found.values.sum())
    assert len(ids) - 2 >= len(words)


def test_rounding_to_8_bits_leaves_the_order_of_words(tiny_model, encoded):
    wrapped = attributions.rounded(tiny_model, "dynamic_wi8_afp32")
    before = Explainer(tiny_model).explain(*encoded)
    after = Explainer(wrapped).explain(*encoded, output=before.output)
    assert attributions.agreement(before.values, after.values) > 0.95
    assert not np.array_equal(before.values, after.values)


def test_agreement_is_spearmans():
    one = np.array([0.1, 0.5, 0.2, -3.0])
    assert attributions.agreement(one, np.exp(one)) == pytest.approx(1.0)
    assert attributions.agreement(one, -one) == pytest.approx(-1.0)
    assert np.isnan(attributions.agreement(one[:1], one[:1]))


def test_a_model_of_tokens_is_refused():
    tags = model.build(model.EncoderConfig.uniform(
        hidden_size=16, num_layers=1, num_heads=2, intermediate_size=16, vocab_size=50,
        max_positions=8), model.Head(outputs=3, reads="all", pooler=None))
    with pytest.raises(ValueError, match="of a text's outputs. Received: a model that"):
        Explainer(tags)


@pytest.fixture(scope="module")
def directory(tiny_dir, tokenizer, tmp_path_factory):
    place = tmp_path_factory.mktemp("baseline")
    model.save(model.load(tiny_dir), place)
    tokenizer.save(place)
    tasks.save(tasks.named("classification")(labels=("bad", "fine", "good")), place)
    return place


def explain(*arguments):
    return subprocess.run([sys.executable, "-m", "tfopt.cli", "explain", *arguments],
                          capture_output=True, text=True)


def test_the_command_tells_words_and_agreement(directory, tmp_path):
    report = tmp_path / "report.json"
    done = explain(f"--model_dir={directory}", "--scheme=dynamic_wi8_afp32",
                   f"--text={TEXT}", "--label=good", f"--report={report}")
    assert done.returncode == 0, done.stderr
    assert "good: it was not" in done.stdout and "Agreement" in done.stdout
    told, = json.loads(report.read_text())
    assert told["label"] == "good" and told["agreement"] > 0.95
    assert told["completeness_gap"]["model"] <= TOLERANCE
    for flag, said in (("--label=best", "'best', of bad, fine, good"),
                       ("--scheme=static_wi8_ai8", "An export that needs no ranges")):
        done = explain(f"--model_dir={directory}", f"--text={TEXT}", flag)
        assert done.returncode == 1 and said in done.stderr, done.stderr
