r"""Tells what is inside a `.tflite`: operations, bytes, XNNPACK's part, times.

    python experiments/tools/inspect_tflite.py FILE --report=FILE.json

Sources: the file's own FlatBuffer for operations and bytes; LiteRT for the rest, which
`litert_profile.py` asks. Cost: seconds. What LiteRT does not tell is said in a
sentence.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import litert_profile
from absl import flags
from ai_edge_litert import schema_py_generated as schema

from tfopt.cli import script as shared
from tfopt.export import flatbuffer, mediapipe, model_metadata

FLAGS = flags.FLAGS
_FLOATS = {"float16", "bfloat16", "float32", "float64"}
_QUANTIZED = {"int2", "int4", "int8", "uint8", "int16"}
_CASTS = {"QUANTIZE", "DEQUANTIZE"}


def read(path: str) -> tuple[bytes, schema.ModelT]:
    """Reads a `.tflite`.

    Raises:
        ValueError: it is missing, none, or truncated.
    """
    try:
        contents = Path(path).read_bytes()
        return contents, flatbuffer.parse(contents)
    except OSError as error:
        raise ValueError(f"The .tflite cannot be read: {error.strerror}. "
                         f"Received: {path}") from error
    except ValueError as error:
        raise ValueError(f"{error}, of {path}") from error


def _all(parts) -> list:
    """The elements of a vector of a FlatBuffer; empty ones are left out there."""
    return [] if parts is None else list(parts)


def arithmetic(kind: str, inputs: set[str], weights: str, outputs: set[str]) -> str:
    """What an operation computes in.

    Args:
        kind: such as "FULLY_CONNECTED".
        inputs: dtypes of the inputs that are no constants.
        weights: dtype of its largest constant input; "" if it has none.
        outputs: dtypes.

    Returns:
        "integer" for quantized numbers alone, "hybrid" for float activations and
        quantized weights, "float", "conversion" from or to quantized numbers, or
        "index" where shapes, ids or truth values come out.
    """
    if not outputs & (_FLOATS | _QUANTIZED):
        return "index"
    activations = inputs | outputs
    if kind in _CASTS or (activations & _FLOATS and activations & _QUANTIZED):
        return "conversion"
    if activations & _QUANTIZED:
        return "integer"
    return "hybrid" if weights in _QUANTIZED else "float"


def operations(model: schema.ModelT) -> list[dict]:
    """Kinds of operations by dtypes, the most frequent first, with their counts."""
    counts: collections.Counter = collections.Counter()
    for graph in model.subgraphs:
        for operation in graph.operators:
            taken, constants = [], []
            for index in _all(operation.inputs):
                if index >= 0:  # -1 stands for an input that is left out
                    name = flatbuffer.dtype(graph.tensors[index])
                    data = flatbuffer.stored(model, graph.tensors[index])
                    if data is None:
                        taken.append(name)
                    elif name in _FLOATS | _QUANTIZED:  # no shape, no axis
                        constants.append((data.nbytes, name))
            made = [flatbuffer.dtype(graph.tensors[i]) for i in _all(operation.outputs)]
            kind = flatbuffer.kind(model, operation)
            weights = max(constants, default=(0, ""))[1]
            counts[kind, arithmetic(kind, {*taken}, weights, {*made}),
                   ", ".join(dict.fromkeys(taken)), weights,
                   ", ".join(dict.fromkeys(made))] += 1
    names = ("kind", "arithmetic", "activations", "weights", "outputs")
    return [dict(zip(names, key, strict=True), count=count)
            for key, count in counts.most_common()]


def scales(graph: schema.SubGraphT, tensor: schema.TensorT) -> tuple[int, str]:
    """How many scales a tensor has, and for what parts of it each."""
    known = tensor.quantization
    if known is None:
        return 0, "none"
    if known.detailsType == schema.QuantizationDetails.BlockwiseQuantization:
        # These scales are a tensor of their own, and counted there in bytes.
        shape = graph.tensors[known.details.scales].shape
        return math.prod(map(int, shape)), f"blocks of {known.details.blockSize}"
    count = len(_all(known.scale))
    return count, ("none", "tensor", "channel")[min(count, 2)]


def sizes(contents: bytes, model: schema.ModelT) -> dict:
    """The constant tensors, the largest first, and where the file's bytes are."""
    constants, seen, quantization = [], set(), 0
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.quantization is not None:
                known = tensor.quantization  # float32, but for int64 zero points
                quantization += 8 * len(_all(known.zeroPoint)) + 4 * sum(
                    len(_all(part)) for part in (known.scale, known.min, known.max))
            data = flatbuffer.stored(model, tensor)
            if data is None or tensor.buffer in seen:  # tensors may share a buffer
                continue
            seen.add(tensor.buffer)
            count, of = scales(graph, tensor)
            constants.append({
                "name": (tensor.name or b"").decode(),
                "dtype": flatbuffer.dtype(tensor),
                "shape": list(map(int, _all(tensor.shape))),
                "bytes": data.nbytes, "scales": count, "scale_of": of})
    totals: collections.Counter = collections.Counter()
    for constant in constants:
        totals[constant["dtype"]] += constant["bytes"]
    return {"file_bytes": len(contents), "bytes_by_dtype": dict(totals.most_common()),
            "quantization_bytes": quantization,
            "structure_bytes": len(contents) - totals.total() - quantization,
            "constants": sorted(constants, key=lambda c: -c["bytes"])}


