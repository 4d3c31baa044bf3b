"""Rounding to a grid in float32, as LiteRT and its files do in integers.

Each function maps x to the nearest number that the integers can say; the gradient
passes as if nothing had been rounded (Bengio et al. 2013, arXiv:1308.3432), and not at
all where x was clipped. After Jacob et al. 2018, arXiv:1712.05877, equations 1 and 12.

They are plain arithmetic, not `tf.quantization.fake_quant_*`: these nudge ranges in
another way than the files do.
"""

from __future__ import annotations

from tfopt.backend import tf

# No scale is smaller, as in ai-edge-quantizer.
_LEAST_BOUND = 1e-9


def symmetric(x, bits: int, axis: int, block: int | None = None):
    """Weights: (2^(bits-1) - 1) steps on each side of 0, up to the largest |x|.

    Args:
        x: <float>[..., K, ...].
        bits: 8 or 4.
        axis: of K, along which numbers share a scale.
        block: how many of them do; None for all K.

    Returns:
        q s, of x's shape, with s = max|x| / (2^(bits-1) - 1) and q = round(x / s). In
        blocks s is rounded to 8 binary digits, as the file keeps it.
    """
    shape = x.shape
    axis = axis % shape.rank
    levels = 2 ** (bits - 1) - 1

    @tf.custom_gradient
    def rounded(x):
        y = x
        if block is not None:  # [..., K, ...] -> [..., K / block, block, ...]
            sizes = tf.unstack(tf.shape(x))
            sizes[axis:axis + 1] = [shape[axis] // block, block]
            y = tf.reshape(x, sizes)
        bound = tf.reduce_max(tf.abs(y), axis + (block is not None), keepdims=True)
        scale = tf.maximum(bound, _LEAST_BOUND) / levels
        if block is not None:
            scale = tf.cast(tf.cast(scale, tf.bfloat16), tf.float16)
            scale = tf.cast(scale, tf.float32)
            scale = tf.maximum(scale, _LEAST_BOUND)
        y = tf.clip_by_value(tf.round(y / scale), -levels, levels) * scale
        return tf.reshape(y, tf.shape(x)), lambda gradient: gradient

    return rounded(x)


def per_token(x):
    """Activations of hybrid products: each row in 256 steps between its own extremes.

    As XNNPACK computes them at run time (`qd8`): 0 is one of the steps.

    Args:
        x: <float>[..., D].

    Returns:
        (q - z) s of x's shape, z and s being of each row.
    """
    @tf.custom_gradient
    def rounded(x):
        low = tf.minimum(tf.reduce_min(x, -1, keepdims=True), 0.0)
        high = tf.maximum(tf.reduce_max(x, -1, keepdims=True), 0.0)
        steps = tf.where(high > low, 255.0 / (high - low), 1.0)  # 1 / s
        low, high = low * steps, high * steps
        # From the end that it hits more exactly.
        zero = tf.where(low + high > 1.0, -128.0 - low, 127.0 - high)
        zero = tf.round(tf.clip_by_value(zero, -128.0, 127.0))
        y = tf.clip_by_value(tf.round(x * steps) + zero, -128.0, 127.0) - zero
        return y / steps, lambda gradient: gradient

    return rounded(x)


def between(x, low, high):
    """Static activations: 256 steps from low to high, 0 being one of them.

    Args:
        x: <float>[..., D].
        low: <float>[] or [D].
        high: of the same shape.

    Returns:
        (q - z) s of x's shape, clipped to the range.
    """
    @tf.custom_gradient
    def rounded(x):
        bottom = tf.minimum(tf.cast(low, x.dtype), 0.0)
        scale = tf.maximum(tf.maximum(tf.cast(high, x.dtype), 0.0) - bottom,
                           _LEAST_BOUND) / 255.0
        zero = tf.round(-128.0 - bottom / scale)
        q = tf.round(x / scale) + zero
        inside = (q >= -128.0) & (q <= 127.0)
        y = (tf.clip_by_value(q, -128.0, 127.0) - zero) * scale
        return y, lambda gradient: tf.where(inside, gradient, 0.0)

    return rounded(x)
