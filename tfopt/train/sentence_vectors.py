"""Vectors of texts, two and two -> cosines, the losses on them, and their Spearman.

The texts of a pair are rows next to each other: 0 and 1, 2 and 3, and so on. The loss
is the squared error of a pair's cosine (Reimers and Gurevych 2019, "Sentence-BERT",
arXiv:1908.10084, section 3, regression objective); a teacher's vectors are followed as
in Reimers and Gurevych 2020, arXiv:2004.09813, by direction alone.
"""

from __future__ import annotations

import numpy as np

from tfopt.backend import keras, tf
from tfopt.types import is_labelled

_MOST_PAIRS = 4096  # that the metric keeps
# Of the signs of `probe`: so many turns for a change of 1 that no two texts share them.
_TURNS = 1e3


def unit(vectors):
    """Vectors of length 1: <float>[B, D] -> <float32>[B, D]."""
    return tf.math.l2_normalize(tf.cast(vectors, tf.float32), axis=-1)


def cosines(vectors):
    """The cosine of each row with its pair's other row.

    The other row is a constant to the gradient: a row's number moves that row alone,
    and of a pair both are moved.

    Args:
        vectors: <float>[B, D].

    Returns:
        <float32>[B]; of a last row without another one 1.
    """
    rows = unit(vectors)
    return tf.reduce_sum(rows * tf.stop_gradient(tf.gather(rows, _others(rows))), -1)


def pair_loss(vectors, scores):
    """Squared error of the cosines.

    Args:
        vectors: <float>[B, D].
        scores: <float>[B] in [0, 1], the same for both rows of a pair; NaN, or below 0
            where they are whole numbers, for none.

    Returns:
        <float32>[B], 0 without a score.
    """
    known, scores = _known(vectors, scores)
    found = cosines(vectors)
    # Replaced before it is squared: a gradient of NaN would spoil the others'.
    return (found - tf.where(known, scores, tf.stop_gradient(found))) ** 2


def direction_loss(vectors, others):
    """1 - cosine of each row with that of others: <float>[B, D] twice -> [B].

    It is half the square of what lies between the vectors of length 1.
    """
    return 0.5 * tf.reduce_sum((unit(vectors) - unit(others)) ** 2, axis=-1)


def probe(vectors):
    """A loss whose gradient shows by how much a vector is changed, with no target.

    With e of signs by chance, E[(e'J)'(e'J)] = J'J for the Jacobian J of the vector
    (Hutchinson 1990, as traces are estimated): the mean square of the gradient of half
    the squared distance to v + e is the squared change of the vector. At v itself the
    gradient would be 0. The signs are of each text's own and the same at each call.

    Args:
        vectors: <float>[B, D].

    Returns:
        <float32>[B].
    """
    rows = unit(vectors)
    width = rows.shape[-1]
    mixed = tf.matmul(rows, tf.random.stateless_normal([width, width], seed=[1, 2]))
    signs = tf.where(tf.sin(_TURNS * mixed) < 0, -1.0, 1.0)
    return 0.5 * tf.reduce_sum(
        (rows - tf.stop_gradient(rows + signs)) ** 2, axis=-1)


def _others(rows):
    """The place of each row's other one <int32>[B]; a last row alone is its own."""
    count = tf.shape(rows)[0]
    places = tf.range(count)
    return tf.minimum(places + 1 - 2 * (places % 2), count - 1)


def _known(vectors, scores):
    """Which rows have a score and another row <bool>[B]; scores <float32>[B]."""
    scores = tf.reshape(scores, [-1])
    count = tf.shape(vectors)[0]
    known = is_labelled(scores) & (tf.range(count) < count - count % 2)
    return known, tf.cast(scores, tf.float32)


class Spearman(keras.metrics.Metric):
    """Spearman's correlation of scores and cosines; of equal numbers the mean rank.

    It is of the last 4,096 pairs: a compiled step wants arrays of one size.

    Args:
        name: of the metric.
    """

    def __init__(self, name: str = "spearman"):
        super().__init__(name=name)
        # Each replica has places of its own, and 0 in the others': summed over
        # replicas, as Keras does, they are all of them.
        self._replicas = tf.distribute.get_strategy().num_replicas_in_sync
        self._places = -(-_MOST_PAIRS // self._replicas) * self._replicas
        self._cosines, self._scores, self._there = (
            self.add_weight(name=part, shape=[self._places + 1], initializer="zeros")
            for part in ("cosines", "scores", "there"))
        self._count = self.add_weight(name="count", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Takes pairs in.

        Args:
            y_true: scores <float>[B], as of `pair_loss`.
            y_pred: vectors <float>[B, D].
            sample_weight: <float>[B], 0 for pairs that do not count; None counts all.
        """
        known, scores = _known(y_pred, y_true)
        if sample_weight is not None:
            known &= tf.reshape(sample_weight, [-1]) > 0
        known &= tf.gather(known, _others(y_pred))  # as of a last pair that is cut
        known, scores, found = known[::2], scores[::2], cosines(y_pred)[::2]
        context = tf.distribute.get_replica_context()
        own = 0 if context is None else context.replica_id_in_sync_group
        numbers = tf.cast(self._count, tf.int32) + tf.cumsum(
            tf.cast(known, tf.int32)) - 1
        places = (numbers * self._replicas + own) % self._places
        places = tf.where(known, places, self._places)[:, tf.newaxis]
        for variable, values in ((self._cosines, found), (self._scores, scores),
                                 (self._there, tf.ones_like(found))):
            variable.assign(tf.tensor_scatter_nd_update(
                tf.convert_to_tensor(variable), places, values))
        self._count.assign_add(tf.reduce_sum(tf.cast(known, tf.float32)))

    def reset_state(self):
        """Forgets all pairs."""
        keras.backend.batch_set_value([
            (variable, np.zeros(variable.shape, np.float32))
            for variable in self.variables])

    def result(self):
        """The correlation, in [-1, 1]; 0 where one side has but one value."""
        there = self._there[:-1]
        ranks = [_ranks(values[:-1], there) for values in (self._cosines, self._scores)]
        count = tf.maximum(tf.reduce_sum(there), 1.0)
        x, y = (there * (rank - tf.reduce_sum(there * rank) / count) for rank in ranks)
        return tf.math.divide_no_nan(
            tf.reduce_sum(x * y),
            tf.sqrt(tf.reduce_sum(x * x) * tf.reduce_sum(y * y)))


def _ranks(values, there):
    """Ranks <float32>[N] among those that are there, from 0; of equal ones the mean."""
    ordered = tf.sort(tf.where(there > 0, values, values.dtype.max))
    sides = [tf.searchsorted(ordered, values, side=side) for side in ("left", "right")]
    return (tf.cast(sides[0] + sides[1], tf.float32) - 1.0) / 2