def metadata(contents: bytes) -> dict:
    """What the metadata say, the bytes of their files, and what is wrong with them.

    Raises:
        ValueError: they are damaged.
    """
    found = model_metadata.read(contents)
    if found is None:
        return {}
    said, files = found
    return {**dataclasses.asdict(said),
            "files": {name: len(text.encode()) for name, text in files.items()},
            "problems": mediapipe.problems(contents)}


def show_metadata(found: dict) -> None:
    """Prints what `metadata` gives."""
    if not found:
        print("\nMetadata: none; MediaPipe's clients do not open it.")
        return
    files = ", ".join(f"{name} of {size} bytes"
                      for name, size in found["files"].items())
    print(f"\nMetadata of a {found['name']}: inputs {', '.join(found['inputs'])}; "
          f"outputs {', '.join(found['outputs'])}; {files}.")
    for problem in found["problems"] or ["MediaPipe's clients open it"]:
        print(f"  {problem}.")


def show(title: str, rows: Sequence[dict], columns: Sequence[str]) -> None:
    """Prints some entries of records as a table."""
    lines = [columns, *([f"{row[c]:.3f}" if isinstance(row[c], float) else str(row[c])
                         for c in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    print(f"\n{title}\n" + "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        .rstrip() for line in lines))


def show_all(figures: dict, largest: int) -> None:
    """Prints the figures of a file."""
    show("Operations", figures["operations"],
         ["count", "kind", "arithmetic", "activations", "weights", "outputs"])
    print("In all:", ", ".join(f"{count} {name}" for name, count in
                               figures["arithmetic"].items()))
    kept = figures["constants"][:largest]
    show(f"Constants, the largest {len(kept)} of {len(figures['constants'])}", kept,
         ["bytes", "dtype", "shape", "scales", "scale_of", "name"])
    show("Bytes of the file", [
        *({"bytes": count, "of": f"{dtype} constants"}
          for dtype, count in figures["bytes_by_dtype"].items()),
        {"bytes": figures["quantization_bytes"], "of": "quantization parameters"},
        {"bytes": figures["structure_bytes"], "of": "structure, metadata, padding"},
        {"bytes": figures["file_bytes"], "of": "all"}], ["bytes", "of"])
    show_metadata(figures["metadata"])
    if figures["xnnpack"]:
        taken, left = figures["xnnpack"]["taken"], figures["xnnpack"]["left"]
        show(f"XNNPACK took {sum(taken.values())} operations in "
             f"{figures['xnnpack']['parts']} parts, and left {sum(left.values())}",
             [{"kind": kind, "taken": taken.get(kind, 0), "left": left.get(kind, 0)}
              for kind in {**taken, **left}], ["taken", "left", "kind"])
    if figures["operations_ms"]:
        show("Milliseconds of a request, by LiteRT's profiler",
             figures["operations_ms"], ["ms", "count", "by", "kind"])
    show("Milliseconds of a request, profiler off",
         [{"ms": ms, "": name} for name, ms in figures["request_ms"].items()],
         ["ms", ""])
    print("", *figures["not_told"], sep="\n")


def main() -> None:
    """Inspects, prints and reports."""
    path, repeats = FLAGS.artifact, 2 if FLAGS.smoke else FLAGS.repeats
    contents, model = read(path)
    try:
        kinds, figures = operations(model), sizes(contents, model)
    except (AttributeError, LookupError, TypeError, UnicodeDecodeError) as error:
        raise ValueError("The .tflite is damaged; a part refers to what is not there. "
                         f"Received: {path}: {error}") from error
    counts: collections.Counter = collections.Counter()
    for row in kinds:
        counts[row["arithmetic"]] += row["count"]
    figures = {"operations": kinds, "arithmetic": dict(counts.most_common()), **figures,
               "metadata": metadata(contents),
               **litert_profile.runtime(path, FLAGS.tokens, FLAGS.num_threads, repeats)}
    if FLAGS.report:
        shared.write_figures(FLAGS.report, figures)
    show_all(figures, FLAGS.largest)


def as_flags(arguments: Sequence[str]) -> list[str]:
    """Puts --artifact= before FILE, where no flag can mean it as its value."""
    return [f"--artifact={word}" if not word.startswith("-") and place
            and (place == 1 or "=" in arguments[place - 1]) else word
            for place, word in enumerate(arguments)]


def define_flags() -> None:
    """Defines the flags of this script."""
    litert_profile.define_flags()
    flags.DEFINE_string("report", None, "JSON file for the figures.")
    flags.DEFINE_integer("largest", 15, "Constants to show.", lower_bound=0)


if __name__ == "__main__":
    sys.argv = as_flags(sys.argv)
    define_flags()
    shared.run(main)
