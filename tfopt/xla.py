"""Parts of a training step written for XLA: the same results in fewer passes.

`written_for` puts them into a model for as long as a step of it is compiled. Where
nothing compiles, TensorFlow's own kernels are faster.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence

from tfopt import switches
from tfopt.backend import keras, tf


@contextlib.contextmanager
def written_for(model: keras.Model) -> Iterator[None]:
    """Has the layers of a model compute as XLA likes, within the context.

    The switch `for_xla` is on, GELUs are `gelu`, and a Dense tells with its output what
    it is a product of, so that an attention can make one product of three (`together`).

    Args:
        model: whose training step XLA compiles; traced within the context.
    """
    curved = [layer for layer in model.submodules
              if getattr(layer, "activation", None) is keras.activations.gelu]
    telling = [layer for layer in model.submodules if type(layer) is keras.layers.Dense]
    for layer in curved:
        layer.activation = gelu
    for layer in telling:
        # Past Keras' own __setattr__, which would track it.
        object.__setattr__(layer, "call", functools.partial(_told, layer))
    try:
        with switches.on(model, "for_xla"):
            yield
    finally:
        for layer in curved:
            layer.activation = keras.activations.gelu
        for layer in telling:
            vars(layer).pop("call", None)


def _told(dense, inputs):
    product = type(dense).call(dense, inputs)
    if (dense.activation is keras.activations.linear and dense.use_bias
            and product.dtype == inputs.dtype):
        # A wrapper may have put other weights in the place of the layer's own.
        product._tfopt_product = (inputs, tf.cast(dense.kernel, inputs.dtype),
                                  tf.cast(dense.bias, inputs.dtype))
    return product


def together(products: Sequence) -> list:
    """Makes one product of those by several Dense of the same x.

    One way forward, and two back, in place of as many each: x is read once, and nothing
    is summed that was a product's gradient.

    Args:
        products: outputs of layers <float>[..., N_i].

    Returns:
        The same numbers. Those stay what they were that are not, as `written_for` has
        told, of a plain Dense, in a wrapper or not, or whose x no other has.
    """
    made = list(products)
    same: dict[int, tuple[tf.Tensor, list]] = {}
    for place, product in enumerate(products):
        x, *weights = getattr(product, "_tfopt_product", (None,))
        if x is not None:
            same.setdefault(id(x), (x, []))[1].append((place, *weights))
    for x, told in same.values():
        if len(told) == 1:
            continue
        places, kernels, biases = zip(*told, strict=True)
        y = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), tf.concat(kernels, 1))
        y += tf.concat(biases, 0)
        parts = tf.split(y, [bias.shape[0] for bias in biases], 1)
        for place, part in zip(places, parts, strict=True):
            alone = products[place]
            made[place] = tf.ensure_shape(
                tf.reshape(part, tf.shape(alone)), alone.shape)
    return made


@keras.utils.register_keras_serializable(package="tfopt")
def gelu(x):
    """X P(X <= x) for a normal X, of which only x is kept for the gradient.

    Left to itself XLA writes what the gradient shares with the function to memory,
    twice an ffn's activations. `tf.nn.gelu` is by erfc, several times the arithmetic of
    erf; that is as exact beside the largest x, not beside its own value far below 0.
    After Hendrycks & Gimpel 2016, arXiv:1606.08415.

    Args:
        x: <float>[..., F].

    Returns:
        Of x's shape and dtype; computed in float32.
    """
    @tf.custom_gradient
    def curve(x):
        def backward(gradient):
            z = tf.cast(x, tf.float32)
            # Of -z, or XLA would find the erf of the way forward in it, and keep that.
            below = 0.5 - 0.5 * tf.math.erf(z * -0.7071067811865476)
            density = 0.3989422804014327 * tf.exp(-0.5 * z * z)
            return tf.cast(tf.cast(gradient, tf.float32) * (below + z * density),
                           x.dtype)

        z = tf.cast(x, tf.float32)
        below = 0.5 + 0.5 * tf.math.erf(z * 0.7071067811865476)
        return tf.cast(z * below, x.dtype), backward

    return curve(x)


def normalize(x, gamma, beta, epsilon: float):
    """Layer normalization over the last axis, of which only x is kept for the gradient.

    XLA writes the product that gamma's gradient is the sum of to memory, in float32,
    where the gradient of x has it too: here it is not the same to XLA. After Ba et al.
    2016, arXiv:1607.06450.

    Args:
        x: <float>[..., D].
        gamma: <float32>[D].
        beta: <float32>[D].
        epsilon: added to the variance.

    Returns:
        Of x's shape and dtype; computed in float32.
    """
    @tf.custom_gradient
    def normalized(x, gamma, beta):
        z = tf.cast(x, tf.float32)
        mean = tf.reduce_mean(z, -1, keepdims=True)
        inverse = tf.math.rsqrt(
            tf.reduce_mean(tf.square(z - mean), -1, keepdims=True) + epsilon)

        def backward(gradient):
            z, each = tf.cast(x, tf.float32), tf.cast(gradient, tf.float32)
            unit, slope = (z - mean) * inverse, each * gamma
            moved = (tf.reduce_mean(slope, -1, keepdims=True)
                     + unit * tf.reduce_mean(slope * unit, -1, keepdims=True))
            rows = list(range(x.shape.rank - 1))
            again = z * inverse - mean * inverse  # unit, in other words
            return (tf.cast((slope - moved) * inverse, x.dtype),
                    tf.reduce_sum(each * again, rows), tf.reduce_sum(each, rows))

        y = (z - mean) * inverse * gamma + beta
        return tf.cast(y, x.dtype), backward

    return normalized(x, gamma, beta)


def kept(shape, rate: float, state):
    """Which numbers dropout keeps: a hash of their place and of a random state.

    XLA makes a generator's numbers in kernels of their own, and writes four bytes each
    to memory; this is arithmetic on places alone, which goes into the kernel that uses
    it. An odd multiplier and an offset from the state take the place through all 32-bit
    numbers; the finalizer of MurmurHash3 (Appleby 2011) mixes the bits, of which its
    last step, left out, changes the lower half alone.

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
    bits = _mix_upper(places * tf.bitwise.bitwise_or(multiplier, _word(1)) + offset)
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
            return sum_by_row(tf.reshape(gradient, [-1, rows.shape[-1]]),
                              tf.tile(tf.range(tokens), [examples]), tokens)

        return tf.broadcast_to(rows, [examples, tokens, width]), backward

    return repeated(rows)


def sum_by_row(values, place, rows):
    """Sums the values of each row by a product with ones where they belong.

    Args:
        values: <float>[N, D].
        place: <int>[N], the row of each, from 0.
        rows: how many rows there are.

    Returns:
        <float>[rows, D].
    """
    return tf.matmul(tf.one_hot(place, rows, dtype=values.dtype), values,
                     transpose_a=True)


def _word(number: int):
    return tf.constant(number, tf.uint32)


def _mix(x):
    x = _mix_upper(x)
    return tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, _word(16)))


def _mix_upper(x):
    """The same in its upper half, by which numbers are told from a bound."""
    xor, shift = tf.bitwise.bitwise_xor, tf.bitwise.right_shift
    x = xor(x, shift(x, _word(16))) * _word(0x85EBCA6B)
    return xor(x, shift(x, _word(13))) * _word(0xC2B2AE35)
