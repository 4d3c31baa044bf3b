"""`model.safetensors.index.json` -> which tensor lies in which file.

    {"weight_map": {"bert.pooler.dense.bias": "model-00002-of-00002.safetensors", ...}}

As Hugging Face's transformers writes it where a checkpoint is cut into several files.
Imports no TensorFlow.
"""

from __future__ import annotations

from pathlib import Path

from tfopt.files import read_json
from tfopt.types import shown

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_SUFFIX = ".safetensors"


def read(path: Path) -> dict[str, str]:
    """Reads an index.

    Args:
        path: the file.

    Returns:
        Name of a tensor -> name of the file that has it, beside the index.

    Raises:
        ValueError: it is no such file, names no tensor, or a file that is none of
            safetensors or lies in another directory.
    """
    found = read_json(path).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise ValueError("An index of shards must map tensors to files, by `weight_map`"
                         f". Received: {path}: weight_map={shown(found)}")
    for name, file in found.items():
        if not isinstance(file, str) or not _is_beside(file):
            raise ValueError(
                f"A shard must be a file `*{_SUFFIX}` in the directory of its index. "
                f"Received: {path}: {name!r} in {shown(file)}")
    return found


def _is_beside(file: str) -> bool:
    """Whether a name is that of a file, with no directory before it."""
    return (file.endswith(_SUFFIX) and not file.startswith(".")
            and not set(file) & set("/\\\0"))
