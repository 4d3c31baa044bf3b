"""Masks that an accelerator chooses are those that the host would."""

from __future__ import annotations

import numpy as np
import pytest

from tfopt import model
from tfopt.backend import tf
from tfopt.compress.passes.fisher import Fisher
from tfopt.compress.passes.magnitude import Magnitude
from tfopt.compress.passes.taylor import Taylor
from tfopt.compress.pruning import masked_layer
from tfopt.compress.pruning.masked_layer import set_masks, wrappers_of

CONFIG = model.EncoderConfig.uniform(
    hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32, vocab_size=50,
    max_positions=16, initializer_range=0.2)


@pytest.fixture
def accelerator(monkeypatch):
    monkeypatch.setattr(masked_layer, "accelerated", lambda: True)


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize("kind", [Magnitude, Taylor, Fisher])
@pytest.mark.parametrize("step,fields", [
    (4, {}), (9, {}), (9, {"sparsities": {"query": 0.25, "value": 0.0}}),
    (9, {"allocation": "erdos_renyi_kernel"})])
def test_masks_are_the_hosts(kind, step, fields):
    pruning = kind(final_sparsity=0.7, begin_step=1, end_step=9, frequency=1, **fields)
    wrapped = pruning.wrap(model.build(CONFIG))
    wrappers = wrappers_of(wrapped)
    random = np.random.default_rng(0)
    for one in wrappers.values():
        if one.gathered is not None:
            one.gathered.assign(random.random(one.kernel.shape))
    expected = pruning.choose_masks(
        {name: one.scores() for name, one in wrappers.items()}, step)
    set_masks(wrappers, None, step, pruning.count_zeros)  # no chooser is asked
    assert {name for name in expected} == set(wrappers)
    for name, one in wrappers.items():
        np.testing.assert_array_equal(one.mask.numpy(), expected[name])
        assert 0 < np.mean(expected[name] == 0) < 1


@pytest.mark.parametrize("zeros,expected", [
    (0, [1, 1, 1, 1, 1, 1]), (1, [1, 1, 0, 1, 1, 1]), (2, [0, 1, 0, 1, 1, 1]),
    (3, [0, 0, 0, 1, 1, 1]), (4, [0, 0, 0, 0, 1, 1]), (5, [0, 0, 0, 0, 0, 1])])
def test_of_equal_weights_as_many_go_as_are_asked_for(zeros, expected):
    weights = np.array([[2, -2], [1, 2], [3, -4]], np.float32)
    # Of two kernels at once, each by itself.
    found, other = masked_layer._chosen([weights, -weights[::-1]], [], tf.constant(
        [zeros, 6 - zeros]), "magnitude")
    np.testing.assert_array_equal(found.numpy().ravel(), expected)
    assert np.sum(other == 0) == 6 - zeros


def test_signed_scores_are_told_apart_and_both_zeros_are_one():
    scores = np.array([[-3.0, 0.0], [-0.0, 5.0], [-1e-30, 1e30]], np.float32)
    for zeros, expected in ((2, [0, 1, 1, 1, 0, 1]), (3, [0, 0, 1, 1, 0, 1]),
                            (4, [0, 0, 0, 1, 0, 1]), (6, [0] * 6)):
        found, = masked_layer._chosen([np.ones_like(scores)], [scores],
                                 tf.constant([zeros]), "movement")
        np.testing.assert_array_equal(found.numpy().ravel(), expected)


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize("fields", [
    {"pattern": "2:4"}, {"pattern": "4x1", "final_sparsity": 0.5},
    {"allocation": "global", "final_sparsity": 0.5}])
def test_what_is_more_than_a_count_is_left_to_the_host(fields):
    pruning = Magnitude(begin_step=0, end_step=2, frequency=1, **fields)
    wrappers = wrappers_of(pruning.wrap(model.build(CONFIG)))
    assert pruning.count_zeros(wrappers, 2) is None
    set_masks(wrappers, pruning.choose_masks, 2, pruning.count_zeros)
    zeros = np.concatenate([one.mask.numpy().ravel() == 0 for one in wrappers.values()])
    assert np.mean(zeros) == pytest.approx(0.5, abs=1e-3)


def test_without_an_accelerator_the_host_chooses():
    asked = []
    pruning = Magnitude(final_sparsity=0.5, begin_step=0, end_step=2)
    wrappers = wrappers_of(pruning.wrap(model.build(CONFIG)))

    def choose(scores, step):
        asked.append(step)
        return pruning.choose_masks(scores, step)

    set_masks(wrappers, choose, 2, pruning.count_zeros)
    assert asked == [2]
