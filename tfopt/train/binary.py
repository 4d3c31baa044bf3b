"""Several labels an example: (outputs, targets) -> losses and F1, each label by itself.

A sigmoid and a binary cross-entropy a label. From a teacher: Yang et al. 2023,
"Multi-label knowledge distillation", arXiv:2308.06453, equation 2, at a temperature as
Hinton et al. 2015, arXiv:1503.02531, have it. Targets are <int>[B, C + 1]: 0 or 1 of
each label, below 0 where that is not known, and how many labels there are more; or
<int>[B] below 0, where no example has any.
"""

from __future__ import annotations

from collections.abc import Sequence

from tfopt.backend import keras, tf
from tfopt.train.objective import ExampleLoss, Objective


def objective(cuts: Sequence[float]) -> Objective:
    """The mean of the labels' binary cross-entropies, with F1 over all labels.

    Args:
        cuts: ascending logits from which on a label may be answered.
    """
    return Objective(
        loss=lambda: ExampleLoss(hard), metrics=lambda: [BestF1(cuts)],
        monitor=("micro_f1", "higher"), hard_loss=hard, soft_loss=soft, logits=True,
        target_rank=1)


def hard(outputs, targets):
    """The mean over labels of the binary cross-entropies.

    Args:
        outputs: logits <float>[B, C].
        targets: as above; what is not known adds nothing.

    Returns:
        <float>[B].
    """
    wanted, known = _wanted(targets, outputs)
    values = tf.nn.sigmoid_cross_entropy_with_logits(labels=wanted, logits=outputs)
    return tf.reduce_mean(tf.where(known, values, tf.zeros_like(values)), axis=-1)


def soft(outputs, teacher_outputs, temperature: float):
    """T^2 KL(sigmoid(teacher / T) || sigmoid(student / T)), the mean over labels.

    Args:
        outputs: the student's logits <float>[B, C].
        teacher_outputs: <float>[B, C].
        temperature: T, above 0; its square keeps the size of the gradient.

    Returns:
        <float>[B].
    """
    student, teacher = outputs / temperature, teacher_outputs / temperature
    values = tf.add_n([tf.sigmoid(sign * teacher) * (
        tf.math.log_sigmoid(sign * teacher) - tf.math.log_sigmoid(sign * student))
        for sign in (1.0, -1.0)])  # that the label is there, and that it is not
    return temperature ** 2 * tf.reduce_mean(values, axis=-1)


class BestF1(keras.metrics.Metric):
    """F1 of the labels of all examples together, by the best of some thresholds.

    2 TP / (2 TP + FP + FN), or 0. A model that has just begun answers no label with a
    half; its epochs would all be as bad by one fixed threshold.

    Args:
        cuts: K ascending logits from which on a label may be answered.
        name: of the metric.
    """

    def __init__(self, cuts: Sequence[float], name: str = "micro_f1", **options):
        super().__init__(name=name, **options)
        self._cuts = tuple(cuts)
        # Of outputs by how many of the cuts they reach, <float>[K + 1].
        self._answered, self._hits = (
            self.add_weight(part, shape=[len(self._cuts) + 1], initializer="zeros")
            for part in ("answered", "hits"))
        self._total = self.add_weight("wanted", initializer="zeros")

    def reset_state(self):
        """Forgets what was counted."""
        for sums in (self._answered, self._hits, self._total):
            sums.assign(tf.zeros_like(sums))

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Counts a batch.

        Args:
            y_true: targets, as above.
            y_pred: logits <float>[B, C].
            sample_weight: <float>[B]; 0 leaves an example out, any other counts it.
        """
        wanted, known = _wanted(y_true, y_pred)
        counts = tf.cast(known, tf.float32)
        more = tf.nn.relu(tf.cast(y_true, tf.float32)[:, tf.shape(y_pred)[1]:])
        if sample_weight is not None:
            there = tf.cast(tf.reshape(sample_weight, [-1, 1]) > 0, tf.float32)
            counts, more = counts * there, more * there
        wanted = tf.cast(wanted, tf.float32) * counts
        bins = tf.searchsorted(tf.constant(self._cuts, tf.float32), tf.cast(
            tf.reshape(y_pred, [-1]), tf.float32), side="right")
        for sums, values in ((self._answered, counts), (self._hits, wanted)):
            sums.assign_add(tf.math.unsorted_segment_sum(
                tf.reshape(values, [-1]), bins, len(self._cuts) + 1))
        self._total.assign_add(tf.reduce_sum(wanted) + tf.reduce_sum(more))

    def result(self):
        """The fraction."""
        answered, hits = (tf.cumsum(sums[1:], reverse=True)  # <float>[K]
                          for sums in (self._answered, self._hits))
        return tf.reduce_max(tf.math.divide_no_nan(
            2.0 * hits, answered + self._total))


def _wanted(targets, outputs):
    """1 or 0 of each label, in the outputs' type, and whether that is known; [B, C]."""
    if targets.shape.rank == 1:  # no example has any
        targets = targets[:, tf.newaxis]
    rows = targets[:, :tf.shape(outputs)[1]]
    known = rows >= 0
    like = tf.ones_like(outputs)
    return tf.cast(tf.maximum(rows, 0), outputs.dtype) * like, tf.logical_and(
        known, tf.cast(like, tf.bool))
