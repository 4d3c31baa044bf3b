"""The small layers of BERT that Keras has not, or not as training needs them."""

from __future__ import annotations

from tfopt import xla
from tfopt.backend import keras, local, tf


@keras.utils.register_keras_serializable(package="tfopt")
class Dropout(keras.layers.Dropout):
    """Dropout whose random state is a variable, so that checkpoints hold it.

    Keras' own keeps the state inside the kernel, where a resumed run cannot find it.

    Args:
        rate: fraction dropped in training, [0, 1).
        **kwargs: of `keras.layers.Dropout`.

    Attributes:
        for_xla: whether XLA compiles the step (`xla.written_for`). What is dropped is
            then computed where it is needed (`xla.kept`), not drawn.
    """

    for_xla = False

    def __init__(self, rate: float, **kwargs):
        super().__init__(rate, force_generator=True, **kwargs)

    def build(self, input_shape):
        """Makes the random state, and tracks it (Keras keeps it untracked)."""
        super().build(input_shape)
        self.generator = self._random_generator._generator

    def call(self, inputs, training=None):
        """Drops, while training."""
        if not (self.for_xla and training and self.rate):
            return super().call(inputs, training=training)
        kept = xla.kept(tf.shape(inputs), self.rate, self._next_state())
        return tf.where(kept, inputs * tf.cast(1 / (1 - self.rate), inputs.dtype), 0)

    def _next_state(self):
        """The random state <int64>[3] of this step and replica; the next has another.

        By one addition: `Generator.skip` is seven kernels a layer under XLA.
        """
        state = local(self.generator.state)
        now = state.read_value()
        tf.raw_ops.AssignAddVariableOp(
            resource=state.handle, value=tf.constant([1, 0, 0], now.dtype))
        context = tf.distribute.get_replica_context()
        replica = 0 if context is None else context.replica_id_in_sync_group
        return now + tf.cast(tf.stack([0, replica, 0]), now.dtype)

    def get_config(self):
        """Mirrors `__init__`."""
        config = super().get_config()
        del config["rng_type"]
        return config


