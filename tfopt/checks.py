"""What tfopt asks of a Keras model: one graph of layers, of finite numbers, to logits.

Every door that takes a user's own model checks it here, so that each says the same of
what it cannot read.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfopt.backend import (
    PruneLowMagnitude,
    QuantizeWrapper,
    keras,
    tf,
)

# What passes numbers on as they are, or loses some.
_PASSES_ON = (keras.layers.Dropout, keras.layers.Flatten, keras.layers.Reshape)
_OF_PROBABILITIES = ("softmax", "sigmoid")
_SUM_TOLERANCE = 1e-3  # of probabilities in float16


def check(model: Any, what: str = "A model") -> None:
    """Checks that a model's layers can be told apart.

    Args:
        model: to be checked.
        what: how an error calls it.

    Raises:
        ValueError: it is no Keras model, one of Keras 3, or it, or one within it, is
            subclassed or not built.
    """
    if not isinstance(model, keras.Model):
        packages = {kind.__module__.partition(".")[0] for kind in type(model).__mro__}
        if "keras" in packages:
            raise ValueError(
                f"{what} must be of Keras 2, which is `tf.keras` once tfopt is "
                "imported; build it with that. Received: "
                f"{type(model).__name__} {getattr(model, 'name', '')!r} of Keras 3")
        raise ValueError(f"{what} must be a Keras model. Received: "
                         f"{type(model).__name__}")
    if not getattr(model, "_is_graph_network", False):
        raise ValueError(
            f"{what} must be functional or Sequential (and built), so that its layers "
            f"can be told apart. Received: {type(model).__name__} {model.name!r}")
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            check(layer, f"{what}'s models, too,")


def check_one_output(model: keras.Model, what: str = "A model") -> None:
    """Checks, beside what `check` does, that a model gives one tensor.

    Raises:
        ValueError: it has several outputs, or `check` refuses it.
    """
    check(model, what)
    if len(model.outputs) != 1:
        names = [tensor.name.partition("/")[0] for tensor in model.outputs]
        raise ValueError(
            f"{what} must have one output; `keras.Model(model.inputs, "
            "model.outputs[0])` has the first alone. Received: "
            f"{model.name!r} with the outputs {names}")


def check_logits(model: keras.Model, what: str = "A model", several: bool = True
                 ) -> None:
    """Checks that a model gives logits.

    Args:
        model: to be checked.
        what: how an error calls it.
        several: whether they are of classes, of which there must be two or more.

    Raises:
        ValueError: it gives probabilities, of which a softmax or sigmoid would be taken
            once more, or a single number.
    """
    check_one_output(model, what)
    found = _gives_probabilities(model)
    if found:
        raise ValueError(
            f"{what} must give logits, for {'softmax' if several else 'a sigmoid'} is "
            "taken of what it gives: take the activation off (`layer.activation = "
            "tf.keras.activations.linear`), or end the model before (`layer.input`). "
            f"Received: {model.name!r}, whose {found} gives probabilities")
    if several and model.output_shape[-1] == 1:
        raise ValueError(
            f"{what} of classes must give a logit for each of two or more; a model of "
            "one number is trained by the task `regression`. Received: "
            f"{model.name!r} with outputs {model.output_shape}")


def ends_in_softmax(model: keras.Model) -> bool:
    """Whether a model's layers tell that its first output is a softmax."""
    layer = _last_layer(model)
    return isinstance(layer, keras.layers.Softmax) or _name_of(layer) == "softmax"


def check_stripped(model: keras.Model) -> None:
    """Checks that no layer is wrapped for training.

    Raises:
        ValueError: one is, or `check` refuses the model.
    """
    check(model)
    wrapped = [layer.name for layer in model.layers
               if isinstance(layer, PruneLowMagnitude | QuantizeWrapper)]
    if wrapped:
        raise ValueError("A model must be stripped of what a pass wrapped round its "
                         "layers: `small = the_pass.strip(model)`. Received: "
                         f"{model.name!r} with {wrapped[:4]}")


def check_finite(model: keras.Model, where: str = "") -> None:
    """Checks that all weights are numbers.

    Args:
        model: any.
        where: its file, for an error.

    Raises:
        ValueError: one is NaN or infinite; names it.
    """
    for weight in model.weights:
        if weight.dtype.is_floating and not tf.reduce_all(tf.math.is_finite(
                tf.cast(weight, tf.float32))):
            raise not_finite(weight.name, weight.numpy(), where or repr(model.name))


def not_finite(name: str, values: np.ndarray, where: str) -> ValueError:
    """The error of weights that are NaN or infinite, not raised yet."""
    bad = int(np.sum(~np.isfinite(values.astype(np.float32))))
    return ValueError("Weights must be finite numbers; a training that failed leaves "
                      f"others. Received: {where}: {name} with {bad:,} of "
                      f"{values.size:,} NaN or infinite")


def are_probabilities(outputs: np.ndarray) -> bool:
    """Whether every row of <float>[..., C] is a distribution, as of a softmax."""
    outputs = np.asarray(outputs, np.float32)
    outputs = outputs.reshape([-1, outputs.shape[-1]]) if outputs.ndim > 2 else outputs
    return bool(outputs.ndim == 2 and outputs.shape[0] and outputs.shape[1] > 1
                and outputs.min() >= 0
                and np.all(np.abs(outputs.sum(axis=1) - 1) < _SUM_TOLERANCE))


def _gives_probabilities(model: keras.Model) -> str:
    """The layer that makes probabilities of a model's first output; "" for none."""
    layer = _last_layer(model)
    made = (isinstance(layer, keras.layers.Softmax)
            or _name_of(layer) in _OF_PROBABILITIES)
    return f"layer {layer.name!r}" if made else ""


def _last_layer(model: keras.Model) -> keras.layers.Layer:
    """The last layer on a model's way to its first output that changes numbers."""
    tensor = model.outputs[0]
    while True:
        layer = tensor._keras_history.layer
        plain = getattr(layer, "layer", layer)  # in a wrapper that trains it
        if isinstance(plain, keras.Model):
            return _last_layer(plain)
        straight = isinstance(plain, _PASSES_ON) or (
            isinstance(plain, keras.layers.Activation)
            and plain.activation is keras.activations.linear)
        node = layer._inbound_nodes[tensor._keras_history.node_index]
        if not straight or len(node.keras_inputs) != 1:
            return plain
        tensor = node.keras_inputs[0]


def _name_of(layer: keras.layers.Layer) -> str:
    """The function that a layer ends with: its activation's, or its own."""
    activation = getattr(layer, "activation", None)
    if activation is not None:
        return getattr(activation, "__name__", "")
    return str(getattr(layer, "symbol", "")).rpartition(".")[2]  # tf.nn.softmax(x)
