"""Cross-entropy of a class a token, with F1 of the entities that classes make up.

The loss of a text is the mean over its tokens that have a target, so that the mean over
a batch is that over its shards on several devices. Entities are counted as
`tasks.entities` does, in operations that XLA compiles.
"""

from __future__ import annotations

from collections.abc import Sequence

from tfopt.backend import keras, tf
from tfopt.train.distill import losses
from tfopt.train.objective import ExampleLoss, Objective


def cross_entropy(tags: Sequence[tuple[str, str]], monitor: tuple[str, str]
                  ) -> Objective:
    """The objective of a class a token.

    Args:
        tags: of each of C classes its first letter, and the type of its entity; without
            them there is accuracy alone.
        monitor: as of `Objective`.
    """
    def metrics():
        own = [EntityF1(tags)] if tags else []
        return [*own, TokenAccuracy(name="token_accuracy")]

    return Objective(loss=lambda: ExampleLoss(hard), metrics=metrics, monitor=monitor,
                     hard_loss=hard, soft_loss=losses.soft, logits=True, target_rank=1)


def hard(logits, classes):
    """The mean cross-entropy of each text's tokens that have a target.

    Args:
        logits: <float>[B, T, C].
        classes: <int>[B, T], or [B] of -1; below 0 where a token has no target.

    Returns:
        <float>[B], 0 where no token has one.
    """
    if classes.shape.rank == 1:
        classes = classes[:, tf.newaxis]
    classes = tf.cast(classes, tf.int32) + tf.zeros_like(logits[..., 0], tf.int32)
    known = tf.cast(classes >= 0, logits.dtype)
    values = tf.nn.sparse_softmax_cross_entropy_with_logits(
        tf.maximum(classes, 0), logits)
    return tf.reduce_sum(values * known, axis=1) / tf.maximum(
        tf.reduce_sum(known, axis=1), 1.0)


def _known(y_true, sample_weight):
    """Which tokens count, <bool>[B, T]."""
    known = y_true >= 0
    if sample_weight is None:
        return known
    weighs = tf.cast(sample_weight, tf.float32) > 0
    return known & (weighs if weighs.shape.rank == 2 else weighs[:, tf.newaxis])


class TokenAccuracy(keras.metrics.Mean):
    """Which part of the tokens that have a target is right."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Takes a batch: classes <int>[B, T], logits <float>[B, T, C], weights."""
        y_true = tf.cast(y_true, tf.int32)
        right = tf.argmax(y_pred, -1, tf.int32) == y_true
        return super().update_state(tf.cast(right, tf.float32), tf.cast(
            _known(y_true, sample_weight), tf.float32))


class EntityF1(keras.metrics.Metric):
    """F1 of entities: right are those of the same first and last token, and type.

    Args:
        tags: of each of C classes its first letter (B, I, E, S or O), and the type of
            its entity.
    """

    def __init__(self, tags: Sequence[tuple[str, str]]):
        super().__init__(name="entity_f1")
        kinds = [kind for kind, _ in tags]
        types = sorted({type_ for _, type_ in tags})
        self._types = [types.index(type_) for _, type_ in tags]
        self._inside = [kind != "O" for kind in kinds]
        self._continuing = [kind in "IE" for kind in kinds]
        self._open = [kind in "BI" for kind in kinds]
        self._counts = self.add_weight("counts", [3], initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Takes a batch: classes <int>[B, T], logits <float>[B, T, C], weights."""
        wanted = tf.cast(y_true, tf.int32)
        known = _known(wanted, sample_weight)
        # Tokens with a target first, in their order: entities are of their classes.
        order = tf.argsort(tf.cast(~known, tf.int32), axis=1, stable=True)
        known, wanted, given = (tf.gather(x, order, axis=1, batch_dims=1) for x in (
            known, wanted, tf.argmax(y_pred, -1, tf.int32)))
        (begins, goes_on), (own, own_on) = (
            self._entities(tf.maximum(classes, 0), known) for classes in (wanted, given)
        )
        types = tf.constant(self._types)
        alike = begins & own & (tf.gather(types, tf.maximum(wanted, 0))
                                == tf.gather(types, given))
        # Where neither goes on, both may begin; what follows, up to the next such
        # place, is alike or one of them ends earlier.
        size = tf.shape(known)
        starts = tf.cast(~goes_on & ~own_on, tf.int32)
        part = tf.cumsum(starts, axis=1) + (
            tf.range(size[0]) * (size[1] + 1))[:, tf.newaxis]
        apart = tf.math.unsorted_segment_sum(
            tf.reshape(tf.cast(goes_on != own_on, tf.int32), [-1]),
            tf.reshape(part, [-1]), size[0] * (size[1] + 1))
        right = alike & (tf.gather(apart, part) == 0)
        self._counts.assign_add(tf.stack([
            tf.reduce_sum(tf.cast(found, self._counts.dtype))
            for found in (right, begins, own)]))

    def result(self):
        """2 right / (wanted + answered); 0 where there are none."""
        right, wanted, answered = tf.unstack(self._counts)
        return tf.math.divide_no_nan(2 * right, wanted + answered)

    def reset_state(self):
        """Forgets all batches."""
        self._counts.assign(tf.zeros([3]))

    def _entities(self, classes, known):
        """Where entities begin, and where they go on: two <bool>[B, T]."""
        def of(facts):
            return tf.gather(tf.constant(facts), classes)

        types = of(self._types)
        goes_on = (of(self._continuing)[:, 1:] & of(self._open)[:, :-1]
                   & (types[:, 1:] == types[:, :-1]) & known[:, 1:])
        goes_on = tf.pad(goes_on, [[0, 0], [1, 0]])
        return of(self._inside) & known & ~goes_on, goes_on
