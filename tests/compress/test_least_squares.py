"""Least squares for the output projections: what is restored, what is not touched."""

from __future__ import annotations

import numpy as np
import pytest

from tfopt import data
from tfopt import model as models
from tfopt.compress.structure.least_squares import reconstruct
from tfopt.compress.structure.slicing import Kept, cut

CONFIG = models.EncoderConfig.uniform(
    hidden_size=16, num_layers=2, num_heads=4, intermediate_size=16, vocab_size=103,
    max_positions=64, initializer_range=0.3)
HEAD = models.Head(outputs=3)
HALF = Kept(heads=((0, 1), (0, 1)), neurons=(tuple(range(8)),) * 2)


@pytest.fixture(scope="module")
def whole():
    return models.build(CONFIG, HEAD, seed=1)


def repeat(model) -> None:
    """Makes of the second half of all units the same as of the first."""
    for i in range(CONFIG.num_layers):
        for role in ("query", "key", "value", "intermediate"):
            kernel, bias = model.get_layer(f"layer_{i}_{role}").get_weights()
            kernel[:, 8:], bias[8:] = kernel[:, :8], bias[:8]
            model.get_layer(f"layer_{i}_{role}").set_weights([kernel, bias])


def error(model, whole, texts) -> float:
    """The root mean square by which logits differ."""
    return float(np.sqrt(np.mean(np.concatenate(
        [(model(x) - whole(x)).numpy() ** 2 for x in texts.dataset()]))))


def test_units_that_others_repeat_are_made_up_for(texts):
    whole = models.build(CONFIG, HEAD, seed=1)
    repeat(whole)
    small = cut(whole, HALF)
    cut_error = error(small, whole, texts[1])
    reconstruct(whole, small, texts[0])
    assert cut_error > 0.1
    assert error(small, whole, texts[1]) < 0.1 * cut_error
    # Heads and neurons that do the same are as one with the sum of their rows.
    for role in ("attention_output", "ffn_output"):
        theirs = whole.get_layer(f"layer_0_{role}").get_weights()[0]
        ours = small.get_layer(f"layer_0_{role}").get_weights()[0]
        summed = theirs[:8] + theirs[8:]
        assert np.abs(ours - summed).mean() < 0.3 * np.abs(theirs[8:]).mean()


@pytest.mark.parametrize("kept", [
    HALF,
    Kept(heads=((0, 3), ()), neurons=((), tuple(range(12)))),
    Kept(heads=((), (1, 2)), neurons=(tuple(range(4, 16)), ())),
])
def test_logits_of_other_texts_come_nearer(whole, texts, kept):
    small = cut(whole, kept)
    before = error(small, whole, texts[1])
    reconstruct(whole, small, texts[0])
    assert error(small, whole, texts[1]) < 0.9 * before


def test_nothing_cut_is_left_as_it_is(whole, texts):
    same = cut(whole, Kept.all_of(CONFIG))
    reconstruct(whole, same, texts[0])
    for ours, theirs in zip(same.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_only_output_projections_change(whole, texts):
    small, theirs = cut(whole, HALF), whole.get_weights()
    cut_only = {w.name: w.numpy() for w in small.weights}
    reconstruct(whole, small, texts[0])
    changed = {w.name.split("/")[0] for w in small.weights
               if not np.array_equal(w.numpy(), cut_only[w.name])}
    assert changed == {f"layer_{i}_{role}" for i in range(2)
                       for role in ("attention_output", "ffn_output")}
    for now, then in zip(whole.get_weights(), theirs, strict=True):
        np.testing.assert_array_equal(now, then)


class Scribbled:
    """Batches with labels, and with words of chance where there is padding."""

    def __init__(self, batches):
        self._batches = batches

    def dataset(self):
        random = np.random.default_rng(0)
        for inputs in self._batches.dataset():
            mask = inputs["attention_mask"].numpy()
            noise = random.integers(4, 103, mask.shape).astype(np.int32)
            ids = np.where(mask, inputs["input_ids"], noise)
            assert np.any(ids != inputs["input_ids"])
            yield {**inputs, "input_ids": ids}, np.zeros(len(ids), np.int32)


def test_neither_padding_nor_labels_have_any_influence(whole, texts, tiny_examples):
    ids = data.Encoded(ids=tiny_examples[0].ids[:32],
                       first_lengths=tiny_examples[0].first_lengths[:32])
    found = []
    for given in (data.Batches(ids, batch_size=16, pad_multiple=1),
                  Scribbled(data.Batches(ids, batch_size=16, pad_to=24))):
        small = cut(whole, HALF)
        reconstruct(whole, small, given)
        found.append(small.get_weights())
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(("examples", "same"), [(16, True), (17, False)])
def test_no_more_batches_are_read_than_asked_for(whole, texts, tiny_examples,
                                                 examples, same):
    first = texts[0].epoch_plan(0)[0]
    alone = data.Batches(data.Encoded(
        ids=[tiny_examples[0].ids[i] for i in first],
        first_lengths=[tiny_examples[0].first_lengths[i] for i in first]),
        batch_size=16, pad_to=16)
    found = []
    for given, count in ((alone, 99), (texts[0], examples)):
        small = cut(whole, HALF)
        reconstruct(whole, small, given, count)
        found.append(small.get_layer("layer_1_ffn_output").get_weights()[0])
    assert np.allclose(*found, atol=1e-5) == same
