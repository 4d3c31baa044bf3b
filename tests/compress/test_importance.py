"""Scores of heads and neurons: the masks' gradients, and what is made of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tfopt import data
from tfopt import model as models
from tfopt.compress import Context
from tfopt.compress.passes.low_rank import LowRank
from tfopt.compress.structure import importance
from tfopt.compress.structure.importance import UnitScores, kept, mask_gradients

CONFIG = models.EncoderConfig.uniform(
    hidden_size=8, num_layers=2, num_heads=2, intermediate_size=3, vocab_size=103,
    max_positions=32, initializer_range=0.5)
HEAD = models.Head(outputs=3)
SHALLOW = CONFIG.replace(num_heads=(2,), intermediate_sizes=(3,))
# Of three examples: g of two heads, and of three neurons.
HEADS = np.array([[1, -3], [-2, 0], [0, 3]], np.float32)
NEURONS = np.array([[2, 1, 0], [-2, 1, 3], [2, 1, 0]], np.float32)


@pytest.fixture
def batches(tiny_examples):
    return data.Batches(*tiny_examples, batch_size=16, pad_to=16)


def losses(model, batches) -> np.ndarray:
    """The cross-entropy of each example."""
    found = []
    for inputs, class_ids in batches.dataset():
        logits = model(inputs).numpy().astype(np.float64)
        found.append(np.log(np.exp(logits).sum(axis=1))
                     - logits[np.arange(len(logits)), class_ids.numpy()])
    return np.concatenate(found)


@pytest.mark.parametrize(("role", "units"), [("attention_output", 2),
                                             ("ffn_output", 3)])
def test_gradients_are_those_of_masks_on_the_outputs(tiny_examples, role, units):
    model = models.build(CONFIG, HEAD, seed=1)
    batches = data.Batches(*tiny_examples, batch_size=48)
    heads, neurons = mask_gradients(model, batches, 48)
    found = heads if role == "attention_output" else neurons
    step = 0.01
    for layer, unit in itertools.product(range(2), range(units)):
        kernel = model.get_layer(f"layer_{layer}_{role}").kernel
        whole = kernel.numpy()
        there = []
        for factor in (1 - step, 1 + step):
            masked = whole.reshape([units, -1]).copy()
            masked[unit] *= factor
            kernel.assign(masked.reshape(whole.shape))
            there.append(losses(model, batches))
        kernel.assign(whole)
        expected = (there[1] - there[0]) / (2 * step)
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(found[layer][:, unit], expected, rtol=0.02,
                                   atol=5e-4)


def gradients(model, batches, examples=48) -> np.ndarray:
    heads, neurons = mask_gradients(model, batches, examples)
    return np.concatenate([*heads, *neurons], axis=1)


def test_examples_without_a_label_count_as_the_model_judges_them(tiny_examples):
    model = models.build(SHALLOW, HEAD, seed=2)
    encoded, class_ids = tiny_examples
    order = [i for index in data.Batches(encoded, batch_size=16).epoch_plan(0)
             for i in index]
    guesses = np.zeros(48, int)
    guesses[order] = np.concatenate([
        np.argmax(model(x), axis=1)
        for x in data.Batches(encoded, batch_size=16).dataset()])
    assert len(set(guesses)) > 1 and np.any(guesses != class_ids)
    expected = gradients(model, data.Batches(encoded, guesses, batch_size=16))
    for given, own in ((None, guesses),
                       ([*class_ids[:24], *[-1] * 24],
                        np.array([*class_ids[:24], *guesses[24:]]))):
        found = gradients(model, data.Batches(encoded, given, batch_size=16))
        same = np.all(np.isclose(found, expected, atol=1e-6), axis=1)
        np.testing.assert_array_equal(same, (own == guesses)[order])


def test_a_teachers_logits_beside_the_labels_are_not_minded(batches):
    model = models.build(SHALLOW, HEAD, seed=1)
    with_logits = batches.with_teacher_logits(np.ones([48, 3]))
    np.testing.assert_allclose(gradients(model, with_logits),
                               gradients(model, batches), atol=1e-6)


def test_padding_does_not_count(tiny_examples):
    model = models.build(SHALLOW, HEAD, seed=1)
    found = [gradients(model, data.Batches(*tiny_examples, batch_size=16, **how))
             for how in ({"pad_multiple": 1}, {"pad_to": 32})]
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)


@pytest.mark.parametrize(("examples", "read"), [(1, 16), (16, 16), (17, 32), (99, 48)])
def test_no_more_batches_are_read_than_asked_for(batches, examples, read):
    assert len(gradients(models.build(SHALLOW, HEAD), batches, examples)) == read


@pytest.mark.parametrize("score", importance.UNIT_SCORES)
@pytest.mark.parametrize(("heads", "neurons"), [((0, 2), (3, 0)), ((0, 0), (0, 0))])
def test_absent_blocks_have_no_units(batches, score, heads, neurons):
    model = models.build(CONFIG.replace(num_heads=heads, intermediate_sizes=neurons),
                         HEAD)
    found = importance.of(model, score, batches, examples=16)
    for blocks, sizes in ((found.heads, heads), (found.neurons, neurons)):
        assert [sorted(block.order) for block in blocks] == [
            list(range(size)) for size in sizes]
        for block, size in zip(blocks, sizes, strict=True):
            assert block.loss.shape == (size + 1,)
            assert block.loss[0] == 0 and (size == 0 or block.loss[-1] > 0)


@pytest.mark.parametrize(("score", "heads", "neurons"), [
    # Means of |g|: 1 and 2; 2, 1 and 1.
    ("taylor", ((0, 1), [0, 1, 3]), ((1, 2, 0), [0, 1, 2, 4])),
    # Half of the means of g^2, 5/3 and 6; 4, 1 and 3.
    ("fisher", ((0, 1), [0, 5 / 6, 23 / 6]), ((1, 2, 0), [0, 0.5, 2, 4])),
    # F is [[5, -3], [-3, 18]] / 3, and [[12, 2, -6], [2, 3, 3], [-6, 3, 9]] / 3: to
    # neuron 1, 2 adds 9/6 + 3/3 and 0 adds 12/6 + 2/3; then 0 adds 12/6 + 2/3 - 6/3.
    ("block_fisher", ((0, 1), [0, 5 / 6, 17 / 6]),
     ((1, 2, 0), [0, 1 / 2, 3, 11 / 3])),
])
def test_orders_and_losses_by_hand(monkeypatch, score, heads, neurons):
    monkeypatch.setattr(importance, "mask_gradients",
                        lambda *_: ([HEADS], [NEURONS]))
    found = importance.of(models.build(SHALLOW, HEAD), score, train=())
    for block, (order, loss) in ((found.heads[0], heads), (found.neurons[0], neurons)):
        assert block.order == order
        np.testing.assert_allclose(block.loss, loss, atol=1e-6)


def block_of(monkeypatch, fisher) -> UnitScores:
    """The block whose masks have this Fisher information."""
    found = np.linalg.cholesky(np.asarray(fisher, float)).T * np.sqrt(len(fisher))
    monkeypatch.setattr(importance, "mask_gradients", lambda *_: ([found], [found]))
    return importance.of(models.build(SHALLOW, HEAD), "block_fisher", train=()).heads[0]


def rise(fisher, gone) -> float:
    """The loss without these units: 1_S' F 1_S / 2."""
    return np.asarray(fisher)[np.ix_(gone, gone)].sum() / 2


