"""Self-attention without its projections, and the mask's one constant.

softmax(Q K^T / sqrt(K) + mask) V, after Vaswani et al. 2017, "Attention is all
you need", arXiv:1706.03762, equation 1. The projections around it are plain Dense
layers, so that tfmot and the compression passes can treat them as such.
"""

from __future__ import annotations

from tfopt import xla
from tfopt.backend import keras, tf
from tfopt.model.layers import Dropout, batch_size

# Added to the score of a hidden position. exp(-100) is 0 beside 1 in float32, and
# the range stays narrow enough for int8; -inf or -1e4 would ruin it.
HIDDEN_SCORE = -100.0


@keras.utils.register_keras_serializable(package="tfopt")
class SelfAttention(keras.layers.Layer):
    """Multi-head attention on projected queries, keys and values.

    Its only weights are those of relative positions, if there are any.

    Args:
        num_heads: H.
        dropout: fraction of attention probabilities dropped in training, [0, 1).
        relative_buckets: rows of a table <float>[buckets, H], of what each head adds to
            the score of two tokens by their distance; 0 for no table.
        initializer_range: standard deviation of a fresh table.
        seed: of a fresh table; None for others each time.
        **kwargs: of `keras.layers.Layer`.

    Attributes:
        for_xla: whether XLA compiles the step (`xla.written_for`). Query, key and value
            are then one product, where they are of one x (`xla.together`).
    """

    for_xla = False

    def __init__(self, num_heads: int, dropout: float = 0.0, relative_buckets: int = 0,
                 initializer_range: float = 0.02, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.dropout = dropout
        self.relative_buckets = relative_buckets
        self.initializer_range = initializer_range
        self.seed = seed
        self._dropout = Dropout(dropout, dtype=self._dtype_policy)

    def build(self, input_shape):
        """Makes the table, if there is one."""
        if self.relative_buckets:
            self.relative_bias = self.add_weight(
                name="relative_bias", shape=[self.relative_buckets, self.num_heads],
                initializer=keras.initializers.TruncatedNormal(
                    stddev=self.initializer_range, seed=self.seed))
        super().build(input_shape)

    def call(self, inputs, training=None):
        """Attends.

        Args:
            inputs: query, key, value <float>[B, T, H*K] each (or the same with batch
                and tokens in one axis, <float>[B*T, H*K]), and the attention mask
                <int32>[B, T], 1 where a token is visible. The query may have fewer
                tokens than the mask. With a table, also the buckets of every two
                tokens <int32>[T, T] (`relative.RelativeBuckets`).
            training: whether dropout is on.

        Returns:
            The context, of the query's shape.
        """
        query, key, value, mask, *buckets = inputs
        if self.for_xla:
            query, key, value = xla.together([query, key, value])
        batch = batch_size(mask)
        width = query.shape[-1]

        def split(x):  # [B, T, H*K] -> [B, H, T, K]
            x = tf.reshape(x, [batch, -1, self.num_heads, width // self.num_heads])
            return tf.transpose(x, [0, 2, 1, 3])

        scale = (width // self.num_heads) ** -0.5
        # The softmax stays in float32 under mixed precision.
        scores = self.rounded("scores", tf.cast(
            tf.matmul(split(query * scale), split(key), transpose_b=True),
            tf.float32))  # [B, H, T, T]
        if buckets:
            queries = scores.shape[2]
            if queries is None and mask.shape[0] is None:
                queries = tf.shape(scores)[2]  # one, maybe, of each text of the batch
            scores = self.rounded("biased", tf.add(
                scores, self._bias(buckets[0], queries, training), name="biased"))
        # Looked up, not computed: in an integer-only graph the mask is then int8, too.
        hidden = tf.gather(tf.constant([HIDDEN_SCORE, 0.0]), mask)
        scores += hidden[:, tf.newaxis, tf.newaxis, :]
        probabilities = self.rounded("probabilities", tf.nn.softmax(scores))
        probabilities = self._dropout(
            tf.cast(probabilities, query.dtype), training=training)
        context = tf.matmul(probabilities, split(value))  # [B, H, T, K]
        context = tf.transpose(context, [0, 2, 1, 3])
        flat = query.shape.rank == 2
        return self.rounded("output", tf.reshape(
            context, [-1, width] if flat else [batch, -1, width]))

    def _bias(self, buckets, queries, training):
        """What is added to the scores.

        Args:
            buckets: <int32>[T, T].
            queries: tokens that attend, the first ones; None for all.
            training: whether a gradient will be asked for.

        Returns:
            <float32>[H, T, T], or [H, queries, T].
        """
        table = tf.cast(self.relative_bias, tf.float32)
        if queries is not None:
            buckets = buckets[:queries]
        if self.for_xla and training:  # the gradient of a look-up is many small sums
            chosen = tf.one_hot(buckets, self.relative_buckets)
            return tf.transpose(tf.matmul(chosen, table), [2, 0, 1])
        return tf.transpose(self.rounded("rows", tf.gather(table, buckets)), [2, 0, 1])

    def rounded(self, point: str, x):
        """What becomes of x at a point of the computation; here, nothing."""
        return x

    def compute_output_shape(self, input_shape):
        """The context has the query's shape."""
        return input_shape[0]

    def get_config(self):
        """Mirrors `__init__`."""
        return {**super().get_config(), "num_heads": self.num_heads,
                "dropout": self.dropout, "relative_buckets": self.relative_buckets,
                "initializer_range": self.initializer_range, "seed": self.seed}
