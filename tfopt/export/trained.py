"""The ranges that quantization-aware training found -> the tensors of a `.tflite`.

A trained model names points of layers; a converted graph has tensors, whose names hold
those of the layers. Between the two the converter has fused and folded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from tfopt.export import flatbuffer
from tfopt.model.inference_layers import OUTLIER_SCOPE
from tfopt.model.quantized_layers import (
    Grid,
    Quantized,
    QuantizedAdd,
    QuantizedAttention,
    QuantizedNorm,
)

Range = tuple[float, float]
_POINTS = {  # layer and point -> the operation there, and how its output is called
    (QuantizedAttention, "scores"): ("BATCH_MATMUL", "MatMul"),
    (QuantizedAttention, "biased"): ("ADD", "biased"),
    (QuantizedAttention, "probabilities"): ("SOFTMAX", "Softmax"),
    (QuantizedAttention, "output"): ("RESHAPE", "Reshape_3"),
    (QuantizedAdd, "output"): ("ADD", "add"),
    (QuantizedNorm, "output"): ("ADD", "normalized"),
}
# What these give are the numbers that they take.
_VIEWS = ("RESHAPE", "TRANSPOSE", "STRIDED_SLICE")


def ranges(contents: bytes, layers: Mapping[str, Quantized]) -> dict[str, Range]:
    """Finds the tensors at whose points a model was trained to round.

    Args:
        contents: the model's float graph.
        layers: its quantized layers by name.

    Returns:
        Tensor name -> lowest and highest value.
    """
    finder = _TensorFinder(contents)
    found: dict[str, Range] = {}
    for name, layer in layers.items():
        for point, grid in layer.grids.items():
            if grid.kind == "static":
                found |= finder.tensors_at(name, layer, point, grid)
    return finder.through_views(found)


def outlier_channels(layers: Mapping[str, Quantized]) -> dict[str, tuple[int, ...]]:
    """The layers whose output has channels with a range of their own."""
    return {name: layer.grids["output"].channels for name, layer in layers.items()
            if hasattr(layer, "kernel") and "output" in layer.grids
            and layer.grids["output"].channels}


class _TensorFinder:
    """A float graph whose tensors are found by layer and point."""

    def __init__(self, contents: bytes):
        self._model = flatbuffer.parse(contents)
        self._graph = self._model.subgraphs[0]
        self._named: dict[str, list] = {}
        for operation in self._graph.operators:
            kind = flatbuffer.kind(self._model, operation)
            self._named.setdefault(kind, []).append(operation)

    def tensors_at(self, name: str, layer: Quantized, point: str,
                   grid: Grid) -> dict[str, Range]:
        """Tensor name -> range of one point."""
        if hasattr(layer, "kernel"):
            return self._of_dense(name, layer, point, grid)
        if (type(layer), point) not in _POINTS:  # a table's own numbers tell its range
            return {}
        kind, label = _POINTS[type(layer), point]
        return {self._output(operation): (grid.low, grid.high)
                for operation in self._named.get(kind, ())
                if re.search(rf"/{name}/{label}\d*(;|$)",
                             _last(self._output(operation)))}

    def through_views(self, found: Mapping[str, Range]) -> dict[str, Range]:
        """Gives reshaped tensors the ranges of those they are views of, and back."""
        spread = dict(found)
        views = [(self._name(op.inputs[0]), self._output(op)) for op in
                 self._graph.operators
                 if flatbuffer.kind(self._model, op) in _VIEWS]
        for source, view in reversed(views):
            if view in spread:
                spread.setdefault(source, spread[view])
        for source, view in views:
            if source in spread:
                spread[view] = spread[source]
        return spread

    def _of_dense(self, name, layer, point, grid) -> dict[str, Range]:
        found = {}
        for operation in self._named["FULLY_CONNECTED"]:
            output = self._output(operation)
            # The last operation's output has the signature's name.
            names = map(self._name, (*operation.outputs, *operation.inputs[1:]))
            if not any(f"/{name}/" in _last(own) for own in names):
                continue
            # The scale of the scores is folded into the kernel of the queries.
            factor = self._factor(operation, layer)
            if f"/{OUTLIER_SCOPE}/" in output:
                own = grid.channels_low, grid.channels_high
            else:
                own = factor * grid.low, factor * grid.high
            if point == "input":
                found[self._name(operation.inputs[0])] = grid.low, grid.high
            elif point == "output":
                found[output] = own
            else:
                found |= {self._output(after): (grid.low, grid.high)
                          for after in self._graph.operators
                          if after.inputs[0] == operation.outputs[0]}
        return found

    def _factor(self, operation, layer) -> float:
        tensor = self._graph.tensors[operation.inputs[1]]
        data = flatbuffer.stored(self._model, tensor)
        if data is None:
            return 1.0
        weights, kernel = data.view(np.float32), layer.kernel.numpy().T.ravel()
        if weights.size != kernel.size:
            return 1.0
        # Of one weight: channels that are split off are 0 there, but not here.
        place = np.abs(weights).argmax()
        return float(weights[place] / kernel[place]) if weights[place] else 1.0

    def _name(self, tensor: int) -> str:
        return self._graph.tensors[tensor].name.decode()

    def _output(self, operation) -> str:
        return self._name(operation.outputs[0])


def _last(name: str) -> str:
    """Of a fused operation's names, the part that tells what it ends with."""
    parts = [part for part in name.split(";") if part]
    return ";".join(parts[-3:])
