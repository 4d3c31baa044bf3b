"""A `.tflite` -> nothing, or what is wrong with it: before LiteRT sees a byte.

LiteRT believes a file: an index beyond a list, an operation that reads what none has
computed, or writes into the file's own pages, ends the process. So what a file says is
held together here: indices, shapes, sizes, quantization, sparsity, the order of what is
computed. What only an operation's kernel knows is for `export.trial`.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfopt.export.tflite_sparsity import check_sparsity
from tfopt.export.tflite_tables import BITS, OPERATIONS, UNIONS
from tfopt.export.tflite_walk import Damaged, Walk, require

_VERSION = 3
_MOST_DIMENSIONS = 8
# Of a tensor that is computed. A large encoder's largest, at 512 tokens, has 8 MB.
_MOST_BYTES = 1 << 30
_BLOCKWISE = 2  # of the kinds of quantization details
# Options -> their number.
_NUMBERS = {name: i for i, name in enumerate(UNIONS["builtin_options"]) if name}
_SUBGRAPHS = {"IF": ("then_subgraph_index", "else_subgraph_index"),
              "WHILE": ("cond_subgraph_index", "body_subgraph_index")}
# Says LiteRT in which order to compute, by indices that it does not check.
_REFUSED_METADATA = {"model_control_dependencies"}
Record = Mapping[str, Any]


def check_file(path: Path) -> Record:
    """Checks a file, and gives it as a record (`tflite_walk.Walk.model`).

    Raises:
        ValueError: it is no `.tflite`, damaged, or has what no text model has; says
            what and where.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        empty = not file.seek(0, 2)
        data = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return check(data, str(path))


def check(contents: Any, name: str = "a file") -> Record:
    """Checks the bytes of a file; as `check_file`.

    Args:
        contents: the bytes, or whatever has the buffer protocol.
        name: the file's, for the message.
    """
    try:
        walk = Walk(contents)
        model = walk.model()
        _check_model(model, walk.size)
    except Damaged as error:
        raise ValueError("The .tflite is damaged, or no text model. Received: "
                         f"{name}: {error}") from error
    return model


def _index(number: int, count: int, what: str, low: int = 0) -> None:
    require(low <= number < count, f"{what} must be one of {count}", number)


def _list(value: Sequence | None) -> Sequence:
    return () if value is None else value


def _check_model(model: Record, size: int) -> None:
    require(model["version"] == _VERSION, "its version must be 3", model["version"])
    require(not _list(model["external_buffers"])
            and not _list(model["external_buffer_groups"]),
            "its weights must be in it, not in other files")
    names = []
    for code in _list(model["operator_codes"]):
        number = max(code["builtin_code"], code["deprecated_builtin_code"])
        require(number in OPERATIONS, "its operations must be of a text model",
                f"code {number} {code['custom_code'] or ''}")
        names.append(OPERATIONS[number])
    buffers = [_extent(buffer, size) for buffer in _list(model["buffers"])]
    for entry in _list(model["metadata"]):
        _index(entry["buffer"], len(buffers), "a buffer of metadata")
        require(entry["name"] not in _REFUSED_METADATA, "its metadata",
                entry["name"])
    for number in _list(model["metadata_buffer"]):
        _index(number, len(buffers), "a buffer of metadata")
    graphs = _list(model["subgraphs"])
    require(graphs, "it must have a graph")
    for number, graph in enumerate(graphs):
        _Graph(number, graph, buffers, len(graphs)).check(names)
    for signature in _list(model["signature_defs"]):
        _check_signature(signature, graphs)


def _extent(buffer: Record, size: int) -> int:
    """The bytes of a buffer; 0 where it has none."""
    if buffer["offset"] > 1:  # its data lie behind the FlatBuffer
        require(buffer["offset"] + buffer["size"] <= size,
                "a buffer must lie in the file",
                f"{buffer['size']} bytes at {buffer['offset']}")
        return buffer["size"]
    return len(_list(buffer["data"]))


def _check_signature(signature: Record, graphs: Sequence[Record]) -> None:
    _index(signature["subgraph_index"], len(graphs), "a signature's graph")
    graph = graphs[signature["subgraph_index"]]
    require(signature["signature_key"] is not None, "a signature must have a name")
    for side in ("inputs", "outputs"):
        own = set(map(int, _list(graph[side])))
        for entry in _list(signature[side]):
            require(entry["name"] is not None and entry["tensor_index"] in own,
                    f"a signature's {side} must be those of its graph",
                    f"{entry['name']}: {entry['tensor_index']}")


