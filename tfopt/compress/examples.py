"""The first examples of a set of batches, for passes that measure before they cut."""

from __future__ import annotations

from collections.abc import Iterator

from tfopt.backend import tf
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
