"""Scores by hand, and what a wrapped layer gathers while it trains."""

from __future__ import annotations

import numpy as np
import pytest

from tfopt.backend import keras, tf
from tfopt.compress.passes.fisher import Fisher
from tfopt.compress.passes.magnitude import Magnitude
from tfopt.compress.passes.movement import Movement
from tfopt.compress.passes.taylor import Taylor
from tfopt.compress.pruning.masked_layer import wrappers_of
from tfopt.compress.pruning.scores import SCORES

W = np.array([[2.0, -3.0], [0.5, 4.0]], np.float32)
RATE = 0.1
X = np.array([[1.0, 2.0]], np.float32)
# The loss sum(x W) has the gradient x in each column.
G = np.array([[1.0, 1.0], [2.0, 2.0]], np.float32)


def train(kind, steps, sparsity=0.5, begin=1000):
    """Steps of SGD of sum(x W) from W: the wrapper after them."""
    model = keras.Sequential([keras.Input([2]), keras.layers.Dense(2, use_bias=False,
                                                                   name="only")])
    model.set_weights([W])
    pruning = kind(final_sparsity=sparsity, begin_step=begin, end_step=begin)
    wrapped = pruning.wrap(model)
    wrapped.compile(keras.optimizers.SGD(RATE), loss=lambda _, y: tf.reduce_sum(y, -1))
    wrapped.fit(X, np.zeros([1, 2]), epochs=steps, verbose=0,
                callbacks=pruning.callbacks())
    return wrappers_of(wrapped)["only"]


def test_magnitude_gathers_nothing():
    wrapper = train(Magnitude, 1)
    assert wrapper.gathered is None
    np.testing.assert_allclose(wrapper.scores(), np.abs(W - RATE * G), rtol=1e-6)


@pytest.mark.parametrize("kind,after_two_steps", [
    (Movement, -W * G - (W - RATE * G) * G),
    (Taylor, 0.01 * (0.99 * np.abs(W * G) + np.abs((W - RATE * G) * G))),
    (Fisher, 0.5 * (W - 2 * RATE * G) ** 2 * 0.01 * (0.99 + 1) * G ** 2),
])
def test_two_steps_by_hand(kind, after_two_steps):
    np.testing.assert_allclose(train(kind, 2).scores(), after_two_steps, rtol=1e-5)


def test_pruned_weights_keep_their_value_and_gather_on():
    """Movement -W G is [[-2, 3], [-1, -8]]: the first and last go after step 1."""
    wrapper = train(Movement, 3, begin=1)
    np.testing.assert_array_equal(wrapper.mask, [[0, 1], [1, 0]])
    first = W - RATE * G
    np.testing.assert_allclose(wrapper.kernel.numpy()[[0, 1], [0, 1]],
                               first[[0, 1], [0, 1]])
    gone = -W * G - 2 * first * G  # the value stands still, the sum goes on
    np.testing.assert_allclose(wrapper.scores()[[0, 1], [0, 1]], gone[[0, 1], [0, 1]],
                               rtol=1e-5)


def test_every_score_has_its_pass():
    kinds = (Magnitude, Movement, Taylor, Fisher)
    assert set(SCORES) == {kind.score for kind in kinds}
    assert set(SCORES) == {kind.name() for kind in kinds}
