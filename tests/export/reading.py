"""What the tests of exports read out of a `.tflite`, and how they run one."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
from ai_edge_litert import interpreter as litert

from tfopt.export import flatbuffer


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation: its kind, its output's name, and the dtypes around it."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def arithmetic(self) -> str:
        """"int8", "int16", "hybrid" (float with integer weights) or "float"."""
        if self.outputs[0].startswith("int"):
            return self.outputs[0]
        return "hybrid" if {"int8", "int4"} & set(self.constants) else "float"


def operations(contents: bytes, *kinds: str) -> list[Operation]:
    """Those of some kinds, or all."""
    model = flatbuffer.parse(contents)
    found = []
    for graph in model.subgraphs:
        for operation in graph.operators:
            kind = flatbuffer.kind(model, operation)
            if kinds and kind not in kinds:
                continue
            taken = [graph.tensors[i] for i in operation.inputs if i >= 0]
            given = [graph.tensors[i] for i in operation.outputs]
            constant = [flatbuffer.stored(model, tensor) is not None
                        for tensor in taken]
            found.append(Operation(
                kind, flatbuffer.output_name(graph, operation),
                tuple(flatbuffer.dtype(t) for t, c in zip(taken, constant, strict=True)
                      if not c),
                tuple(flatbuffer.dtype(t) for t, c in zip(taken, constant, strict=True)
                      if c),
                tuple(map(flatbuffer.dtype, given))))
    return found


def count(contents: bytes, *kinds: str) -> dict[str, int]:
    """Arithmetic -> how many operations of some kinds compute so."""
    return dict(collections.Counter(
        operation.arithmetic for operation in operations(contents, *kinds)))


@dataclasses.dataclass(frozen=True)
class Weights:
    """A constant: its numbers as stored <...>[N, K], how they are scaled, the dtype."""

    stored: np.ndarray
    scales: np.ndarray | None
    zeros: np.ndarray | None
    dtype: str
    block: int | None

    def numbers(self) -> np.ndarray:
        """What they stand for."""
        if self.scales is None:
            return self.stored
        scales = self.scales.reshape([-1, 1] if self.block is None else
                                     [len(self.stored), -1])
        if self.block is not None:
            scales = scales.repeat(self.block, axis=1)
        zeros = 0 if self.zeros is None else self.zeros.reshape([-1, 1])
        return (self.stored.astype(np.float32) - zeros) * scales


def weights(contents: bytes, layer: str) -> Weights:
    """The kernel or table of a layer, named in the constant's name or the output's."""
    model = flatbuffer.parse(contents)
    graph = model.subgraphs[0]
    # Weights kept small for their size alone are widened by an operation of their own.
    widened = {operation.outputs[0]: operation.inputs[0]
               for operation in flatbuffer.operations(model, "DEQUANTIZE")}
    for name in ("FULLY_CONNECTED", "EMBEDDING_LOOKUP", "GATHER"):
        for operation in flatbuffer.operations(model, name):
            place = operation.inputs[0 if name == "GATHER" else 1]
            tensor = graph.tensors[widened.get(place, place)]
            named = f"{tensor.name.decode()};{flatbuffer.output_name(graph, operation)}"
            if f"/{layer}/" in named and flatbuffer.stored(model, tensor) is not None:
                return _read(model, graph, tensor)
    raise AssertionError(f"no operation has weights of {layer}")


def _read(model, graph, tensor) -> Weights:
    data, dtype = flatbuffer.stored(model, tensor), flatbuffer.dtype(tensor)
    quantization = tensor.quantization
    if dtype == "int4":  # the lower half of a byte comes first
        pairs = np.stack([data & 15, data >> 4], -1).astype(np.int8)
        values = np.where(pairs > 7, pairs - 16, pairs).ravel()[:np.prod(tensor.shape)]
    else:
        values = data.view(dtype)
    block, scales = None, None if quantization is None else quantization.scale
    if quantization is not None and quantization.details is not None:
        block = quantization.details.blockSize
        scales = flatbuffer.stored(
            model, graph.tensors[quantization.details.scales]).view(np.float16)
    zeros = None if quantization is None else quantization.zeroPoint
    return Weights(values.reshape(tensor.shape),
                   None if scales is None else np.asarray(scales, np.float32),
                   None if zeros is None else np.asarray(zeros), dtype, block)


def run(contents: bytes, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """Runs one example through plain LiteRT: logits <float32>[...]."""
    runner = litert.Interpreter(model_content=contents).get_signature_runner(
        "serving_default")
    scale, zero = runner.get_output_details()["logits"]["quantization"]
    logits = runner(**inputs)["logits"][0]
    return np.float32(scale) * (logits.astype(np.float32) - zero) if scale else logits
