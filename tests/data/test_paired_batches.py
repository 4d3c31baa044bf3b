"""Pairs stay together whatever the order, and are padded little."""

from __future__ import annotations

import numpy as np
import pytest

from tfopt import data


def encoded(count):
    random = np.random.default_rng(0)
    ids = [[number] * int(random.integers(1, 12)) for number in range(count)]
    return data.Encoded(ids=ids, first_lengths=[len(each) for each in ids])


@pytest.mark.parametrize("seed", [None, 3])
def test_each_pair_is_in_one_batch_side_by_side(seed):
    batches = data.PairedBatches(encoded(22), list(range(22)), batch_size=8,
                                 shuffle_seed=seed)
    seen = []
    for inputs, targets in batches.dataset():
        first = inputs["input_ids"][:, 0].numpy()
        np.testing.assert_array_equal(first, targets)
        np.testing.assert_array_equal(first[::2] + 1, first[1::2])
        assert not np.any(first[::2] % 2)
        seen += first.tolist()
    assert sorted(seen) == list(range(22)) and batches.steps_per_epoch == 3
    assert (seen == list(range(22))) is False


def test_every_epoch_has_an_order_of_its_own_and_the_rest_may_be_dropped():
    batches = data.PairedBatches(encoded(22), None, batch_size=8, shuffle_seed=0,
                                 drop_remainder=True)
    orders = [np.concatenate(batches.epoch_plan(epoch)).tolist() for epoch in (0, 1)]
    assert orders[0] != orders[1] and len(orders[0]) == len(orders[1]) == 16
    assert orders[0] == np.concatenate(batches.epoch_plan(0)).tolist()


@pytest.mark.parametrize("count, size", [(5, 2), (4, 3)])
def test_odd_numbers_are_refused(count, size):
    with pytest.raises(ValueError, match=f"Received: {count} texts, batch_size={size}"):
        data.PairedBatches(encoded(count), None, batch_size=size)
