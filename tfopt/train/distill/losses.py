"""The losses of a distillation: (student, teacher) -> a number for each example.

Hinton et al. 2015, arXiv:1503.02531, for logits; Xia et al. 2022, "CoFi",
arXiv:2204.00408, equation 3, for hidden states; Wang et al. 2021, "MiniLMv2",
arXiv:2012.15828, equations 6 to 8, for relations. Each gives <float>[B], so that the
mean over a batch is that over its shards on several devices. R are relation heads.
"""

from __future__ import annotations

from collections.abc import Sequence

from tfopt.backend import tf

# Added to the score of a hidden position: e^-10000 is 0 in float32.
_HIDDEN_SCORE = -1e4


def hard(logits, class_ids):
    """Cross-entropy with the labels.

    Args:
        logits: the student's <float>[B, C].
        class_ids: <int32>[B]; below 0 where an example has no label.

    Returns:
        <float>[B], 0 without a label.
    """
    values = tf.nn.sparse_softmax_cross_entropy_with_logits(
        tf.maximum(class_ids, 0), logits)
    return tf.where(class_ids >= 0, values, 0.0)


def soft(logits, teacher_logits, temperature: float):
    """T^2 KL(softmax(teacher / T) || softmax(student / T)).

    Args:
        logits: the student's <float>[..., C].
        teacher_logits: <float>[..., C].
        temperature: T, above 0; its square keeps the size of the gradient.

    Returns:
        <float>[...].
    """
    return temperature ** 2 * _divergence(
        tf.nn.log_softmax(teacher_logits / temperature),
        tf.nn.log_softmax(logits / temperature))


def distance(states, teacher_states, visible):
    """Mean square of what lies between hidden states, over visible tokens.

    Args:
        states: <float>[B, T, D].
        teacher_states: of the same shape.
        visible: <float>[B, T], 1 where a token is, 0 on padding.

    Returns:
        <float>[B].
    """
    return token_mean(tf.reduce_mean(
        tf.math.squared_difference(states, teacher_states), axis=-1), visible)


def evenly(num_layers: int, teacher_layers: int) -> list[int]:
    """The teacher's layer, from 0, that each layer of a student follows.

    The last follows the last, the others at even steps: of 6 after 12, the second,
    fourth, and so on.
    """
    return [max(0, round(layer * teacher_layers / num_layers) - 1)
            for layer in range(1, num_layers + 1)]


def nearest(states: Sequence, teacher_states: Sequence, visible):
    """For each state of the teacher, the distance of the student's nearest layer.

    Nearest on the mean of the batch (of each device's shard of it), chosen anew in each
    step.

    Args:
        states: of each layer of the student <float>[B, T, D].
        teacher_states: as many as are to be followed.
        visible: <float>[B, T].

    Returns:
        Distances, <float>[B] for each of `teacher_states`.
    """
    found = []
    for teacher in teacher_states:
        distances = tf.stack([distance(state, teacher, visible) for state in states])
        best = tf.argmin(tf.reduce_mean(distances, axis=1), output_type=tf.int32)
        found.append(tf.gather(distances, best))
    return found


def relation(first, second, heads: int, visible):
    """Log of softmax(A B^T / sqrt(width of a head)), each token to all others.

    Args:
        first: A <float>[B, T, N], such as queries; `heads` divides N.
        second: B, of the same shape.
        heads: R.
        visible: <float>[B, T].

    Returns:
        <float>[B, R, T, T].
    """
    width = first.shape[-1] // heads

    def split(x):  # [B, T, N] -> [B, R, T, N / R]
        x = tf.reshape(x, [tf.shape(x)[0], -1, heads, width])
        return tf.transpose(x, [0, 2, 1, 3])

    scores = tf.matmul(split(first), split(second), transpose_b=True) * width ** -0.5
    return tf.nn.log_softmax(
        scores + ((1.0 - visible) * _HIDDEN_SCORE)[:, tf.newaxis, tf.newaxis])


def relation_loss(log_relation, teacher_log_relation, visible):
    """KL(teacher || student) of relations, mean over heads and visible tokens.

    Args:
        log_relation: the student's <float>[B, R, T, T].
        teacher_log_relation: of the same shape.
        visible: <float>[B, T].

    Returns:
        <float>[B].
    """
    return token_mean(tf.reduce_mean(
        _divergence(teacher_log_relation, log_relation), axis=1), visible)


def _divergence(log_teacher, log_student):
    """KL(teacher || student) over the last axis."""
    return tf.reduce_sum(tf.exp(log_teacher) * (log_teacher - log_student), axis=-1)


def token_mean(values, visible):
    """The mean over visible tokens: <float>[B, T] -> <float>[B]."""
    return tf.reduce_sum(values * visible, axis=1) / tf.reduce_sum(visible, axis=1)
