"""The first examples of a set of batches, for passes that measure before they cut."""

from __future__ import annotations

from collections.abc import Iterator

from tfopt.backend import keras, tf
from tfopt.tasks.base import Task
from tfopt.tasks.classification import Classification
from tfopt.types import INPUT_NAMES, BatchSource


def read(train: BatchSource, samples: int) -> Iterator[tuple[dict, tf.Tensor]]:
    """Reads samples, rounded up to whole batches.

    Args:
        train: batches of inputs; with targets, a teacher's logits beside them, or
            without either.
        samples: how many.

    Yields:
        The inputs of a batch, and targets <int32>[B, ...] or <float32>[B, ...], -1 or
        NaN where there is none; <int32>[B] of -1 where the batches have none at all.
    """
    count = 0
    for batch in train.dataset():
        inputs, targets = batch if isinstance(batch, tuple) else (batch, None)
        if isinstance(targets, tuple):  # beside the targets, a teacher's logits
            targets = targets[0]
        size = len(inputs[INPUT_NAMES[0]])
        if targets is None:
            targets = tf.fill([size], -1)
        whole = tf.as_dtype(targets.dtype).is_integer
        yield inputs, tf.cast(targets, tf.int32) if whole else targets
        count += size
        if count >= samples:
            return


def with_targets(model: keras.Model, train: BatchSource, samples: int,
                 task: Task = Classification()) -> list:  # noqa: B008
    """Reads samples for `mean_loss`.

    Args:
        model: whose guess is the target of those without one.
        train: as of `read`.
        samples: how many, rounded up to whole batches.
        task: of the model.

    Returns:
        Batches of (inputs, targets).
    """
    return [(inputs, task.with_guesses(model(inputs, training=False), targets,
                                       **seen_by(task, inputs)))
            for inputs, targets in read(train, samples)]


def seen_by(task: Task, inputs: dict) -> dict[str, tf.Tensor]:
    """What the loss of a task of tokens wants beside outputs and targets.

    Args:
        task: whose loss it is.
        inputs: of a batch.

    Returns:
        {"visible": <int32>[B, T]}; nothing for a task whose outputs are of whole texts.
    """
    return {"visible": inputs[INPUT_NAMES[1]]} if task.per_token else {}


def mean_loss(model: keras.Model, samples: list,
              task: Task = Classification()) -> float:  # noqa: B008
    """The mean loss on what `with_targets` read."""
    # Not as a tf.function: to trace each of the many models would take longer.
    losses = [task.example_loss(model(inputs, training=False), targets)
              for inputs, targets in samples]
    return float(tf.reduce_mean(tf.concat(losses, axis=0)))