class _Graph:
    """One graph, and what it is checked against.

    Args:
        number: its place among the graphs.
        graph: its record.
        buffers: the bytes of each.
        graphs: how many there are.
    """

    def __init__(self, number: int, graph: Record, buffers: Sequence[int], graphs: int):
        self._number, self._graphs, self._buffers = number, graphs, buffers
        self._tensors = _list(graph["tensors"])
        self._inputs, self._outputs = _list(graph["inputs"]), _list(graph["outputs"])
        self._operators = _list(graph["operators"])

    def check(self, names: Sequence[tuple]) -> None:
        """Checks tensors, then operations in their order."""
        constant = set()
        for i, tensor in enumerate(self._tensors):
            try:
                if self._check_tensor(tensor):
                    constant.add(i)
            except Damaged as error:
                raise Damaged(f"tensor {i} ({tensor['name']}): {error}") from error
        count = len(self._tensors)
        for i in (*self._inputs, *self._outputs):
            _index(i, count, "a graph's input or output")
        require(not constant & set(map(int, self._inputs)),
                "an input must not be a constant")
        known = constant | set(map(int, self._inputs)) | {
            i for i, tensor in enumerate(self._tensors) if tensor["is_variable"]}
        made: set[int] = set()
        for i, operator in enumerate(self._operators):
            name = "operation"
            try:
                _index(operator["opcode_index"], len(names), "its code")
                kind = names[operator["opcode_index"]]
                name = kind[0]
                self._check_operator(operator, kind, known, made)
            except Damaged as error:
                raise Damaged(f"operation {i} ({name}): {error}") from error
        require(set(map(int, self._outputs)) <= known | made,
                "each output must be computed")

    def _check_operator(self, operator: Record, kind: tuple, known: set[int],
                        made: set[int]) -> None:
        name, options, *sizes = kind
        inputs, outputs = (list(map(int, _list(operator[side])))
                           for side in ("inputs", "outputs"))
        for side, (low, high, _), found in zip(("inputs", "outputs"), sizes,
                                               (inputs, outputs), strict=True):
            require(low <= len(found) <= high, f"its number of {side}", len(found))
        for place, i in enumerate(inputs):
            _index(i, len(self._tensors), "an input", -1 if place >= sizes[0][2] else 0)
            require(i < 0 or i in known or i in made,
                    "an input must be computed before", i)
        for i in outputs:
            _index(i, len(self._tensors), "an output")
            require(i not in known and i not in made,
                    "an output must be computed once, and no constant or input", i)
            made.add(i)
        for i in _list(operator["intermediates"]):
            _index(i, len(self._tensors), "an intermediate tensor", -1)
        require(len(_list(operator["mutating_variable_inputs"])) in (0, len(inputs)),
                "its flags of inputs that it changes")
        require(not len(_list(operator["custom_options"]))
                and not operator["builtin_options_2"]
                and not operator["large_custom_options_size"], "its options")
        given = operator["builtin_options"]
        require(given is None
                or operator["builtin_options_type"] == _NUMBERS.get(options),
                "its options must be those of its kind",
                operator["builtin_options_type"])
        for field in _SUBGRAPHS.get(name, ()):
            require(given is not None, "it must say which graph it runs")
            # Only later ones, so that none runs itself.
            _index(given[field], self._graphs, "its graph", self._number + 1)

    def _check_tensor(self, tensor: Record) -> bool:
        """Checks a tensor; whether it is a constant."""
        kind = tensor["type"]
        require(kind in BITS, "its type must be of numbers", kind)
        require(not tensor["external_buffer"] and not tensor["variant_tensors"],
                "its data must be in the file")
        shape = _list(tensor["shape"])
        require(len(shape) <= _MOST_DIMENSIONS, "its dimensions", len(shape))
        require(min(shape, default=0) >= 0, "its shape", list(shape))
        signature = tensor["shape_signature"]
        if signature is not None and len(signature):
            require(len(signature) == len(shape) and all(
                one in (-1, other) for one, other in
                zip(signature, shape, strict=True)), "its shape's signature",
                list(signature), list(shape))
        numbers = int(np.prod([int(size) for size in shape], dtype=object))
        size = -(-numbers * BITS[kind] // 8)
        _index(tensor["buffer"], len(self._buffers), "its buffer")
        stored = self._buffers[tensor["buffer"]]
        self._check_quantization(tensor["quantization"], shape)
        if tensor["sparsity"]:
            require(stored * 8 >= BITS[kind] and not stored * 8 % BITS[kind],
                    "its bytes", stored)
            check_sparsity(tensor["sparsity"], shape, stored * 8 // BITS[kind])
            require(size <= _MOST_BYTES, "its bytes", size)
            return True
        require(stored in (0, size), f"its bytes must be {size}", stored)
        require(stored or size <= _MOST_BYTES, "its bytes", size)
        require(not (stored and tensor["is_variable"]), "a variable has no data")
        return bool(stored)

    def _check_quantization(self, given: Record | None, shape: Sequence) -> None:
        if given is None:
            return
        scales, zero_points = _list(given["scale"]), _list(given["zero_point"])
        require(np.isfinite(scales).all() and (np.asarray(scales) >= 0).all(),
                "its scales must be finite, from 0")
        require(given["details_type"] in (0, _BLOCKWISE), "its kind of quantization",
                given["details_type"])
        if given["details"]:
            details = given["details"]
            _index(details["scales"], len(self._tensors), "its tensor of scales")
            _index(details["zero_points"], len(self._tensors),
                   "its tensor of zero points", -1)
            require(0 < details["block_size"] <= max(shape, default=0),
                    "its block size", details["block_size"])
            return
        axis = given["quantized_dimension"]
        if len(scales) > 1:
            _index(axis, len(shape), "its quantized dimension")
            require(len(scales) == shape[axis], "its number of scales", len(scales))
        require(len(zero_points) in (0, 1, len(scales)), "its number of zero points",
                len(zero_points))