@keras.utils.register_keras_serializable(package="tfopt")
class PositionEmbedding(keras.layers.Layer):
    """Adds a learned vector per position: x + table[:T].

    Args:
        max_positions: rows of the table.
        initializer_range: standard deviation of fresh weights.
        seed: of the fresh weights; None for others each time.
        **kwargs: of `keras.layers.Layer`.

    Attributes:
        for_xla: whether XLA compiles the step (`xla.written_for`). The table's
            gradient is then a product (`xla.for_each`).
    """

    for_xla = False

    def __init__(self, max_positions: int, initializer_range: float = 0.02,
                 seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.max_positions = max_positions
        self.initializer_range = initializer_range
        self.seed = seed

    def build(self, input_shape):
        """Makes the table <float>[max_positions, D]."""
        if isinstance(input_shape, list):
            input_shape = input_shape[0]
        self.table = self.add_weight(
            name="embeddings",
            shape=[self.max_positions, input_shape[-1]],
            initializer=keras.initializers.TruncatedNormal(
                stddev=self.initializer_range, seed=self.seed),
        )
        super().build(input_shape)

    def call(self, inputs, training=None):
        """Adds.

        Args:
            inputs: x <float>[B, T, D]; or x <float>[B*T, D] and the positions of its
                rows <int32>[B*T].
            training: whether a gradient will be asked for.

        Returns:
            The sum, of x's shape.
        """
        if isinstance(inputs, list | tuple):
            x, positions = inputs
            return x + self.rounded("rows", tf.gather(self.table, positions))
        rows = self.rounded("rows", self.table[: tf.shape(inputs)[1]])
        if self.for_xla and training:
            rows = xla.for_each(rows, tf.shape(inputs)[0])
        return inputs + rows

    def rounded(self, point: str, x):
        """What becomes of x at a point of the computation; here, nothing."""
        return x

    def get_config(self):
        """Mirrors `__init__`."""
        return {**super().get_config(), "max_positions": self.max_positions,
                "initializer_range": self.initializer_range, "seed": self.seed}


@keras.utils.register_keras_serializable(package="tfopt")
class LayerNorm(keras.layers.LayerNormalization):
    """Layer normalization over the last axis, in float32 and in few operations.

    (x - mean) / sqrt(var + epsilon) * gamma + beta, after Ba et al. 2016,
    arXiv:1607.06450. Keras' own goes through `batch_normalization`, which costs a
    quarter more operations: measurable where a request takes a millisecond.

    Attributes:
        for_xla: whether XLA compiles the step (`xla.written_for`, `xla.normalize`).
    """

    for_xla = False

    def call(self, inputs):
        """Maps <float>[..., D] to the same shape and dtype."""
        if self.for_xla:
            return xla.normalize(inputs, tf.cast(self.gamma, tf.float32),
                                 tf.cast(self.beta, tf.float32), self.epsilon)
        x = tf.cast(inputs, tf.float32)
        x -= tf.reduce_mean(x, axis=-1, keepdims=True)
        variance = tf.reduce_mean(x * x, axis=-1, keepdims=True)
        x *= tf.math.rsqrt(variance + self.epsilon)
        x = tf.add(x * tf.cast(self.gamma, tf.float32), tf.cast(self.beta, tf.float32),
                   name="normalized")
        return tf.cast(x, inputs.dtype)


@keras.utils.register_keras_serializable(package="tfopt")
class LowRankDense(keras.layers.Layer):
    """A Dense whose kernel is the product of two thin ones: activation(x D U + b).

    <float>[..., K] -> <float>[..., N], with D <float>[K, r] and U <float>[r, N].

    Args:
        units: N.
        rank: r.
        activation: as of `keras.layers.Dense`.
        use_bias: whether there is b <float>[N].
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, units: int, rank: int, activation=None, use_bias: bool = True,
                 **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.rank = rank
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.down = keras.layers.Dense(rank, use_bias=False, name="down",
                                       dtype=self.dtype_policy)
        self.up = keras.layers.Dense(units, self.activation, use_bias, name="up",
                                     dtype=self.dtype_policy)

    def build(self, input_shape):
        """Makes the weights of both."""
        super().build(input_shape)
        self.down.build(input_shape)
        self.up.build([*input_shape[:-1], self.rank])

    def call(self, x):
        """Multiplies twice."""
        return self.up(self.down(x))

    def get_config(self):
        """Mirrors `__init__`."""
        return {**super().get_config(), "units": self.units, "rank": self.rank,
                "activation": keras.activations.serialize(self.activation),
                "use_bias": self.use_bias}


@keras.utils.register_keras_serializable(package="tfopt")
class HeadTokens(keras.layers.Layer):
    """Passes on the tokens that the last layer is computed for.

    Attributes:
        first_alone: whether the first token will do, since the head reads no other; set
            while a step is traced in which nobody else reads the last layer.
    """

    first_alone = False

    def call(self, inputs):
        """Maps <float>[B, T, D] to itself, or to <float>[B, 1, D]."""
        return inputs[:, :1] if self.first_alone else inputs


@keras.utils.register_keras_serializable(package="tfopt")
class FirstToken(keras.layers.Layer):
    """Takes the first token's vector of each example."""

    def call(self, inputs):
        """Slices.

        Args:
            inputs: x <float>[B, T, D] or <float>[B*T, D], and the attention mask
                <int32>[B, T], which tells B.

        Returns:
            <float>[B, D].
        """
        x, mask = inputs
        return tf.reshape(x, [batch_size(mask), -1, x.shape[-1]])[:, 0]


@keras.utils.register_keras_serializable(package="tfopt")
class MeanTokens(keras.layers.Layer):
    """The mean over the visible tokens' vectors of each example."""

    def call(self, inputs):
        """Averages.

        Args:
            inputs: x <float>[B, T, D] or <float>[B*T, D], and the attention mask
                <int32>[B, T].

        Returns:
            <float>[B, D].
        """
        x, mask = inputs
        x = tf.reshape(x, [batch_size(mask), -1, x.shape[-1]])
        visible = tf.cast(mask, x.dtype)[:, :, tf.newaxis]
        count = tf.maximum(tf.reduce_sum(visible, axis=1), 1)
        return tf.reduce_sum(x * visible, axis=1) / count


def batch_size(tensor):
    """B as a number where the graph knows it, else as a scalar tensor.

    A known B leaves no shape arithmetic in an exported graph.
    """
    return tensor.shape[0] or tf.shape(tensor)[0]


@keras.utils.register_keras_serializable(package="tfopt")
def gelu_tanh(x):
    """GELU by its tanh approximation (Hendrycks & Gimpel 2016, arXiv:1606.08415)."""
    return keras.activations.gelu(x, approximate=True)
