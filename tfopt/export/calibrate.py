"""Ranges of a model's activations, seen on examples.

Each example runs alone at its own length, so that no padding is in the ranges. They
are kept as a histogram of each tensor, from which three methods take the range:
"min_max", all of it; "percentile", all but the outermost 0.01 % of values; "mse", the
part whose rounding and clipping lose least, in mean square.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from ai_edge_litert import interpreter as litert

from tfopt import inputs
from tfopt.export import flatbuffer
from tfopt.export.litert import widened

Example = Mapping[str, np.ndarray]
LOGITS = "logits"
METHODS = ("min_max", "percentile", "mse")
FEWEST = 2  # examples
_BINS = 4096
_STEPS = 255  # of 8 bits
_OUTERMOST = 1e-4
_SHARES = np.linspace(0.02, 1.0, 50)  # of the whole range, tried by "mse"


def examples_of(ids: Sequence[Sequence[int]],
                first_lengths: Sequence[int]) -> list[dict[str, np.ndarray]]:
    """What `tfopt.inputs.examples` makes of two fields of `data.Encoded`."""
    return inputs.examples(SimpleNamespace(ids=ids, first_lengths=first_lengths))


@dataclasses.dataclass(frozen=True)
class Observed:
    """What was seen of one tensor.

    Attributes:
        counts: of values by bin <int64>[bins].
        lowest: left edge of the first bin.
        highest: right edge of the last.
        channels: largest |value| of each index of the last axis <float32>[N].
        typical: largest |value| of the median example; None where it is not known.
        is_end: whether it is an input or an output of the model.
    """

    counts: np.ndarray
    lowest: float
    highest: float
    channels: np.ndarray
    typical: float | None = None
    is_end: bool = False

    def range(self, method: str) -> tuple[float, float]:
        """The range to quantize, by one of `METHODS`."""
        if method == "min_max" or self.highest <= self.lowest:
            return self.lowest, self.highest
        edges = np.linspace(self.lowest, self.highest, _BINS + 1)
        if method == "percentile":
            shares = np.cumsum(self.counts) / self.counts.sum()
            first = np.searchsorted(shares, _OUTERMOST)
            last = np.searchsorted(shares, 1 - _OUTERMOST)
            return float(min(edges[first], 0.0)), float(max(edges[last + 1], 0.0))
        return self._least_error(edges)

    def check(self, name: str, method: str) -> None:
        """Checks that a range of 8 bits leaves something of an end of the model.

        What is rounded to 0 within the model may be of no use; at its ends it is all.

        Args:
            name: of the tensor.
            method: by which the range is taken.

        Raises:
            ValueError: all examples have one value there, or next to one of them all
                others are rounded to 0.
        """
        if not self.is_end:
            return
        low, high = self.range(method)
        if high <= low:
            raise ValueError(
                "Calibration needs examples like those to come; of these, all have one "
                f"value in {name}, from which no range follows. Received: {low:g}")
        if self.typical is not None and self.typical < (high - low) / _STEPS / 2:
            raise ValueError(
                "Calibration needs examples like those to come; next to one of these, "
                f"all others are rounded to 0 in {name}. Received: a range of {low:g} "
                f"to {high:g}, where half of the examples stay within {self.typical:g}")

    def _least_error(self, edges):
        """One end after the other, for it is the outliers of one that matter."""
        values = (edges[:-1] + edges[1:]) / 2

        def error(low, high):
            step = (high - low) / _STEPS
            clipped = np.clip(values, low, high)
            # Within the range, rounding is uniform: step^2 / 12.
            return float(self.counts @ ((values - clipped) ** 2 + step * step / 12))

        low, high = min(self.lowest, 0.0), max(self.highest, 0.0)
        ends = low, high
        for _ in range(2):
            high = min((share * ends[1] for share in _SHARES),
                       key=lambda end: error(low, end))
            low = min((share * ends[0] for share in _SHARES),
                      key=lambda end: error(end, high))
        return float(low), float(high)


def observe(contents: bytes, examples: Sequence[Example]) -> dict[str, Observed]:
    """Runs examples, and keeps what each activation was.

    Args:
        contents: a `.tflite` in float32, of the signature `serving_default`.
        examples: its inputs by name, a batch of 1 each.

    Returns:
        Tensor name -> what was seen; constants are left out.

    Raises:
        ValueError: there are fewer than two examples, all are the same, one is no input
            of the model, or makes an activation that is no finite number.
    """
    check_examples(examples)
    recorder = _Recorder(contents)
    limits: dict[str, _Limits] = {}
    for example in examples:
        for name, value in recorder.run(example):
            limits.setdefault(name, _Limits()).add(name, value)
    first, *others = examples
    if all(name in other and np.array_equal(first[name], other[name])
           for other in others for name in first):
        raise ValueError("Calibration needs examples that differ. Received: "
                         f"{len(examples)} times the same")
    counts = {name: np.zeros(_BINS, np.int64) for name in limits}
    for example in examples:
        for name, value in recorder.run(example):
            low, high = limits[name].lowest, limits[name].highest
            scale = _BINS / (high - low) if high > low else 0.0
            bins = np.minimum((value.ravel() - low) * scale, _BINS - 1).astype(np.int32)
            counts[name] += np.bincount(bins, minlength=_BINS)
    return {name: Observed(counts[name], seen.lowest, seen.highest, seen.channels,
                           float(np.median(seen.reaches)), name in recorder.ends)
            for name, seen in limits.items()}


@dataclasses.dataclass
class _Limits:
    """Between what a tensor's values lie, in the examples so far."""

    lowest: float = np.inf
    highest: float = -np.inf
    channels: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(0, np.float32))
    reaches: list[float] = dataclasses.field(default_factory=list)

    def add(self, name: str, value: np.ndarray) -> None:
        """Takes the value of one more example."""
        low, high = float(value.min()), float(value.max())
        if not np.isfinite([low, high]).all():
            raise ValueError("Calibration needs examples of which a model makes finite "
                             f"numbers. Received: {low:g} to {high:g} in {name}")
        self.lowest, self.highest = min(self.lowest, low), max(self.highest, high)
        self.reaches.append(max(-low, high))
        channels = np.abs(value).reshape(-1, value.shape[-1]).max(axis=0) if (
            value.ndim) else np.abs(value)[None]
        # The last axis may be the tokens.
        if self.channels.shape == channels.shape:
            channels = np.maximum(self.channels, channels)
        self.channels = channels


