"""What several workers must agree on, since each computes the same steps by itself.

A worker that goes another way than the others leaves them waiting in a sum that never
comes. So what could differ is compared before.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Sequence

import numpy as np

from tfopt.backend import tf
from tfopt.train.distribute import cluster


def count(strategy: tf.distribute.Strategy) -> int:
    """How many processes compute the same steps."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    found = cluster.read()
    return 1 if found is None else found.workers


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one of the workers that writes."""
    found = cluster.read()
    return count(strategy) == 1 or found is None or found.is_chief


def numbers(strategy: tf.distribute.Strategy, own: int) -> np.ndarray:
    """What each replica's process says.

    Args:
        strategy: under which all workers call this at the same point.
        own: this process's number, an int32.

    Returns:
        <int32>[replicas].
    """
    said = _talk(strategy)(tf.constant(own, tf.int32))
    return strategy.experimental_local_results(said)[0].numpy()


@functools.cache
def _talk(strategy):
    """A number of each -> those of all; traced once."""
    return tf.function(lambda own: strategy.run(of_all_replicas, args=(own,)))


def of_all_replicas(own: tf.Tensor) -> tf.Tensor:
    """What each replica has, [...] -> [replicas, ...]; to be called within a replica.

    By a sum with a place for each replica: XLA and NCCL have it, and no other talk.
    """
    context = tf.distribute.get_replica_context()
    places = tf.range(context.num_replicas_in_sync)
    here = tf.reshape(places == context.replica_id_in_sync_group,
                      [-1, *[1] * own.shape.rank])
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(
        here, own[tf.newaxis], tf.zeros([], own.dtype)))


def wait(strategy: tf.distribute.Strategy) -> None:
    """Waits until all workers have come here."""
    if count(strategy) > 1:
        numbers(strategy, 0)


def chiefs_word(strategy: tf.distribute.Strategy, yes: bool) -> bool:
    """What the chief says, at all workers; there must be several."""
    return bool(numbers(strategy, int(yes and is_chief(strategy))).any())


def chiefs_numbers(strategy: tf.distribute.Strategy, own: Sequence[float]
                   ) -> tuple[float, ...]:
    """Numbers that the chief has measured, at all workers; in float32 if several.

    Args:
        strategy: under which all workers call this at the same point.
        own: at the chief its numbers, from 0; at the others as many of any kind.
    """
    if count(strategy) == 1:
        return tuple(own)
    chief = is_chief(strategy)
    # As integers, floats from 0 are in the same order, and the others' are 0.
    bits = [numbers(strategy, int(np.float32(value if chief else 0.0).view(np.int32)))
            for value in own]
    return tuple(float(found.max().view(np.float32)) for found in bits)


def check_same(strategy: tf.distribute.Strategy, text: str, rule: str,
               received: str | None = None) -> None:
    """Checks that all workers hold the same text.

    Args:
        strategy: under which all workers call this at the same point.
        text: this worker's.
        rule: the error's sentence.
        received: what to show of the text; None for all of it.

    Raises:
        ValueError: they do not; at every worker.
    """
    if count(strategy) == 1:
        return
    own = zlib.crc32(text.encode()) & 0x7FFFFFFF
    found = numbers(strategy, own)
    if np.any(found != own):
        raise ValueError(f"{rule} Received: here {received or text}; of "
                         f"{len(found)} replicas {np.sum(found != own)} have another")
