"""How large a model is: parameters, nonzeros, bits, and bytes on disk.

The ratios of the reports: alpha = parameters after / before, beta = nonzeros after /
before, gamma = bits per parameter after / before.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfopt.export import flatbuffer
from tfopt.types import PathLike

if TYPE_CHECKING:
    from tfopt.backend import keras

_WEIGHTS = ("float32", "float16", "int8", "int4")
_SCALED = ("int32", "int64")  # biases of integer products, where they have a scale


def of_model(model: keras.Model) -> dict[str, float]:
    """Counts the weights of a Keras model.

    Args:
        model: any; its random states and counters are not weights.

    Returns:
        {parameters, nonzeros, bits}.
    """
    weights = [w.numpy() for w in model.weights if w.dtype.is_floating]
    return _sum([(w.size, np.count_nonzero(w), 8 * w.nbytes) for w in weights])


def of_tflite(path: PathLike) -> dict[str, float]:
    """Counts the weights in a `.tflite`: every constant tensor of numbers in it.

    Integers without a scale are shapes and the like, no weights. The scales of blocks,
    tensors of their own, count as bits of the weights, not as parameters. A handful of
    scalars that the converter makes (an epsilon, a scale) count as parameters here.

    Args:
        path: of the file.

    Returns:
        {parameters, nonzeros, bits}.

    Raises:
        ValueError: the file is missing, no `.tflite`, or truncated.
    """
    try:
        model = flatbuffer.parse(_read(path))
        found = {}  # a buffer may serve several tensors
        for graph in model.subgraphs:
            scales = _block_scales(graph)
            for index, tensor in enumerate(graph.tensors):
                count = _of_tensor(model, tensor)
                if count is not None and index in scales:
                    count = 0, 0, count[2]
                if count is not None:
                    found[tensor.buffer] = count
    except ValueError as error:
        raise ValueError("The file must be readable as a .tflite. Received: "
                         f"{path}: {error}") from error
    return _sum(found.values())


def of_file(path: PathLike) -> dict[str, float]:
    """Bytes of a file as it is, and compressed by gzip: {file_bytes, gzip_bytes}.

    Raises:
        ValueError: the file cannot be read.
    """
    contents = _read(path)
    return {"file_bytes": float(len(contents)),
            "gzip_bytes": float(len(gzip.compress(contents, 6, mtime=0)))}


def ratios(after: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """alpha, beta and gamma of two counts, as `of_model` or `of_tflite` give them."""
    def bits_each(count):
        return count["bits"] / count["parameters"]

    return {"alpha": after["parameters"] / before["parameters"],
            "beta": after["nonzeros"] / before["nonzeros"],
            "gamma": bits_each(after) / bits_each(before)}


def _sum(counts) -> dict[str, float]:
    totals = np.array(list(counts), np.float64).sum(axis=0)
    return dict(zip(("parameters", "nonzeros", "bits"), totals.tolist(), strict=True))


def _of_tensor(model, tensor) -> tuple[int, int, int] | None:
    """Parameters, nonzeros and bits of a tensor; None where it holds no weights."""
    data, dtype = flatbuffer.stored(model, tensor), flatbuffer.dtype(tensor)
    scaled = tensor.quantization is not None and tensor.quantization.scale is not None
    if data is None or not (dtype in _WEIGHTS or scaled and dtype in _SCALED):
        return None
    size = int(np.prod(tensor.shape))
    if dtype == "int4":  # two a byte; the last may be half empty, with zeros
        nonzeros = np.count_nonzero(data & 15) + np.count_nonzero(data >> 4)
        return size, int(nonzeros), 4 * size
    stored = data.view(dtype)
    # Of a sparse tensor only the nonzeros are stored, and where they are.
    bits = 8 * (stored.nbytes + _index_bytes(tensor))
    return size, int(np.count_nonzero(stored)), bits


def _block_scales(graph) -> set[int]:
    """The tensors that are scales of others' blocks."""
    details = (tensor.quantization.details for tensor in graph.tensors
               if tensor.quantization is not None)
    return {part.scales for part in details if hasattr(part, "scales")}


def _index_bytes(tensor) -> int:
    """Bytes of the places of a sparse tensor's nonzeros."""
    if tensor.sparsity is None:
        return 0
    return sum(np.asarray(part.values).nbytes
               for dimension in tensor.sparsity.dimMetadata
               for part in (dimension.arraySegments, dimension.arrayIndices)
               if part is not None)


def _read(path: PathLike) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"The file cannot be read: {error.strerror}. Received: {path}"
                         ) from error
