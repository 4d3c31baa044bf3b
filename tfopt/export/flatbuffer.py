"""The `.tflite` format: bytes <-> an object, and edits that keep what it computes.

A `.tflite` is a FlatBuffer of the schema that LiteRT publishes; `ai_edge_litert` has
the reader that is generated from it.
"""

from __future__ import annotations

from collections.abc import Iterator

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

IDENTIFIER = b"TFL3"
_ALIGNMENT = 16  # of a buffer's data, `force_align` in the schema
_OPERATORS = {value: name for name, value in vars(schema.BuiltinOperator).items()
              if isinstance(value, int)}
_DTYPES = {value: name.lower() for name, value in vars(schema.TensorType).items()
           if isinstance(value, int)}


def parse(contents: bytes) -> schema.ModelT:
    """Reads a `.tflite`.

    Raises:
        ValueError: it is none, or truncated; says which.
    """
    if contents[4:8] != IDENTIFIER:
        raise ValueError("The file must be a .tflite; its bytes 4 to 8 must be "
                         f"{IDENTIFIER!r}. Received: {contents[4:8]!r}")
    try:
        model = schema.ModelT.InitFromPackedBuf(contents, 0)
        for buffer in model.buffers:
            if buffer.offset > 1:  # its data lie behind the FlatBuffer
                buffer.data = np.frombuffer(contents, np.uint8, buffer.size,
                                            buffer.offset)
                buffer.offset = buffer.size = 0
    except Exception as error:  # flatbuffers checks nothing, and trips over anything
        raise ValueError("The .tflite is truncated or damaged. Received: "
                         f"{len(contents)} bytes: {error}") from error
    return model


class Builder(flatbuffers.Builder):
    """Puts weights where the schema wants them, which Python's builder does not."""

    def CreateNumpyVector(self, x: np.ndarray) -> int:  # noqa: N802
        """Writes an array; bytes, as all buffers are, by a multiple of 16."""
        if x.dtype == np.uint8 and x.ndim == 1:
            self.Prep(_ALIGNMENT, x.size)
        return super().CreateNumpyVector(x)


def serialize(model: schema.ModelT) -> bytes:
    """The bytes of a `.tflite`, all of its weights within the FlatBuffer."""
    builder = Builder(1 << 20)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def kind(model: schema.ModelT, operation: schema.OperatorT) -> str:
    """The name of an operation's kind, such as "FULLY_CONNECTED"."""
    code = model.operatorCodes[operation.opcodeIndex]
    return _OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]


def dtype(tensor: schema.TensorT) -> str:
    """The name of a tensor's dtype, such as "int8"."""
    return _DTYPES[tensor.type]


def stored(model: schema.ModelT, tensor: schema.TensorT) -> np.ndarray | None:
    """The bytes of a constant tensor <uint8>[...]; None where it is computed."""
    data = model.buffers[tensor.buffer].data
    return None if data is None or not len(data) else np.asarray(data)


def operations(model: schema.ModelT, name: str) -> Iterator[schema.OperatorT]:
    """The operations of one kind."""
    for graph in model.subgraphs:
        for operation in graph.operators:
            if kind(model, operation) == name:
                yield operation


def output_name(graph: schema.SubGraphT, operation: schema.OperatorT) -> str:
    """The name of what an operation computes, by which rules know it."""
    return graph.tensors[operation.outputs[0]].name.decode()


def join(contents: bytes, lowest: float) -> bytes:
    """Takes the maxima out that kept operations apart, `max(x, lowest)` = x.

    Args:
        contents: a `.tflite`, as the converter made it.
        lowest: the second operand by which they are known.

    Returns:
        The same without them.
    """
    model = parse(contents)
    unused = []
    for number, graph in enumerate(model.subgraphs):
        source: dict[int, int] = {}  # tensor -> the one it equals
        left = []
        for operation in graph.operators:
            operation.inputs = _renamed(operation.inputs, source)
            operand = graph.tensors[operation.inputs[-1]]
            if kind(model, operation) == "MAXIMUM" and np.float32(lowest) in _scalar(
                    model, operand):
                source[operation.outputs[0]] = operation.inputs[0]
                unused.append(operand)
            else:
                left.append(operation)
        graph.operators = left
        graph.outputs = _renamed(graph.outputs, source)
        for signature in model.signatureDefs or []:  # where it was the last operation
            if signature.subgraphIndex == number:
                for output in signature.outputs:
                    output.tensorIndex = source.get(output.tensorIndex,
                                                    output.tensorIndex)
    for operand in unused:
        model.buffers[operand.buffer].data = None
    return serialize(model)


def _renamed(tensors, source: dict[int, int]) -> np.ndarray:
    return np.array([source.get(tensor, tensor) for tensor in tensors], np.int32)


def _scalar(model, tensor) -> list[float]:
    """The float32 in a constant tensor of one; else nothing."""
    data = stored(model, tensor)
    if data is None or dtype(tensor) != "float32" or data.nbytes != 4:
        return []
    return data.view(np.float32).tolist()
