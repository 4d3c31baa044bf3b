"""Lookups in tables, GATHER -> EMBEDDING_LOOKUP: what the quantized exports start from.

That has a scale for each row and takes 4 bits, where GATHER has one scale for all, and
none where activations stay in float. It takes a vector of int32, so that the ids of a
user's own Embedding, a matrix mostly, are made one, and the rows put in their places.
"""

from __future__ import annotations

import numpy as np

from tfopt.export import flatbuffer, graph_edits

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
    options, shape = operation.builtinOptions, graph_edits.shape_of(ids)
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
        before.append(graph_edits.operator(
            model, "CAST", [place], graph_edits.tensor(graph, name + b"int32", shape),
            inDataType=graph_edits.INT64, outDataType=graph_edits.INT32))
        place = before[-1].outputs[0]
    if len(shape) != 1:
        count = -1 if -1 in shape else int(np.prod(shape))
        before.append(_reshape(model, graph, place, graph_edits.tensor(
            graph, name + b"ids", [count]), name + b"ids_shape", [-1]))
        place, width = before[-1].outputs[0], int(table.shape[1])
        rows = graph_edits.tensor(graph, name + b"rows", [count, width], "FLOAT32")
        after.append(_reshape(model, graph, rows, output, name + b"shape",
                              [*shape, width]))
        output = rows
    return [*before, graph_edits.operator(
        model, "EMBEDDING_LOOKUP", [place, operation.inputs[0]], output, _VERSION),
        *after]


def _reshape(model, graph, source: int, output: int, name: bytes, shape: list[int]):
    wanted = graph_edits.constant(model, graph, name, np.array(shape, np.int32))
    return graph_edits.operator(model, "RESHAPE", [source, wanted], output,
                                newShape=np.array(shape, np.int32))
