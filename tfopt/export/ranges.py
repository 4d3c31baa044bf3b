"""Which ranges a graph is quantized by: trained ones, and those seen on examples."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfopt.backend import keras
from tfopt.export import calibrate, converter, flatbuffer, lookup, trained
from tfopt.export.calibrate import Example, Observed
from tfopt.export.trained import Range
from tfopt.model.anatomy import OUTLIER_RATIO, is_masked_scores, outlier_layer
from tfopt.model.quantized_layers import Quantized

# By how much a hidden position's score lies below the lowest visible one, where scores
# are integers: exp(-10) is 0 beside 1/256.
_HIDDEN_MARGIN = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class FloatGraph:
    """A model in float32, to be quantized.

    Attributes:
        model: of plain layers.
        length: tokens of its input; None where it is open.
        contents: the `.tflite`, in float32.
        trained: the quantized layers of the model that was given.
        for_old_runtimes: whether tables are to have one scale each.
        seen: what was observed on examples, kept for the next export.
    """

    model: keras.Model
    length: int | None
    contents: bytes
    trained: Mapping[str, Quantized]
    for_old_runtimes: bool = False
    seen: dict = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def looked_up(self) -> bytes:
        """The contents with their embeddings looked up (`lookup`), made once."""
        return lookup.look_embeddings_up(self.contents)


def of_products(graph: FloatGraph, calibration: Sequence[Example] | None, method: str
                ) -> dict[str, Range]:
    """The ranges for products in integers within a float graph.

    Args:
        graph: the model.
        calibration: examples; None where the ranges are trained.
        method: one of `calibrate.METHODS`.

    Returns:
        Tensor name -> lowest and highest value; those that are trained before those
        that were seen.

    Raises:
        ValueError: there are neither, or the examples are no use (`Observed.check`).
    """
    found = trained.ranges(graph.contents, graph.trained)
    if calibration is None:
        if not found:
            raise ValueError("Static ranges need examples to calibrate by. Received: "
                             "calibration=None")
        return found
    _, seen = _observed(graph, calibration)
    return _by(method, seen) | found


def of_all(graph: FloatGraph, calibration: Sequence[Example] | None, method: str
           ) -> dict[str, Range]:
    """The ranges for a graph of integers alone.

    Args:
        graph: the model.
        calibration: examples.
        method: one of `calibrate.METHODS`.

    Returns:
        The range of every tensor of `for_integers`.

    Raises:
        ValueError: there are no examples, or they are no use (`Observed.check`).
    """
    contents, seen = _for_integers(graph, calibration)
    ranges = _by(method, seen) | trained.ranges(contents, graph.trained)
    return {name: _with_room(name, limits) if graph.length else limits
            for name, limits in ranges.items()}


def for_integers(graph: FloatGraph, calibration: Sequence[Example] | None) -> bytes:
    """The float graph that one of integers alone is made from.

    Args:
        graph: the model.
        calibration: examples; they show which channels are outliers, unless trained.

    Returns:
        The `.tflite`, its LayerNorm in other operations, its outlier channels kept
        apart; made once.

    Raises:
        ValueError: there are no examples.
    """
    return _for_integers(graph, calibration)[0]


def _for_integers(graph: FloatGraph, calibration: Sequence[Example] | None
                  ) -> tuple[bytes, dict[str, Observed]]:
    if calibration is None:
        raise ValueError("A graph of integers needs examples to calibrate by: not "
                         "all of its ranges are trained. Received: calibration=None")
    channels = (trained.outlier_channels(graph.trained) if graph.trained
                else _outlier_channels(*_observed(graph, calibration)))
    return _observed(graph, calibration, channels)


def _by(method: str, seen: Mapping[str, Observed]) -> dict[str, Range]:
    for name, observed in seen.items():
        observed.check(name, method)
    return {name: observed.range(method) for name, observed in seen.items()}


def _observed(graph: FloatGraph, calibration: Sequence[Example],
              apart: Mapping[str, Sequence[int]] | None = None
              ) -> tuple[bytes, dict[str, Observed]]:
    """A float graph and what examples showed of it.

    It is the one given; or that for integers, where channels to be kept apart are.
    """
    key = id(calibration), None if apart is None else tuple(apart.items())
    if key not in graph.seen:
        wiring: dict[str, Any] = {
            "outlier_channels": apart or {}, "integer": apart is not None}
        contents = graph.contents if apart is None else converter.to_bytes(
            graph.model, length=graph.length, **wiring)
        # Examples run at their own lengths.
        opened = contents if graph.length is None else converter.to_bytes(
            graph.model, **wiring)
        # The examples are kept, too, so that no others get their id.
        graph.seen[key] = calibration, contents, calibrate.observe(opened, calibration)
    return graph.seen[key][1:]


def _outlier_channels(contents: bytes, seen) -> dict[str, tuple[int, ...]]:
    """Layer -> channels of its output whose range is many times the mean."""
    model = flatbuffer.parse(contents)
    found = {}
    for operation in flatbuffer.operations(model, "FULLY_CONNECTED"):
        name = flatbuffer.output_name(model.subgraphs[0], operation)
        layer = outlier_layer(name)
        if layer and name in seen:
            reach = seen[name].channels
            channels = np.flatnonzero(reach > OUTLIER_RATIO * reach.mean())
            if len(channels):
                found[layer] = tuple(channels.tolist())
    return found


def _with_room(name: str, limits: tuple[float, float]) -> tuple[float, float]:
    """Of scores to which the mask was added, with room for hidden ones."""
    low, high = limits
    return (low - _HIDDEN_MARGIN, high) if is_masked_scores(name) else limits
