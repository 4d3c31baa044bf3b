"""A `.tflite` and token ids -> what LiteRT's C++ `benchmark_model` needs to run it.

Left alone, it fills inputs of int32 with chance numbers, of which most are no ids of
any vocabulary, so that a text model fails. So each input's values are a file, and flags
name the files. Source: LiteRT's `tflite/tools/benchmark`, whose README has the flags.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tfopt.export import verify
from tfopt.types import INPUT_NAMES, shown

_SIGNATURE = "serving_default"


def tensors(path: Path) -> dict[str, str]:
    """The inputs of a file, in its own order, by which `benchmark_model` takes them.

    Args:
        path: of a `.tflite`.

    Returns:
        The tensor's name -> which of `INPUT_NAMES` it is.

    Raises:
        ValueError: the file is damaged, no text model, or has a name that the flags
            cannot give.
    """
    model = verify.check_file(path)
    signature = next((one for one in model["signature_defs"] or ()
                      if one["signature_key"] == _SIGNATURE), None)
    if signature is None or signature["subgraph_index"]:
        raise ValueError("The file's first graph must have the signature "
                         f"{_SIGNATURE!r}. Received: {path}")
    graph = model["subgraphs"][0]
    roles = {entry["tensor_index"]: entry["name"] for entry in signature["inputs"]}
    found = {}
    for index in map(int, graph["inputs"]):
        name, role = graph["tensors"][index]["name"], roles.get(index)
        if role not in INPUT_NAMES or not name or "," in name or name in found:
            raise ValueError(
                f"Inputs must be of {', '.join(INPUT_NAMES)}, each by a tensor with a "
                f"name of its own, without commas. Received: {path}: {shown(role)} by "
                f"{shown(name)}")
        found[name] = role
    return found


def file_of(role: str) -> str:
    """The name of the file with an input's values."""
    return f"{role}.bin"


def contents(values: np.ndarray) -> bytes:
    """An input's values as `benchmark_model` reads them: int32, little-endian."""
    return values.astype("<i4").tobytes()


def flags(inputs: Mapping[str, str], shape: Sequence[int], directory: str, graph: str,
          **more: int) -> list[str]:
    """The flags of `benchmark_model`.

    A colon parts a tensor's name from its file there, and a colon within either, as in
    `serving_default_input_ids:0`, is written twice.

    Args:
        inputs: as of `tensors`.
        shape: of each input.
        directory: where their files will lie.
        graph: where the `.tflite` will lie.
        **more: other flags.

    Raises:
        ValueError: there is a comma in `directory`.
    """
    if "," in directory:
        raise ValueError("A directory must have no comma, which parts files in the "
                         f"flags of benchmark_model. Received: {directory}")
    files = (f"{name.replace(':', '::')}:{directory.replace(':', '::')}/{file_of(role)}"
             for name, role in inputs.items())
    shapes = [",".join(map(str, shape))] * len(inputs)
    return [f"--graph={graph}", *(f"--{name}={value}" for name, value in more.items()),
            f"--input_layer={','.join(inputs)}",
            f"--input_layer_shape={':'.join(shapes)}",
            f"--input_layer_value_files={','.join(files)}"]


def command_line(words: Sequence[str]) -> str:
    """The command line of `benchmark_model` with some flags, for a shell."""
    return shlex.join(["benchmark_model", *words])
