"""Adds tensors, constants and operations to a graph that `export.flatbuffer` parsed."""

from __future__ import annotations

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

INT32, INT64 = schema.TensorType.INT32, schema.TensorType.INT64
# Kind of an operation -> the record of its options, where that has another name.
_OPTIONS = {"MINIMUM": "MaximumMinimumOptions", "LOGISTIC": "", "EMBEDDING_LOOKUP": ""}


def shape_of(tensor) -> list[int]:
    """The shape of a tensor, -1 where it is open."""
    signature = tensor.shapeSignature
    return [int(size) for size in (tensor.shape if signature is None else signature)]


def tensor(graph, name: bytes, shape: list[int], dtype: str = "INT32") -> int:
    """Adds a tensor that is computed, and gives its place.

    Args:
        graph: a `SubGraphT`; it is changed.
        name: of the tensor; the quantizer wants names that are unique.
        shape: -1 where it is open.
        dtype: a name of the schema's `TensorType`.
    """
    made = schema.TensorT()
    made.name, made.buffer, made.hasRank = name, 0, True
    made.type = getattr(schema.TensorType, dtype)
    made.shape = np.array([max(size, 1) for size in shape], np.int32)
    if -1 in shape:
        made.shapeSignature = np.array(shape, np.int32)
    graph.tensors.append(made)
    return len(graph.tensors) - 1


def constant(model, graph, name: bytes, values: np.ndarray) -> int:
    """Adds a constant <int32>[...], and gives its place."""
    place = tensor(graph, name, list(values.shape))
    graph.tensors[place].buffer = buffer(model, values.tobytes())
    return place


def buffer(model, contents: bytes) -> int:
    """Adds a buffer of these bytes, and gives its place."""
    made = schema.BufferT()
    made.data = np.frombuffer(contents, np.uint8)
    model.buffers.append(made)
    return len(model.buffers) - 1


def operator(model, kind: str, inputs: list[int], output: int, version: int = 1,
             **options: Any):
    """An operation of a built-in kind; its code is added where there is none yet.

    Args:
        model: a `ModelT`; it is changed.
        kind: a name of the schema's `BuiltinOperator`.
        inputs: places of tensors.
        output: the same.
        version: of the kind.
        **options: fields of the record of its options.

    Returns:
        An `OperatorT`, which stands in no graph yet.
    """
    code = getattr(schema.BuiltinOperator, kind)
    place = next((i for i, known in enumerate(model.operatorCodes)
                  if max(known.builtinCode, known.deprecatedBuiltinCode) == code
                  and known.version >= version), None)
    if place is None:
        added = schema.OperatorCodeT()
        added.builtinCode = added.deprecatedBuiltinCode = code
        added.version = version
        place = len(model.operatorCodes)
        model.operatorCodes.append(added)
    made = schema.OperatorT()
    made.opcodeIndex = place
    made.inputs = np.array(inputs, np.int32)
    made.outputs = np.array([output], np.int32)
    record = _OPTIONS.get(kind, f"{kind.title()}Options")
    if record:
        made.builtinOptions = getattr(schema, f"{record}T")()
        made.builtinOptionsType = getattr(schema.BuiltinOptions, record)
        for name, value in options.items():
            setattr(made.builtinOptions, name, value)
    return made


def metadata(model, name: str, contents: bytes):
    """An entry of metadata, whose bytes become a buffer of the model."""
    made = schema.MetadataT()
    made.name, made.buffer = name.encode(), buffer(model, contents)
    return made


def named(name: str, place: int):
    """A tensor's name in a signature."""
    made = schema.TensorMapT()
    made.name, made.tensorIndex = name.encode(), place
    return made
