"""The first examples of a set of batches, for passes that measure before they cut."""

from __future__ import annotations

from collections.abc import Iterator

from tfopt.backend import keras, tf
from tfopt.types import INPUT_NAMES, BatchSource


def read(train: BatchSource, examples: int) -> Iterator[tuple[dict, tf.Tensor]]:
    """Reads so many examples, rounded up to whole batches.

    Args:
        train: batches of inputs; with class ids, a teacher's logits beside them, or
            without either.
        examples: how many.

    Yields:
        The inputs of a batch, and class ids <int32>[B], -1 where there is none.
    """
    count = 0
    for batch in train.dataset():
        inputs, labels = batch if isinstance(batch, tuple) else (batch, None)
        if isinstance(labels, tuple):  # beside the labels, a teacher's logits
            labels = labels[0]
        size = len(inputs[INPUT_NAMES[0]])
        yield inputs, tf.cast(tf.fill([size], -1) if labels is None else labels,
                              tf.int32)
        count += size
        if count >= examples:
            return


def judged(model: keras.Model, train: BatchSource, examples: int) -> list:
    """Reads examples for `mean_loss`.

    Args:
        model: tells the class of those without a label.
        train: as of `read`.
        examples: how many, rounded up to whole batches.

    Returns:
        Batches of (inputs, class ids <int32>[B]).
    """
    found = []
    for inputs, class_ids in read(train, examples):
        guesses = tf.argmax(model(inputs, training=False), 1, tf.int32)
        found.append((inputs, tf.where(class_ids < 0, guesses, class_ids)))
    return found


def mean_loss(model: keras.Model, examples: list) -> float:
    """The mean cross-entropy of what `judged` read."""
    # Not as a tf.function: to trace each of so many models would take longer.
    losses = [tf.nn.sparse_softmax_cross_entropy_with_logits(
        class_ids, model(inputs, training=False)) for inputs, class_ids in examples]
    return float(tf.reduce_mean(tf.concat(losses, axis=0)))


def summed_loss(logits: tf.Tensor, class_ids: tf.Tensor) -> tf.Tensor:
    """The cross-entropy summed over a batch; without a label, of the class it gives."""
    labels = tf.where(class_ids < 0, tf.argmax(logits, 1, tf.int32), class_ids)
    return tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels, tf.cast(logits, tf.float32)))