@pytest.mark.parametrize("seed", range(5))
def test_each_unit_that_goes_costs_least_beside_those_gone(monkeypatch, seed):
    g = np.random.default_rng(seed).normal(size=[20, 6])
    fisher = g.T @ g / 20
    block = block_of(monkeypatch, fisher)
    gone, highest = [], 0.0
    for count, unit in enumerate(block.order):
        left = [u for u in range(6) if u not in gone]
        assert unit == min(left, key=lambda u: rise(fisher, [*gone, u]))
        gone.append(unit)
        highest = max(highest, rise(fisher, gone))
        assert block.loss[count + 1] == pytest.approx(highest)
        # No set of so many is thought to cost more than all that go on the way.
        best = min(rise(fisher, list(s)) for s in itertools.combinations(
            range(6), count + 1))
        assert block.loss[count + 1] >= best - 1e-9
    assert block.loss[1] == pytest.approx(np.diag(fisher).min() / 2)


def test_independent_units_go_in_the_best_way(monkeypatch):
    fisher = np.diag([3.0, 1.0, 2.0, 5.0])
    block = block_of(monkeypatch, fisher)
    assert block.order == (1, 2, 0, 3)
    for count in range(5):
        assert block.loss[count] == pytest.approx(min(
            rise(fisher, list(s)) for s in itertools.combinations(range(4), count)))


def test_of_units_that_do_the_same_one_stays(monkeypatch):
    fisher = [[1, 0.99, 0], [0.99, 1.01, 0], [0, 0, 1.5]]
    block = block_of(monkeypatch, fisher)
    assert block.order == (0, 2, 1)  # by themselves, 0, 1 and 2
    np.testing.assert_allclose(block.loss, [0, 0.5, 1.25, 2.745])


def test_a_loss_that_falls_is_held(monkeypatch):
    fisher = [[1, -0.9, 0], [-0.9, 1, 0], [0, 0, 3]]
    block = block_of(monkeypatch, fisher)
    np.testing.assert_allclose(block.loss, [0, 0.5, 0.5, 1.6])


def test_magnitudes_are_squares_of_the_output_projections_rows():
    model = models.build(SHALLOW, HEAD)
    heads = np.array([4, 1])  # sums of squares, of 4 * 8 weights a head
    neurons = np.array([2, 3, 1])
    for role, squares, own in (("attention_output", heads, 32),
                               ("ffn_output", neurons, 8)):
        layer = model.get_layer(f"layer_0_{role}")
        layer.kernel.assign(np.repeat(np.sqrt(squares / own), own).reshape(
            layer.kernel.shape))
    found = importance.of(model, "magnitude")
    assert (found.heads[0].order, found.neurons[0].order) == ((1, 0), (2, 0, 1))
    np.testing.assert_allclose(found.heads[0].loss, [0, 1, 5], rtol=1e-6)
    np.testing.assert_allclose(found.neurons[0].loss, [0, 1, 3, 6], rtol=1e-6)


def test_what_stays_is_told_ascending():
    block = UnitScores((2, 0, 3, 1), np.zeros(5))
    assert [kept(block, count) for count in range(5)] == [
        (), (1,), (1, 3), (0, 1, 3), (0, 1, 2, 3)]


def test_what_makes_no_sense_is_refused(batches):
    model = models.build(CONFIG, HEAD)
    with pytest.raises(ValueError, match="one of .*Received: score='hessian'"):
        importance.of(model, "hessian", batches)
    with pytest.raises(ValueError, match="'taylor' needs .*Received: train=None"):
        importance.of(model, "taylor")
    thin = LowRank(rank=1, only=("query",)).apply(model, Context()).model
    with pytest.raises(ValueError, match="Received: layer_0_query of type LowRankDen"):
        importance.of(thin, "magnitude")
