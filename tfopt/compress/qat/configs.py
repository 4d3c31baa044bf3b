"""Quantization-aware training on tfmot: what is rounded, and where.

Our `QuantizeConfig` for each layer of `model.quantized_layers`: tfmot's own know
neither Embedding nor attention, and round a Dense per tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfopt.backend import QuantizeWrapper, keras, tf, tfmot
from tfopt.compress.pruning.masked_layer import uncast
from tfopt.compress.qat.observers import Fixed, Quantizer, Ranged, Table, Weights
from tfopt.model import fake_quant
from tfopt.model.quantized_layers import QUANTIZED, Grid, Quantized
from tfopt.train.callbacks import steps_done


@keras.utils.register_keras_serializable(package="tfopt")
class PointsConfig(tfmot.quantization.keras.QuantizeConfig):
    """What is rounded in a layer of `model.quantized_layers`, and how.

    Args:
        points: point -> "per_token", "rows", "table" (one range for all rows), "range",
            "channel_ranges" or "unit" (from 0 to 1, of probabilities).
        weight_bits: of the kernel, or of the rows; None leaves it in float.
        weight_block: weights that share a scale; None for all along the input.
        width: size of the output's last axis; for "channel_ranges" alone.
    """

    def __init__(self, points: Mapping[str, str], weight_bits: int | None = None,
                 weight_block: int | None = None, width: int | None = None):
        self.points = dict(points)
        self.weight_bits = weight_bits
        self.weight_block = weight_block
        self.width = width

    def get_weights_and_quantizers(self, layer):
        """The kernel; a table is rounded where its rows are looked up."""
        if self.weight_bits is None or not hasattr(layer, "kernel"):
            return []
        return [(layer.kernel, Weights(self.weight_bits, self.weight_block))]

    def set_quantize_weights(self, layer, quantize_weights):
        """Puts the rounded kernel in its place, for a call."""
        for kernel in quantize_weights:
            layer.kernel = kernel

    def get_activations_and_quantizers(self, layer):
        """A quantizer for each point."""
        return [(keras.activations.linear, self._quantizer(layer, point))
                for point in self.points]

    def set_quantize_activations(self, layer, quantize_activations):
        """Puts them at their points."""
        layer.hooks = dict(zip(self.points, quantize_activations, strict=True))

    def get_output_quantizers(self, layer):
        """None: an output is a point like others."""
        return []

    def get_config(self):
        """Mirrors `__init__`."""
        return {"points": self.points, "weight_bits": self.weight_bits,
                "weight_block": self.weight_block, "width": self.width}

    def _quantizer(self, layer, point: str) -> Quantizer:
        kind = self.points[point]
        if kind == "range":
            return Ranged(point)
        if kind == "channel_ranges":
            return Ranged(point, self.width)
        if kind == "table":
            return Table(layer)
        return Fixed({
            "per_token": Grid("per_token"),
            "rows": Grid("rows", bits=self.weight_bits or 8, block=self.weight_block),
            "unit": Grid("static", 0.0, 255.0 / 256.0)}[kind])


def annotate(model: keras.Model, configs: Mapping[str, PointsConfig]) -> keras.Model:
    """Copies a model with wrappers that round, for training.

    Args:
        model: functional, of plain layers.
        configs: layer -> what is rounded in it.

    Returns:
        What tfmot's `quantize_apply` would make by way of four copies; the wrappers
        have their layers' names.
    """
    def quantizable(layer):
        # An exact type: of a subclass, the quantized layer would forget what is its.
        kind = QUANTIZED[type(layer)] if layer.name in configs else type(layer)
        return kind.from_config(layer.get_config())

    def wrapped(layer):
        config = configs.get(layer.name)
        return layer if config is None else QuantizeWrapper(
            layer, config, name_prefix="", dtype=layer.dtype_policy)

    # Built before it is wrapped, a layer's variables are its own by name.
    copy = keras.models.clone_model(model, clone_function=quantizable)
    copy.set_weights(model.get_weights())
    annotated = keras.models.clone_model(copy, clone_function=wrapped)
    for wrapper in wrappers_of(annotated).values():
        wrapper.zeros_before = _zeros(wrapper)
    return annotated


def wrappers_of(model: keras.Model) -> dict[str, Any]:
    """Tfmot's wrappers of a model in training by the names of their layers."""
    return {layer.name: layer for layer in model.layers
            if isinstance(layer, QuantizeWrapper)}


