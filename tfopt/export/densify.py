"""Layers with sparse kernels -> plain Dense ones, which TFLite has an operation for.

A `.tflite` of a sparse layer (`tfopt.sparse`) holds its kernel with the zeros; the
export `sparse_float32` stores them by TFLite's own encoding.
"""

from __future__ import annotations

from absl import logging

from tfopt.backend import keras


def sparse_layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """The layers of a model whose kernels are stored without their zeros, by name."""
    # What can tell a dense kernel is sparse; which class it is need not be known here.
    return {layer.name: layer for layer in model.layers
            if hasattr(layer, "dense_kernel")}


def note(model: keras.Model) -> str | None:
    """Says what a `.tflite` of a model loses; None where no layer is sparse."""
    names = list(sparse_layers(model))
    if not names:
        return None
    some = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return ("TFLite has no product that leaves zeros out: in a .tflite the sparse "
            f"layers ({len(names)}: {some}) are dense again, zeros and all; "
            "sparse_float32 stores their zeros in fewer bytes, and is no faster")


def densified(model: keras.Model) -> keras.Model:
    """Puts Dense layers in the place of sparse ones.

    Args:
        model: functional.

    Returns:
        A model whose other layers are shared; `model` itself where none is sparse.
    """
    sparse = sparse_layers(model)
    if not sparse:
        return model
    logging.info("%s", note(model))

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
