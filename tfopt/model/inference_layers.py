"""Layers of the inference wiring: fewer operations, and those that bear int8."""

from __future__ import annotations

from tfopt.backend import keras, tf
from tfopt.model.layers import batch_size

# Of the operations on outlier channels. It is in the names, and so in the bytes, of
# exported files: "massive activations", Sun et al. 2024, arXiv:2402.17762.
OUTLIER_SCOPE = "massive"
# Below every number of a model, above float32's infinity.
LOWEST = -3e38


@keras.utils.register_keras_serializable(package="tfopt")
class MergeTokens(keras.layers.Layer):
    """Puts batch and tokens into one axis: <...>[B, T] -> <...>[B*T]."""

    def call(self, inputs):
        """Reshapes."""
        return tf.reshape(inputs, [-1])


@keras.utils.register_keras_serializable(package="tfopt")
class SplitTokens(keras.layers.Layer):
    """Puts batch and tokens into two axes again: <...>[B*T, C] -> <...>[B, T, C]."""

    def call(self, inputs):
        """Reshapes x <...>[B*T, C] by the attention mask <int32>[B, T]."""
        x, mask = inputs
        return tf.reshape(x, [batch_size(mask), -1, x.shape[-1]])


@keras.utils.register_keras_serializable(package="tfopt")
class Positions(keras.layers.Layer):
    """The position of each token: <...>[B, T] -> <int32>[B*T]."""

    def call(self, inputs):
        """Counts."""
        positions = tf.range(tf.shape(inputs)[1])
        return positions if inputs.shape[0] == 1 else tf.tile(
            positions, [tf.shape(inputs)[0]])


@keras.utils.register_keras_serializable(package="tfopt")
class KeepApart(keras.layers.Layer):
    """Keeps the TFLite converter from folding what is before into what comes after.

    It would fold the gamma and beta of a LayerNorm into the kernels that follow, and
    quantize other numbers than those that were trained. `export.flatbuffer.join` takes
    the operation out of the converted file again.
    """

    def call(self, inputs):
        """Maps x to x, in a way that the converter does not see through."""
        return tf.maximum(inputs, LOWEST)


class SplitDense(keras.layers.Layer):
    """A Dense whose output comes in two: without a few channels, and these alone.

    Where a few channels are a hundred times the others, one int8 range holds not both.

    Args:
        dense: its weights are shared; must have a bias and no activation.
        channels: those to split off, in [0, N).
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, dense, channels, **kwargs):
        super().__init__(**kwargs)
        self.dense = dense
        self.channels = list(channels)

    def call(self, inputs):
        """Maps <float>[..., K] to <float>[..., N], zero there, and <float>[..., k]."""
        kept = 1.0 - members(self.channels, self.dense.units)
        main = tf.nn.bias_add(tf.matmul(inputs, self.dense.kernel * kept),
                              self.dense.bias * kept)
        with tf.name_scope(OUTLIER_SCOPE):
            own = tf.nn.bias_add(
                tf.matmul(inputs, tf.gather(self.dense.kernel, self.channels, axis=1)),
                tf.gather(self.dense.bias, self.channels))
        return main, own


class IntegerNorm(keras.layers.Layer):
    """A LayerNorm by operations that lose little where every tensor is int8.

    The squares are summed within a product, in int32: as a tensor of their own most
    would be 0 beside the largest, and the variance lost up to a seventh of itself. The
    few largest channels of a sum are added within: no tensor in it holds them beside
    the others but its output, where they are normalized.

    Args:
        norm: its weights are shared.
        channels: those that `SplitDense` split off; none if the input is whole.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, norm, channels=(), **kwargs):
        super().__init__(**kwargs)
        self.norm = norm
        self.channels = list(channels)

    def call(self, inputs):
        """Normalizes.

        Args:
            inputs: x <float>[N, D]; where k channels are split off, with what is
                missing of these, <float>[N, k].

        Returns:
            <float>[N, D].
        """
        x, missing = inputs if self.channels else (inputs, None)
        width = x.shape[-1]
        mean = tf.reduce_mean(x, -1, keepdims=True)
        if not self.channels:
            x -= mean
            x *= self._inverse(_sum_of_squares(x), width)
            x *= self.norm.gamma
        else:
            places = tf.one_hot(self.channels, width)  # [k, D]
            # A product with a constant, as is `missing` with its sum, for integer code.
            share = tf.fill([len(self.channels), 1], 1.0 / width)
            x -= mean + tf.matmul(missing, share)
            own = missing + tf.matmul(x, places, transpose_b=True)  # [N, k]
            x *= 1.0 - members(self.channels, width)
            inverse = self._inverse(_sum_of_squares(x) + _sum_of_squares(own), width)
            own = tf.matmul(own * inverse, places * self.norm.gamma)
            x = x * inverse * self.norm.gamma + own
        return tf.add(x, self.norm.beta, name="normalized")

    def _inverse(self, sums, width: int):
        """Of the deviation: sums of D squares <float>[N, 1] -> <float>[N, 1]."""
        return tf.math.rsqrt(sums / width + self.norm.epsilon)


def _sum_of_squares(x):
    """<float>[N, D] -> <float>[N, 1]."""
    rows = tf.reshape(x, [-1, 1, x.shape[-1]])
    return tf.reshape(tf.matmul(rows, rows, transpose_b=True), [-1, 1])


def members(channels, width: int):
    """<float>[width], 1 at the channels and 0 elsewhere."""
    return tf.reduce_max(tf.one_hot(channels, width), axis=0)
