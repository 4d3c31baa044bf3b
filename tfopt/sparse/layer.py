"""A Dense whose kernel is stored without its zeros: activation(x W + b).

The pattern is fixed: what is trained, saved and counted are the values that are there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfopt.backend import keras, tf
from tfopt.sparse import storage
from tfopt.sparse.choose import choose
from tfopt.sparse.matmul import matmul
from tfopt.sparse.storage import Blocks, Csr
from tfopt.types import PathLike

# Activations that a part of the units may compute by itself; softmax is none.
_OF_EACH_ALONE = (keras.activations.gelu, keras.activations.relu,
                  keras.activations.swish, keras.activations.tanh)


@keras.utils.register_keras_serializable(package="tfopt")
class SparseDense(keras.layers.Layer):
    """A Dense with a sparse kernel: <float>[..., K] -> <float>[..., N].

        small = tfopt.sparse.SparseDense.from_dense(pruned_layer)

    Its weights are `values`, the bias if there is one, and (but for "dense", whose
    kernel keeps its zeros: values, too) `indices` <int32>, which no optimizer changes.
    They go wherever Keras saves weights. A pattern of blocks is in the config, too,
    since a graph is made for it; weights of another one are refused.

    Args:
        units: N.
        pattern: of fresh weights, which values there are: <bool>[K, N], or of blocks
            <bool>[K / b, N / b]; or blocks as `get_config` writes them.
        backend: one of `storage.BACKENDS`.
        block: b of a form of blocks.
        nonzeros: how many values there are, in place of a pattern that is loaded with
            the weights; such as `get_config` tells it.
        activation: as of `keras.layers.Dense`.
        use_bias: whether there is b <float>[N].
        kernel_initializer: of fresh values; the zeros are drawn, and thrown away.
        bias_initializer: of a fresh bias.
        kernel_regularizer: of the values.
        bias_regularizer: of the bias.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: an argument breaks its rule, or the form has no kernel for the dtype
            in which the layer computes.
    """

    def __init__(self, units: int, pattern: Any = None, backend: str = "csr",
                 block: int | None = None, nonzeros: int | None = None,
                 activation=None, use_bias: bool = True,
                 kernel_initializer="glorot_uniform", bias_initializer="zeros",
                 kernel_regularizer=None, bias_regularizer=None, **kwargs):
        super().__init__(**kwargs)
        if units < 1:
            raise ValueError(f"`units` must be at least 1. Received: units={units}")
        storage.check_backend(backend, self.compute_dtype, block)
        self.units = units
        self.backend = backend
        self.block = block if storage.is_block(backend) else None
        self.pattern = storage.decode(pattern) if isinstance(pattern, str) else pattern
        if self.pattern is not None:
            self.pattern = np.asarray(self.pattern, bool)
            nonzeros = int(self.pattern.sum())
        if nonzeros is None or self.pattern is None and self.block:
            raise ValueError("A sparse layer must have a pattern, or `nonzeros` where "
                             "there are no blocks. Received: pattern=None, "
                             f"backend={backend!r}, nonzeros={nonzeros}")
        if nonzeros < 1:
            raise ValueError("A sparse layer must have a value. Received: "
                             f"nonzeros={nonzeros}")
        self.nonzeros: int = nonzeros
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self._frozen: Csr | None = None

    @classmethod
    def from_dense(cls, layer: keras.layers.Layer, backend: str = "auto",
                   block: int | None = None, rows: int | Sequence[int] = 128,
                   frozen: bool = False, cache_file: PathLike | None = None
                   ) -> SparseDense:
        """Makes the layer that computes what a pruned Dense does.

        Args:
            layer: a Dense, built.
            backend: one of `storage.BACKENDS`; "auto" times them once, and keeps dense
                wherever no other is faster (`sparse.choose`).
            block: b of a form of blocks; None for the largest whose blocks are at least
                nine tenths full.
            rows: of x in a usual product, B * T, by which "auto" decides; of several,
                each must be faster.
            frozen: makes the layer as `freeze` does, and "auto" decides accordingly.
            cache_file: where "auto" remembers; None for one under ~/.cache/tfopt.

        Returns:
            The layer, of the same name, dtype, activation, regularizers and weights.

        Raises:
            ValueError: the layer is no Dense that is built, the kernel is not finite,
                or zeros only; or an argument breaks its rule.
        """
        if not isinstance(layer, keras.layers.Dense) or not layer.built:
            raise ValueError("What is made sparse must be a Dense that is built. "
                             f"Received: {type(layer).__name__} {layer.name!r}")
        kernel = layer.kernel.numpy()
        if backend == "auto":
            found = choose(kernel, block=block, rows=rows, frozen=frozen,
                           dtype=layer.compute_dtype, cache_file=cache_file)
            backend, block = found.backend, found.block
        elif storage.is_block(backend) and block is None:
            block = storage.fitting_block(kernel)
        storage.check_backend(backend, layer.compute_dtype, block)
        storage.check_kernel(kernel)
        pattern = (storage.kept_blocks(kernel, block)
                   if block is not None and storage.is_block(backend) else kernel != 0)
        config = layer.get_config()
        same = {name: config[name] for name in (
            "name", "trainable", "dtype", "units", "activation", "use_bias",
            "kernel_initializer", "bias_initializer", "kernel_regularizer",
            "bias_regularizer", "activity_regularizer") if name in config}
        made = cls.from_config({**same, "backend": backend, "block": block,
                                "pattern": pattern})
        with tf.name_scope(made.name):
            made.build([None, kernel.shape[0]])
        made.values.assign(kernel if backend == "dense" else storage.values_of(
            kernel, made.indices.numpy(), made.block))
        if made.use_bias:
            made.bias.assign(layer.bias)
        if frozen:
            made.freeze()
        return made

    def build(self, input_shape):
        """Makes the weights.

        Raises:
            ValueError: K is unknown, or the pattern is not of K and N.
        """
        inputs = tf.TensorShape(input_shape)[-1]
        if len(input_shape) < 2 or inputs is None:
            raise ValueError("A sparse layer needs an input of two axes or more, of a "
                             f"known width. Received: shape={tuple(input_shape)}")
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: inputs})
        self._shape = (inputs, self.units)
        indices = self._first_indices()
        if self.backend == "dense":
            shape = self._shape
        else:
            shape = [len(indices), *([self.block] * 2 if self.block else [])]
        self.values = self.add_weight(
            name="values", shape=shape, initializer=self._first_values(indices),
            regularizer=self.kernel_regularizer)
        self.bias = self.add_weight(
            name="bias", shape=[self.units], initializer=self.bias_initializer,
            regularizer=self.bias_regularizer) if self.use_bias else None
        self.indices = None if self.backend == "dense" else self.add_weight(
            name="indices", shape=indices.shape, dtype=tf.int32, trainable=False,
            initializer=lambda shape, dtype=None, **_: tf.constant(indices, tf.int32))
        super().build(input_shape)

    def call(self, inputs, training=None):
        """Multiplies, adds, activates.

        Args:
            inputs: x <float>[..., K], of two axes or more.
            training: whether it is trained; a frozen layer then is not frozen.

        Returns:
            <float>[..., N].
        """
        x, kernel = tf.cast(inputs, self.compute_dtype), self._kernel(training)
        bias = tf.cast(self.bias, self.compute_dtype) if self.use_bias else None
        if not training and self.activation in _OF_EACH_ALONE:
            return matmul(x, kernel, bias, self.activation)
        y = matmul(x, kernel)
        return self.activation(y if bias is None else tf.nn.bias_add(y, bias))

    def freeze(self) -> None:
        """Makes the CSR matrix once, from the present values, instead of in each call.

        For a process that runs the model: a frozen layer knows nothing of values that
        change afterwards, unless it is frozen anew. It is saved as others are, but for
        a SavedModel (`unfreeze`). Graphs made before, such as `predict`'s, stay as they
        are. Does nothing in other forms.
        """
        if self.backend == "csr":
            self._frozen = Csr(
                indices=self.indices.numpy(), shape=self._shape,
                values=tf.cast(self.values.read_value(), self.compute_dtype)).constant()

    def unfreeze(self) -> None:
        """Undoes `freeze`."""
        self._frozen = None

    def dense_kernel(self) -> np.ndarray:
        """W <float>[K, N], its zeros among the others."""
        values = self.values.numpy()
        if self.backend == "dense":
            return values
        columns, rows = self.indices.numpy().T
        inputs, outputs = self._shape
        size = self.block or 1
        kernel = np.zeros([inputs // size, size, outputs // size, size], values.dtype)
        kernel[rows, :, columns] = values.reshape(-1, size, size)
        return kernel.reshape(self._shape)

    def get_config(self):
        """Mirrors `__init__`."""
        return {
            **super().get_config(), "units": self.units, "backend": self.backend,
            "block": self.block, "nonzeros": self.nonzeros,
            "pattern": storage.encode(self.pattern) if self.block else None,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer)}

    def _kernel(self, training):
        """What `matmul` multiplies by."""
        values = tf.cast(self.values, self.compute_dtype)
        if self.backend == "dense":
            return values
        if self.block:
            indices = storage.indices_of(self.pattern, by_count=True)
            self._check_pattern(indices)
            return Blocks.of_backend(self.backend, indices=indices, values=values,
                                     shape=self._shape)
        if self._frozen is not None and not training:
            return self._frozen
        if self.backend == "csr":
            return Csr(indices=self.indices, values=values, shape=self._shape)
        indices = tf.cast(self.indices, tf.int64)
        # By output: `sparse_dense_matmul` takes any order.
        return tf.SparseTensor(tf.reverse(indices, [1]), values, self._shape)

    def _check_pattern(self, indices: np.ndarray) -> None:
        """Refuses weights of another pattern than the graph is made for."""
        with tf.init_scope():
            if not tf.executing_eagerly() or tf.distribute.in_cross_replica_context():
                return
            if not np.array_equal(self.indices.numpy(), indices):
                raise ValueError("Weights must be of the blocks that the layer is made "
                                 f"for. Received: others, in layer {self.name!r}")

    def _first_indices(self) -> np.ndarray | None:
        """The (column, row) of fresh values, <int32>[kept, 2]."""
        if self.backend == "dense":
            return None
        size = self.block or 1
        shape = tuple(length // size for length in self._shape)
        if self.pattern is None:  # until they are loaded: anything that is a pattern
            places = np.arange(self.nonzeros) * (shape[0] * shape[1]) // self.nonzeros
            return np.stack(np.divmod(places, shape[0]), 1).astype(np.int32)
        if self.pattern.shape != shape or shape[0] * size != self._shape[0]:
            raise ValueError("The pattern must be of the kernel's inputs and outputs, "
                             f"{shape}. Received: shape={self.pattern.shape}")
        return storage.indices_of(self.pattern, by_count=bool(self.block))

    def _first_values(self, indices: np.ndarray | None):
        """Draws as for a whole kernel, whose sizes an initializer goes by."""
        def draw(shape, dtype=None, **_):
            kernel = self.kernel_initializer(self._shape, dtype=dtype)
            if self.backend != "dense":
                size = self.block or 1
                inputs, outputs = self._shape
                kernel = tf.transpose(tf.reshape(kernel, [
                    inputs // size, size, outputs // size, size]), [2, 0, 1, 3])
                return tf.reshape(tf.gather_nd(kernel, indices), shape)
            if self.pattern is not None:
                kernel *= tf.cast(self.pattern, kernel.dtype)
            return kernel

        return draw

    def _trackable_children(self, save_type="checkpoint", **kwargs):
        """Refuses a SavedModel of what it cannot hold; else as of any layer."""
        if self._frozen is not None and save_type == "savedmodel":
            raise ValueError("A layer in a SavedModel must not be frozen; call "
                             f"unfreeze(). Received: layer {self.name!r}")
        return super()._trackable_children(save_type, **kwargs)
