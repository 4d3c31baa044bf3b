"""Layers with sparse kernels -> plain Dense ones, which TFLite has an operation for.

A `.tflite` of a sparse layer (`tfopt.sparse`) holds its kernel with the zeros; the
export `sparse_float32` stores them by TFLite's own encoding.
"""

from __future__ import annotations

from absl import logging

from tfopt.backend import keras


def densified(model: keras.Model) -> keras.Model:
    """Puts Dense layers in the place of sparse ones.

    Args:
        model: functional.

    Returns:
        A model whose other layers are shared; `model` itself where none is sparse.
    """
    # What can tell a dense kernel is sparse; which class it is need not be known here.
    sparse = {layer.name: layer for layer in model.layers
              if hasattr(layer, "dense_kernel")}
    if not sparse:
        return model
    logging.info("TFLite has no sparse product; exported dense, zeros and all: %d "
                 "layers, %s among them", len(sparse), next(iter(sparse)))

    def plain(layer):
        if layer.name not in sparse:
            return layer
        return keras.layers.Dense(layer.units, layer.activation, layer.use_bias,
                                  name=layer.name, dtype=layer.dtype_policy)

    after = keras.models.clone_model(model, clone_function=plain)
    for name, layer in sparse.items():
        bias = [layer.bias.numpy()] if layer.use_bias else []
        after.get_layer(name).set_weights([layer.dense_kernel(), *bias])
    return after
