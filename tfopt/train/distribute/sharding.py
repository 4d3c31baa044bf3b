"""A batch -> the replicas' shards of it, equal in size.

Keras would split a batch that the replicas do not divide unevenly, and take the mean of
unequal shards; and of several workers each would read batches of its own, padded to
another length. Here all see the same batches, and each replica takes its rows. A last,
smaller batch is filled up with rows of its own, which weigh nothing, while the others
weigh more, so that the mean stays that of the batch: training as on one device, on any
devices, and shapes that XLA compiles once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tfopt.backend import tf

# Each device reads for itself, and cuts out its rows. Where one reads for all, a batch
# waits twice for its device to be idle: none is there in time for the step after next.
_BY_DEVICE = tf.distribute.InputOptions(
    experimental_fetch_to_device=False,
    experimental_replication_mode=tf.distribute.InputReplicationMode.PER_REPLICA,
    experimental_place_dataset_on_device=True)
# Rows without a target, where a batch has none at all, as `data.Batches` has them.
_NO_TARGET = -1


def check_divides(batch_size: int, replicas: int) -> None:
    """Checks that every replica gets as many examples of a batch.

    Raises:
        ValueError: they do not.
    """
    if batch_size % replicas:
        raise ValueError(f"A batch must be a multiple of the {replicas} replicas. "
                         f"Received: batch_size={batch_size}")


def of(dataset: tf.data.Dataset, batch_size: int, strategy: tf.distribute.Strategy,
       mean: bool = True):
    """Cuts batches into the shards of a strategy's replicas.

    Args:
        dataset: of inputs, or (inputs, targets), of up to `batch_size` rows each.
        batch_size: B, a multiple of the replicas.
        strategy: of which replicas.
        mean: whether rows of a smaller batch weigh so much more that a sum over rows
            divided by B is their mean; else each weighs 1.

    Returns:
        A distributed dataset of (inputs, targets), or (inputs, targets, weights) where
        batches may be smaller; for one replica, a dataset of whole batches.
    """
    gpus = tf.config.list_logical_devices("GPU")

    def prepare(*batch):
        filled = _fill(batch, batch_size, mean)
        # TensorFlow takes each int32 back to the host where a function is called, and
        # waits for it; models cast what they are given.
        return tf.nest.map_structure(_wide, filled) if gpus else filled

    dataset = dataset.map(prepare, num_parallel_calls=2)
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return (dataset.apply(tf.data.experimental.prefetch_to_device(gpus[0].name, 4))
                if gpus else dataset.prefetch(4))

    devices = strategy.extended.worker_devices
    by_device = isinstance(strategy, tf.distribute.MirroredStrategy)

    def own(context):
        local = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * local

        def cut(*batch):  # [B, ...] -> [local, B / replicas, ...]
            return tf.nest.map_structure(
                lambda x: tf.reshape(x, [replicas, batch_size // replicas,
                                         *tf.unstack(tf.shape(x))[1:]]
                                     )[first:first + local], batch)

        def as_before(*shard):
            return tf.nest.map_structure(
                lambda x, spec: tf.ensure_shape(
                    x, [batch_size // replicas, *spec.shape[1:]]),
                shard, dataset.element_spec)

        # In place of each batch, one element for each of this worker's replicas.
        with tf.device("CPU:0"):
            shards = dataset.map(cut).unbatch().map(as_before)
        if by_device:
            return shards.apply(tf.data.experimental.prefetch_to_device(
                devices[first], 4))
        return shards.prefetch(4 * local)

    with _reading(strategy):
        return strategy.distribute_datasets_from_function(
            own, _BY_DEVICE if by_device else None)


@contextlib.contextmanager
def _reading(strategy) -> Iterator[None]:
    """Has a strategy read batches without asking first whether there is another.

    Where lengths differ, it would ask all replicas before each step, and a device would
    wait for the host; training never asks for more batches than there are. What
    TensorFlow notes for datasets that are read by device is taken back, or it would
    take each of the devices for a worker from then on.
    """
    extended = strategy.extended
    names = ("experimental_enable_get_next_as_optional", "_input_workers_devices")
    before = {name: getattr(extended, name) for name in names
              if hasattr(extended, name)}
    extended.experimental_enable_get_next_as_optional = False
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(extended, name, value)


def _wide(x):
    return tf.cast(x, tf.int64) if x.dtype == tf.int32 else x


def _fill(batch, batch_size: int, mean: bool):
    inputs, targets = (batch if len(batch) == 2 else (batch[0], None))
    known = tf.nest.flatten(inputs)[0].shape[0]
    rows = tf.shape(tf.nest.flatten(inputs)[0])[0]
    if targets is None:
        targets = tf.fill([rows], _NO_TARGET)
    if known == batch_size:
        return inputs, targets
    places = tf.range(batch_size)

    def fill(x):
        return tf.ensure_shape(tf.gather(x, places % rows), [batch_size, *x.shape[1:]])

    each = batch_size / rows if mean else 1.0
    weights = tf.where(places < rows, tf.cast(each, tf.float32), 0.0)
    return (*tf.nest.map_structure(fill, (inputs, targets)), weights)
