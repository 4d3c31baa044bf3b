"""The token lookup on a TPU's SparseCore: ids <int32>[B, T] -> <float>[B, T, D].

A SparseCore (TPU v5p, v6e) fetches rows of tables beside the TensorCores' products.
It speeds up lookups; pruned kernels gain nothing by it, and the sparse forms of
`SparseDense` have no kernels on a TPU. `tf.tpu.experimental.embedding.TPUEmbeddingV2`
is TensorFlow's door to it.

Without a TPU could be run, and is tested: the probe, the configs, the table's split
among the cores, `TPUEmbeddingV2`'s construction from them, the same lookup on a CPU
(`on_cpu`), and the path of the gradients, with a stand-in for the core. Never run were
the lookup and the update on a SparseCore itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tfopt.backend import keras, tf

NAME = "tokens"
_WHERE = ("Tokens are looked up by a SparseCore only on a TPU that has one (v5p, v6e), "
          "under tf.distribute.TPUStrategy.")
_CORES = 4  # of a chip that does not tell, as TensorFlow assumes
_API = tf.tpu.experimental.embedding
_FEATURES = tf.tpu.experimental.HardwareFeature.EmbeddingFeature


def connect(tpu: str = "local") -> tf.distribute.TPUStrategy:
    """Starts this machine's TPU.

    Args:
        tpu: its name, as `TPUClusterResolver` takes it; "local" for that of a TPU VM.

    Returns:
        Its strategy.

    Raises:
        ValueError: there is none, or it has no SparseCore.
    """
    try:
        strategy = tf.distribute.TPUStrategy(
            tf.distribute.cluster_resolver.TPUClusterResolver.connect(tpu))
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise ValueError(f"{_WHERE} Received: no TPU, {str(error).partition('.')[0]}"
                         ) from error
    check(strategy)
    return strategy


def check(strategy: tf.distribute.Strategy) -> None:
    """Asks the hardware for a SparseCore.

    Raises:
        ValueError: the strategy is not a TPU's, or the TPU has none.
    """
    # Of the enum, V2 is what may stand anywhere in a program: the SparseCore. V1 are
    # the lookup units of older chips, which `TPUEmbeddingV2` does not drive.
    hardware = getattr(strategy.extended, "tpu_hardware_feature", None)
    found = (type(strategy).__name__ if hardware is None
             else f"a TPU with embedding_feature={hardware.embedding_feature.value}")
    if hardware is None or hardware.embedding_feature is not _FEATURES.V2:
        raise ValueError(f"{_WHERE} Received: {found}")


def optimizer_of(optimizer: keras.optimizers.Optimizer | None):
    """The core's own optimizer, for what a Keras one does.

    Args:
        optimizer: SGD without momentum, Adagrad, or Adam without AMSGrad; its schedule
            goes on as it does elsewhere. Its weight decay does not reach the table,
            and Adam changes looked up rows alone. None never changes the table.

    Returns:
        One of `tf.tpu.experimental.embedding`.

    Raises:
        ValueError: the core has none that does the same.
    """
    if optimizer is None:
        return _API.SGD(learning_rate=0.0)
    config, kind = optimizer.get_config(), type(optimizer).__name__

    def rate():
        found = optimizer._learning_rate  # `learning_rate` is that of the step before
        if isinstance(found, keras.optimizers.schedules.LearningRateSchedule):
            found = found(optimizer.iterations)
        return tf.cast(found, tf.float32)

    def adam_rate():
        # The core corrects no moments (`optimization_parameters.proto`).
        step = tf.cast(optimizer.iterations + 1, tf.float32)
        return rate() * (tf.sqrt(1 - config["beta_2"] ** step)
                         / (1 - config["beta_1"] ** step))

    if kind == "SGD" and not config["momentum"]:
        return _API.SGD(learning_rate=rate)
    if kind == "Adagrad":
        return _API.Adagrad(
            learning_rate=rate,
            initial_accumulator_value=config["initial_accumulator_value"])
    if kind in ("Adam", "AdamW") and not config.get("amsgrad"):
        return _API.Adam(learning_rate=adam_rate, beta_1=config["beta_1"],
                         beta_2=config["beta_2"], epsilon=config["epsilon"],
                         sum_inside_sqrt=False)  # epsilon beside the root, as Keras'
    raise ValueError("A SparseCore updates by SGD without momentum, Adagrad or Adam. "
                     f"Received: {kind}")


def feature(table: np.ndarray, batch_size: int, length: int, cores: int,
            optimizer: keras.optimizers.Optimizer | None = None):
    """Describes the table and its lookup to TensorFlow.

    Args:
        table: <float>[V, D].
        batch_size: B of a replica.
        length: T.
        cores: SparseCores of all chips together.
        optimizer: as of `optimizer_of`.

    Returns:
        A `FeatureConfig` of ids <int32>[B, T].

    Raises:
        ValueError: the table is not finite or has not two axes; as `optimizer_of`.
    """
    table = np.asarray(table, np.float32)
    if table.ndim != 2 or not np.isfinite(table).all():
        raise ValueError("A table must be finite, of two axes. Received: "
                         f"shape={table.shape}")

    def rows_of(shape, dtype=tf.float32, shard_info=None):
        padded = np.zeros(shape, np.float32)  # to multiples of 8 and of the cores
        padded[:table.shape[0], :table.shape[1]] = table
        if shard_info is None:
            return tf.constant(padded, dtype)
        # Core c has the rows c, c + cores, ...; the cores lie one behind another.
        split = padded.reshape(-1, cores, shape[1]).swapaxes(0, 1).reshape(shape)
        start = shard_info.offset[0]
        return tf.constant(split[start:start + shard_info.shape[0]], dtype)

    return _API.FeatureConfig(name=NAME, output_shape=[batch_size, length],
                              table=_API.TableConfig(
                                  *table.shape, initializer=rows_of, name=NAME,
                                  optimizer=optimizer_of(optimizer), combiner="sum"))


def on_cpu(ids, table: Any, described):
    """What the SparseCore looks up, on any device, by the same description.

    Args:
        ids: <int32>[B, T].
        table: <float>[V, D], a variable.
        described: what `feature` made.

    Returns:
        <float>[B, T, D].
    """
    return _API.serving_embedding_lookup(tf.convert_to_tensor(ids), None,
                                         {described.table: table}, described)


class Lookup:
    """A lookup by the SparseCore, within `strategy.run`.

    Its gradient changes the table on the core, by its optimizer; for that the tape has
    to see `trap`, a variable that stays 0, among those that are trained.

    Args:
        table: <float>[V, D].
        strategy: a `TPUStrategy`.
        batch_size: B of a replica.
        length: T; B times T must be a multiple of a chip's SparseCores.
        optimizer: as of `optimizer_of`.

    Raises:
        ValueError: there is no SparseCore; an argument breaks its rule.
    """

    def __init__(self, table: np.ndarray, strategy: tf.distribute.Strategy,
                 batch_size: int, length: int,
                 optimizer: keras.optimizers.Optimizer | None = None):
        check(strategy)
        hardware = strategy.extended.tpu_hardware_feature
        each = hardware.num_embedding_devices_per_chip or _CORES
        tokens, left = divmod(batch_size * length, each)
        if left or not tokens:
            raise ValueError("The tokens of a replica must be a multiple of a chip's "
                             f"{each} SparseCores. Received: batch_size={batch_size}, "
                             f"length={length}")
        with strategy.scope():
            self.trap = tf.Variable(0.0, name="trap")
            self.core = _API.TPUEmbeddingV2(
                feature(table, batch_size, length,
                        each * strategy.num_replicas_in_sync, optimizer),
                sparse_core_embedding_config=_API.SparseCoreEmbeddingConfig(
                    # All ids may be of one row, such as that of [PAD].
                    max_ids_per_table={NAME: tokens},
                    max_unique_ids_per_table={NAME: tokens}))
            self.core.build()

    def __call__(self, ids):
        """Looks up ids <int32>[B, T]: <float>[B, T, D]."""
        @tf.custom_gradient
        def looked_up(trap):
            rows, kept = self.core(ids)

            def gradient(dy):
                self.core.apply_gradients(dy, kept)
                return tf.zeros_like(trap)

            return rows, gradient

        return looked_up(self.trap)


def served(model: keras.Model, layer: str, strategy: tf.distribute.Strategy,
           batch_size: int, length: int, lookup: Callable | None = None) -> Callable:
    """A model whose tokens are looked up by the SparseCore.

    Args:
        model: functional, made under the strategy's scope.
        layer: name of the Embedding layer, which reads one of the model's inputs.
        strategy: a `TPUStrategy`.
        batch_size: B of a replica.
        length: T.
        lookup: in place of `Lookup`.

    Returns:
        A function of the inputs by name, <int32>[N, T] each, of any N, that gives the
        model's output <float>[N, ...].

    Raises:
        ValueError: as `Lookup`.
    """
    embedding = model.get_layer(layer)
    read = embedding.input.name
    others = {name: tensor for name, tensor in zip(
        model.input_names, model.inputs, strict=True) if name != read}
    rest = keras.Model({**others, NAME: embedding.output}, model.output)
    lookup = lookup or Lookup(embedding.embeddings.numpy(), strategy, batch_size,
                              length)

    def replica(inputs):
        return rest({**{name: inputs[name] for name in others},
                     NAME: lookup(inputs[read])}, training=False)

    step = tf.function(lambda inputs: strategy.run(replica, args=(inputs,)))

    def run(inputs: Mapping[str, Any]) -> np.ndarray:
        count, found = len(inputs[read]), []
        for start in range(0, count, batch_size * strategy.num_replicas_in_sync):
            def part(context, start=start):
                first = start + context.replica_id_in_sync_group * batch_size
                rows = np.arange(first, first + batch_size) % count  # fills the last
                return {name: tf.constant(np.asarray(values)[rows], tf.int32)
                        for name, values in inputs.items()}

            outputs = step(
                strategy.experimental_distribute_values_from_function(part))
            found += strategy.experimental_local_results(outputs)
        return np.concatenate([part.numpy() for part in found])[:count]

    return run
