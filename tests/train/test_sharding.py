"""Each replica gets its rows of the same batch, and reads without asking for more."""

from __future__ import annotations

import numpy as np
import pytest

from tfopt.backend import tf
from tfopt.train.distribute import sharding, strategy


def rows(lengths=(4, 4, 2)):
    """Batches of ({"x": rows of one number more each}, labels)."""
    starts = np.cumsum([0, *lengths])

    def batches():
        for start, end in zip(starts, starts[1:], strict=False):
            x = np.arange(start, end, dtype=np.int32)
            yield {"x": np.stack([x] * (int(start) + 1), 1)}, x

    return tf.data.Dataset.from_generator(batches, output_signature=(
        {"x": tf.TensorSpec([None, None], tf.int32)}, tf.TensorSpec([None], tf.int32)))


@pytest.fixture
def both():
    return strategy.make("mirrored")


def test_replicas_share_a_batch_in_its_order(both):
    iterator = iter(sharding.of(rows(), 4, both))
    for expected, weights in (
            ([0, 1, 2, 3], [1, 1, 1, 1]), ([4, 5, 6, 7], [1, 1, 1, 1]),
            ([8, 9, 8, 9], [2, 2, 0, 0])):
        inputs, labels, weighs = tf.nest.map_structure(
            lambda x: np.concatenate(both.experimental_local_results(x)),
            next(iterator))
        np.testing.assert_array_equal(labels, expected)
        np.testing.assert_array_equal(inputs["x"][:, 0], expected)
        np.testing.assert_array_equal(weighs, weights)


def test_no_replica_is_asked_whether_there_is_another_batch(both):
    """It costs a wait for the device a step, in a graph; so here none is in it."""
    distributed = sharding.of(rows(), 4, both)
    read = tf.function(lambda iterator: next(iterator)).get_concrete_function(
        iter(distributed))
    operations = {node.op for node in read.graph.as_graph_def().node}
    assert "IteratorGetNext" in operations
    assert not operations & {"OptionalHasValue", "If", "StatelessIf"}


def test_a_strategy_is_left_as_it_was(both):
    def split(dataset):
        return [both.experimental_local_results(x)[0].numpy().tolist()
                for x in both.experimental_distribute_dataset(dataset)]

    whole = tf.data.Dataset.range(8).batch(4)
    before = split(whole)
    sharding.of(rows(), 4, both)
    assert split(whole) == before == [[0, 1], [4, 5]]


def test_a_batch_that_ends_within_its_replicas_is_refused():
    with pytest.raises(ValueError, match="a multiple of the 2 replicas.*batch_size=5"):
        sharding.check_divides(5, 2)
