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

from tfopt.types import PathLike

if TYPE_CHECKING:
    from tfopt.backend import keras


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

    Shapes and other int32 or int64 constants are not weights. A handful of scalars that
    the converter makes (an epsilon, a scale) count as parameters here.

    Args:
        path: of the file.

    Returns:
        {parameters, nonzeros, bits}.

    Raises:
        ValueError: the file is missing, no `.tflite`, or truncated.
    """
    from ai_edge_litert import schema_py_generated as schema

    contents = _read(path)
    if contents[4:8] != b"TFL3":
        raise ValueError(f"The file must be a .tflite. Received: {path}")
    dtypes = {schema.TensorType.FLOAT32: np.dtype(np.float32),
              schema.TensorType.FLOAT16: np.dtype(np.float16),
              schema.TensorType.INT8: np.dtype(np.int8)}
    try:
        model = schema.ModelT.InitFromPackedBuf(contents, 0)
    except Exception as error:  # flatbuffers checks nothing, and trips over anything
        raise ValueError(f"The .tflite is truncated or damaged. Received: {path}: "
                         f"{error}") from error
    found = {}  # a buffer may serve several tensors
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            if tensor.type in dtypes and data is not None and len(data):
                stored = np.asarray(data).view(dtypes[tensor.type])
                # Of a sparse tensor only the nonzeros are stored, and where they are.
                size = (stored.size if tensor.sparsity is None
                        else int(np.prod(tensor.shape)))
                found[tensor.buffer] = (size, np.count_nonzero(stored),
                                        8 * (stored.nbytes + _index_bytes(tensor)))
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