def check_examples(examples: Any) -> None:
    """Checks that there are examples, whatever is in them.

    Raises:
        ValueError: they are no list, or fewer than two.
    """
    if isinstance(examples, str | Mapping) or not isinstance(examples, Sequence):
        raise ValueError("Calibration takes a list of examples, each of which has "
                         "arrays of a batch of 1 by the names of the model's inputs. "
                         f"Received: {type(examples).__name__}")
    if len(examples) < FEWEST:
        raise ValueError(f"Calibration needs at least {FEWEST} examples, better some "
                         f"hundreds. Received: {len(examples)}")


def values(contents: bytes, examples: Sequence[Example]) -> list[dict[str, np.ndarray]]:
    """Runs examples: tensor name -> value of each float activation, for each example.

    The logits are there under the name `LOGITS`, widened where they are integers.
    """
    recorder = _Recorder(contents)
    return [{name: value.copy() for name, value in recorder.run(example)}
            | {LOGITS: recorder.logits()} for example in examples]


class _Recorder:
    """A `.tflite` that keeps every activation of a run."""

    def __init__(self, contents: bytes):
        model = flatbuffer.parse(contents)
        self._constants = {tensor.name.decode() for graph in model.subgraphs
                           for tensor in graph.tensors
                           if flatbuffer.stored(model, tensor) is not None}
        with warnings.catch_warnings():  # that all tensors take memory: a text's worth
            warnings.simplefilter("ignore", UserWarning)
            self._interpreter = litert.Interpreter(
                model_content=contents, experimental_preserve_all_tensors=True)
        runner = self._interpreter.get_signature_runner("serving_default")
        self._inputs = runner.get_input_details()
        self._output, = runner.get_output_details().values()
        self.ends = {details["name"] for details in (
            *runner.get_input_details().values(), self._output)}

    def run(self, example: Example):
        """Yields name and value of each float32 activation."""
        given = {details["index"]: _array(example, name, details)
                 for name, details in self._inputs.items()}
        try:
            for index, value in given.items():
                self._interpreter.resize_tensor_input(index, value.shape)
            self._interpreter.allocate_tensors()
            for index, value in given.items():
                self._interpreter.set_tensor(index, value)
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise ValueError("The model refuses an example of calibration; it may be "
                             "too long, or hold ids outside of the vocabulary. "
                             f"Received: {_described(example)}: {error}") from error
        for details in self._interpreter.get_tensor_details():
            name = details["name"]
            if details["dtype"] != np.float32 or not name or name in self._constants:
                continue
            try:
                value = self._interpreter.get_tensor(details["index"])
            except ValueError:  # one that the delegate keeps to itself
                continue
            if value.size:
                yield name, value

    def logits(self) -> np.ndarray:
        """What the last run gave <float32>[1, C]."""
        return widened(self._interpreter.get_tensor(self._output["index"]),
                       self._output["quantization"])


def _array(example: Any, name: str, details: Mapping[str, Any]) -> np.ndarray:
    """One input of an example, of the dtype that the model takes.

    Raises:
        ValueError: it is missing, of another shape or kind of numbers, or not finite.
    """
    rule, dtype = "", np.dtype(details["dtype"])
    wanted = details["shape_signature"]
    value = np.asarray(example[name]) if (
        isinstance(example, Mapping) and name in example) else None
    if value is None:
        rule = "there"
    elif not np.can_cast(value.dtype, dtype, "same_kind") or (
            dtype.kind in "iu" and np.any(value != value.astype(dtype))):
        rule = f"of {dtype.name}"
    elif value.ndim != len(wanted) or not value.size or any(
            size not in (-1, own) for size, own in zip(wanted, value.shape,
                                                       strict=True)):
        rule = f"of shape {[None if size < 0 else int(size) for size in wanted]}"
    elif not np.all(np.isfinite(value)):
        rule = "of finite numbers"
    if value is None or rule:
        raise ValueError(f"An example of calibration must be a batch of 1 by the names "
                         f"of the model's inputs; {name!r} must be {rule}. Received: "
                         f"{_described(example)}")
    return value.astype(dtype)


def _described(example: Any) -> str:
    if not isinstance(example, Mapping):
        return type(example).__name__
    arrays = {name: np.asarray(value) for name, value in example.items()}
    return ", ".join(f"{name} <{value.dtype}>{list(value.shape)}"
                     for name, value in arrays.items()) or "nothing"
