"""Each term of a distillation, against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tfopt.backend import tf
from tfopt.train.distill import losses

LOG = np.log
VISIBLE = tf.constant([[1.0, 1.0, 0.0]])  # the third token is padding


def test_hard_is_cross_entropy_and_nothing_without_a_label():
    logits = tf.constant(LOG([[0.2, 0.8], [0.2, 0.8]]), tf.float32)
    np.testing.assert_allclose(losses.hard(logits, tf.constant([0, -1])),
                               [-LOG(0.2), 0.0], rtol=1e-6)


def test_no_label_gives_no_gradient():
    logits = tf.Variable([[1.0, -1.0], [1.0, -1.0]])
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(losses.hard(logits, tf.constant([0, -1])))
    gradient = tape.gradient(value, logits).numpy()
    assert np.abs(gradient[0]).min() > 0.1
    np.testing.assert_array_equal(gradient[1], 0.0)


def test_soft_is_the_divergence_times_the_square_of_the_temperature():
    # Divided by 2, log(1), log(9) are the odds 1 : 3, and equal logits 1 : 1.
    teacher = tf.constant(LOG([[1.0, 9.0]]), tf.float32)
    student = tf.constant([[5.0, 5.0]])
    expected = 4 * (0.25 * LOG(0.25 / 0.5) + 0.75 * LOG(0.75 / 0.5))
    np.testing.assert_allclose(losses.soft(student, teacher, 2.0), [expected],
                               rtol=1e-5)
    np.testing.assert_allclose(losses.soft(teacher, teacher, 2.0), [0.0], atol=1e-7)


def test_distance_is_the_mean_square_over_visible_tokens():
    student = tf.constant([[[1.0, 2.0], [0.0, 0.0], [9.0, 9.0]]])
    teacher = tf.constant([[[1.0, 0.0], [3.0, 1.0], [0.0, 0.0]]])
    # (0 + 4) / 2 and (9 + 1) / 2, of which the mean is 3.5; the third is hidden.
    np.testing.assert_allclose(losses.distance(student, teacher, VISIBLE), [3.5])


@pytest.mark.parametrize("student, teacher, expected", [
    (6, 12, [1, 3, 5, 7, 9, 11]), (3, 6, [1, 3, 5]), (2, 2, [0, 1]), (1, 4, [3]),
    (4, 2, [0, 0, 1, 1]), (2, 3, [1, 2])])
def test_layers_follow_at_even_steps(student, teacher, expected):
    assert losses.evenly(student, teacher) == expected


def test_nearest_takes_each_teachers_layer_to_the_nearest_of_the_batch():
    def states(*values):  # one token, one channel, two examples
        return [tf.constant(v, tf.float32)[:, None, None] for v in values]

    # Squares to (0, 0): 1, 0 for the first layer, mean 0.5; 4, 4 for the second. To
    # (3, 3): 4, 9 and 1, 1.
    found = losses.nearest(states([1, 0], [2, 2]), states([0, 0], [3, 3]),
                          tf.ones([2, 1]))
    np.testing.assert_allclose(found, [[1, 0], [1, 1]])


def test_a_relation_is_a_softmax_over_visible_tokens_for_each_head():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 1, 3, 4)).astype(np.float32)
    found = np.exp(losses.relation(tf.constant(a), tf.constant(b), 2, VISIBLE))
    assert found.shape == (1, 2, 3, 3)
    for head in range(2):
        part = slice(2 * head, 2 * head + 2)
        scores = np.exp(a[0, :, part] @ b[0, :, part].T / np.sqrt(2))[:, :2]
        np.testing.assert_allclose(found[0, head, :, :2],
                                   scores / scores.sum(1, keepdims=True), rtol=1e-5)
        np.testing.assert_array_equal(found[0, head, :, 2], 0.0)


def test_relation_loss_is_the_mean_divergence_of_heads_and_visible_tokens():
    def logs(*rows):
        return tf.constant(LOG(np.array(rows))[None, :, None], tf.float32)

    # Two heads, the one visible of two tokens: KL 0 and 0.5 log 2 + 0.5 log(2/3).
    teacher = tf.tile(logs([0.5, 0.5], [0.5, 0.5]), [1, 1, 2, 1])
    student = tf.tile(logs([0.5, 0.5], [0.25, 0.75]), [1, 1, 2, 1])
    expected = 0.5 * (0.5 * LOG(2.0) + 0.5 * LOG(2 / 3))
    np.testing.assert_allclose(
        losses.relation_loss(student, teacher, tf.constant([[1.0, 0.0]])), [expected],
        rtol=1e-5)
