"""Parts of a training step written for XLA: the same results in fewer passes.

Used where `for_xla` of a layer is set. Where nothing compiles, TensorFlow's own kernels
are faster.
"""

from __future__ import annotations

from tfopt.backend import tf


def kept(shape, rate: float, state):
    """Which numbers dropout keeps: a hash of their place and of a random state.

    XLA makes a generator's numbers in kernels of their own, and writes four bytes each
    to memory; this is arithmetic on places alone, which goes into the kernel that uses
    it. An odd multiplier and an offset from the state take the place through all 32-bit
    numbers; the finalizer of MurmurHash3 (Appleby 2011) mixes the bits.

    Args:
        shape: <int32>[rank].
        rate: fraction that is not kept, (0, 1).
        state: <int64>[3], such as a `tf.random.Generator`'s: another one, other
            numbers.

    Returns:
        <bool> of that shape.
    """
    offset = _word(0)
    for word in tf.unstack(tf.bitcast(state, tf.uint32)[:, 0]):  # the lower halves
        offset = _mix(offset * _word(0x9E3779B9) + word)
    multiplier = _mix(offset + _word(0x9E3779B9))
    places = tf.reshape(tf.cast(tf.range(tf.reduce_prod(shape)), tf.uint32), shape)
    bits = _mix(places * tf.bitwise.bitwise_or(multiplier, _word(1)) + offset)
    return bits >= _word(round(rate * 2 ** 32))


def for_each(rows, examples):
    """Repeats rows for each example; their gradient is summed by a product.

    A sum over examples has XLA lay out all that it is a sum of with the examples
    innermost, and from there the whole residual stream: every layer then moves it from
    one layout to the other and back.

    Args:
        rows: <float>[T, D].
        examples: B.

    Returns:
        <float>[B, T, D].
    """
    tokens, width = tf.unstack(tf.shape(rows))

    @tf.custom_gradient
    def repeated(rows):
        def backward(gradient):
            place = tf.one_hot(tf.tile(tf.range(tokens), [examples]), tokens,
                               dtype=gradient.dtype)  # [B*T, T]
            return tf.matmul(place, tf.reshape(gradient, [-1, rows.shape[-1]]),
                             transpose_a=True)

        return tf.broadcast_to(rows, [examples, tokens, width]), backward

    return repeated(rows)


def _word(number: int):
    return tf.constant(number, tf.uint32)


def _mix(x):
    xor, shift = tf.bitwise.bitwise_xor, tf.bitwise.right_shift
    x = xor(x, shift(x, _word(16))) * _word(0x85EBCA6B)
    x = xor(x, shift(x, _word(13))) * _word(0xC2B2AE35)
    return xor(x, shift(x, _word(16)))
