"""Lookups in tables, GATHER -> EMBEDDING_LOOKUP: what the quantized exports start from.

That has a scale for each row and takes 4 bits, where GATHER has one scale for all, and
none where activations stay in float. It takes a vector of int32, so that the ids of a
user's own Embedding, a matrix mostly, are made one, and the rows put in their places.
"""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfopt.export import flatbuffer

_VERSION = 3  # of EMBEDDING_LOOKUP; the first with a scale for each row
_ID_TYPES = ("int32", "int64")


def look_embeddings_up(contents: bytes) -> bytes:
    """Turns lookups in a table, GATHER, into EMBEDDING_LOOKUP.

    Args:
        contents: a `.tflite`, in float32.

    Returns:
        The same, with every GATHER of rows of a constant matrix replaced, by whatever
        ids of which one axis is open at most.
    """
    model = flatbuffer.parse(contents)
    for graph in model.subgraphs:
        graph.operators = [part for operation in graph.operators
                           for part in _looked_up(model, graph, operation)]
    return flatbuffer.serialize(model)


def _looked_up(model, graph, operation) -> list:
    """The operations in the place of one; itself where it is no lookup."""
    if flatbuffer.kind(model, operation) != "GATHER":
        return [operation]
    table, ids = (graph.tensors[i] for i in operation.inputs[:2])
    options, shape = operation.builtinOptions, _shape(ids)
    if (flatbuffer.stored(model, table) is None or len(table.shape) != 2
            or flatbuffer.dtype(table) != "float32"
            or flatbuffer.dtype(ids) not in _ID_TYPES
            or (options.axis, options.batchDims) != (0, 0) or shape.count(-1) > 1):
        return [operation]
    place, output = operation.inputs[1], operation.outputs[0]
    # By it what is added is named; the quantizer wants names that are unique.
    name = graph.tensors[output].name + b"/"
    before, after = [], []
    if flatbuffer.dtype(ids) != "int32":
        before.append(_cast(model, place, _tensor(graph, name + b"int32", shape)))
        place = before[-1].outputs[0]
    if len(shape) != 1:
        count = -1 if -1 in shape else int(np.prod(shape))
        before.append(_reshape(model, graph, place, _tensor(
            graph, name + b"ids", [count]), name + b"ids_shape", [-1]))
        place, width = before[-1].outputs[0], int(table.shape[1])
        rows = _tensor(graph, name + b"rows", [count, width], "FLOAT32")
        after.append(_reshape(model, graph, rows, output, name + b"shape",
                              [*shape, width]))
        output = rows
    return [*before, _operator(model, "EMBEDDING_LOOKUP", [place, operation.inputs[0]],
                               output, _VERSION), *after]


def _shape(tensor) -> list[int]:
    """The shape of a tensor, -1 where it is open."""
    signature = tensor.shapeSignature
    return [int(size) for size in (tensor.shape if signature is None else signature)]


def _tensor(graph, name: bytes, shape: list[int], dtype: str = "INT32") -> int:
    """Adds a tensor that is computed, and gives its place."""
    made = schema.TensorT()
    made.name, made.buffer = name, 0
    made.type = getattr(schema.TensorType, dtype)
    made.shape = np.array([max(size, 1) for size in shape], np.int32)
    if -1 in shape:
        made.shapeSignature = np.array(shape, np.int32)
    graph.tensors.append(made)
    return len(graph.tensors) - 1


def _reshape(model, graph, source: int, output: int, name: bytes, shape: list[int]):
    wanted = _tensor(graph, name, [len(shape)])
    buffer = schema.BufferT()
    buffer.data = np.array(shape, np.int32).view(np.uint8)
    model.buffers.append(buffer)
    graph.tensors[wanted].buffer = len(model.buffers) - 1
    options = schema.ReshapeOptionsT()
    options.newShape = np.array(shape, np.int32)
    return _operator(model, "RESHAPE", [source, wanted], output, options=options)


def _cast(model, source: int, output: int):
    options = schema.CastOptionsT()
    options.inDataType = schema.TensorType.INT64
    options.outDataType = schema.TensorType.INT32
    return _operator(model, "CAST", [source], output, options=options)


def _operator(model, name: str, inputs: list[int], output: int, version: int = 1,
              options=None):
    """An operation of a built-in kind; its code is added where there is none yet."""
    kind = getattr(schema.BuiltinOperator, name)
    place = next((i for i, code in enumerate(model.operatorCodes)
                  if max(code.builtinCode, code.deprecatedBuiltinCode) == kind
                  and code.version >= version), None)
    if place is None:
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = kind
        code.version = version
        place = len(model.operatorCodes)
        model.operatorCodes.append(code)
    made = schema.OperatorT()
    made.opcodeIndex = place
    made.inputs = np.array(inputs, np.int32)
    made.outputs = np.array([output], np.int32)
    if options is not None:
        made.builtinOptions = options
        made.builtinOptionsType = getattr(
            schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
    return made