def check_trained(model: keras.Model, begin_step: int) -> None:
    """Refuses a wrapped model whose training has not done what its scheme needs.

    Args:
        model: wrapped.
        begin_step: optimizer step from which ranges round.

    Raises:
        ValueError: ranges saw no batch, or numbers were never rounded by them.
    """
    optimizer = getattr(model, "optimizer", None)
    done = None if optimizer is None else steps_done(model)
    steps = "" if done is None else f" after {done} steps"
    for name, wrapper in wrappers_of(model).items():
        for activation in wrapper._quantize_activations:
            missing = activation.quantizer.missing()
            if isinstance(activation.quantizer, Ranged) and done == begin_step > 0:
                missing = missing or "ranges that never rounded"
            if missing:
                raise ValueError(
                    "A model must be trained with quantization before it is stripped: "
                    "`fit` needs the pass's `callbacks()`, and more than begin_step="
                    f"{begin_step} steps. Received: {missing}{steps}, in layer "
                    f"{name!r}")
        zeros = _zeros(wrapper)
        before = getattr(wrapper, "zeros_before", 0)  # of a loaded one nothing is known
        if zeros < before:
            raise ValueError(
                "The zeros of a pruned model are kept by the pass's `callbacks()`, "
                f"which `fit` needs. Received: {zeros:,} zeros of "
                f"{before:,}{steps}, in layer {name!r}")


def _zeros(wrapper) -> int:
    """Zeros of a layer's kernel or table, unless it is all zeros, and so fresh."""
    weights = next((own for own in _own_weights(wrapper) if own.ndim > 1), None)
    return 0 if weights is None or not weights.any() else int(np.sum(weights == 0))


def finalize(model: keras.Model) -> keras.Model:
    """Takes the wrappers off a trained model: fixed grids, and weights on theirs."""
    wrappers = wrappers_of(model)

    def finalized(layer):
        if layer.name not in wrappers:
            return type(layer).from_config(layer.get_config())
        own, config = layer.layer, layer.quantize_config
        grids = {}
        for point, activation in zip(config.points, layer._quantize_activations,
                                     strict=True):
            grids[point] = activation.quantizer.grid()
        return type(own).from_config({
            **own.get_config(), "grids": grids, "weight_bits": config.weight_bits,
            "weight_block": config.weight_block})

    plain = keras.models.clone_model(model, clone_function=finalized)
    for layer in plain.layers:
        if layer.name in wrappers:
            layer.set_weights(_own_weights(wrappers[layer.name]))
            round_weights(layer)
        else:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return plain


def round_weights(layer: Quantized) -> None:
    """Rounds a layer's kernel or table to the grid that its file will have."""
    if layer.weight_bits is None or layer.weights_name is None:
        return
    weights = getattr(layer, layer.weights_name)
    rows = layer.grids.get("rows")
    if rows is not None:
        weights.assign(rows(tf.convert_to_tensor(weights)))
    else:
        weights.assign(fake_quant.symmetric(tf.convert_to_tensor(weights),
                                            layer.weight_bits, 0, layer.weight_block))


def _own_weights(wrapper) -> Sequence[np.ndarray]:
    """The weights of the layer in a wrapper, in its own order.

    While a wrapper trains, its layer's attribute for the kernel is a rounded tensor.
    """
    kernels = [variable for variable, _, _ in wrapper._weight_vars]
    others = [weight for weight in wrapper.layer.weights
              if not any(weight is kernel for kernel in kernels)]
    return [uncast(weight).numpy() for weight in (*kernels, *others)]
