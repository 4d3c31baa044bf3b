r"""LiteRT at work on a `.tflite`: XNNPACK's part, a request's time, each operation's.

    python experiments/tools/litert_profile.py --artifact=FILE

prints LiteRT's own summary of times; `inspect_tflite.py` calls the rest. Sources: the
interpreter of LiteRT's Python API, and the profiler of its C API, by ctypes, for its
Python API has none. Cost: seconds. What LiteRT does not tell is said in a sentence.
"""

from __future__ import annotations

import collections
import ctypes
import functools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import ai_edge_litert
import numpy as np
from absl import flags
from ai_edge_litert import interpreter as litert

from tfopt import inputs as model_inputs
from tfopt.cli import script as shared
from tfopt.measure import latency
from tfopt.types import INPUT_NAMES

FLAGS = flags.FLAGS
_MOST_SECONDS = 2.0  # of a timing: 4 bits without XNNPACK take a second per request
_MOST_PROFILED = 50  # requests: LiteRT's buffer of events drops what is too much
# LiteRT's numbers of dtypes; the same in its C API and in TFLite.
_ELEMENT_TYPES = {"float32": 1, "int32": 2, "uint8": 3, "int64": 4, "bool": 6,
                  "int16": 7, "int8": 9, "float16": 10}


def runtime(path: str, tokens: int, num_threads: int, repeats: int) -> dict:
    """What LiteRT tells of a file, and sentences on what it does not."""
    told: dict = {"xnnpack": None, "request_ms": {}, "operations_ms": [],
                  "not_told": []}
    for name, xnnpack in (("with XNNPACK", True), ("without", False)):
        try:
            interpreter, *_ = start(path, tokens, num_threads, xnnpack=xnnpack)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            told["not_told"].append(f"LiteRT does not run it {name}, on inputs of "
                                    f"zeros: {str(error).splitlines()[0]}")
            continue
        if xnnpack:
            told["xnnpack"] = delegation(interpreter)
        told["request_ms"][name] = median_ms(interpreter.invoke, repeats)
    try:
        told["operations_ms"] = times_by_another_process(
            path, tokens, num_threads, min(repeats, _MOST_PROFILED))
        told["not_told"].append(
            "LiteRT counts whole microseconds, so that short operations show as 0; it "
            "gives times of XNNPACK's own operations, not of the file's that they are "
            "made of.")
    except RuntimeError as error:
        told["not_told"].append(f"LiteRT tells no times per operation: {error}")
    told["not_told"].append("LiteRT does not tell why XNNPACK leaves an operation.")
    return told


def start(path: str, tokens: int, num_threads: int, *, xnnpack: bool = True):
    """Makes an interpreter that has answered a first request.

    Args:
        path: of a `.tflite`.
        tokens: T, where the file leaves the length open.
        num_threads: of a request.
        xnnpack: whether LiteRT may delegate to it, as it does by default.

    Returns:
        The interpreter, its inputs by name, its outputs by name. A BERT's mask is all
        ones; all else is zeros.

    Raises:
        ValueError, RuntimeError: LiteRT does not run the file.
    """
    kinds = litert.OpResolverType
    interpreter = litert.Interpreter(
        path, num_threads=num_threads, experimental_op_resolver_type=kinds.AUTO
        if xnnpack else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    inputs, outputs = _by_name(interpreter)
    values = {}
    for name, detail in inputs.items():
        shape = detail["shape"].tolist()
        if name in INPUT_NAMES:
            if -1 in detail["shape_signature"]:
                shape = [1, tokens]
                interpreter.resize_tensor_input(detail["index"], shape)
            made = model_inputs.build(np.zeros(shape, np.int32), shape[-1:] * shape[0],
                                      [name])
            values[name] = made[name].astype(detail["dtype"])
        else:
            values[name] = np.zeros(shape, detail["dtype"])
    interpreter.allocate_tensors()
    for name, value in values.items():
        interpreter.set_tensor(inputs[name]["index"], value)
    interpreter.invoke()
    return interpreter, values, {name: interpreter.get_tensor(detail["index"])
                                 for name, detail in outputs.items()}


def _by_name(interpreter: litert.Interpreter) -> tuple[dict, dict]:
    """Details of inputs, and of outputs, by the names that a signature gives them."""
    if len(interpreter.get_signature_list()) == 1:
        # Not to be kept: while a runner lives, the interpreter refuses to run.
        runner = interpreter.get_signature_runner()
        return runner.get_input_details(), runner.get_output_details()
    return ({detail["name"]: detail for detail in interpreter.get_input_details()},
            {detail["name"]: detail for detail in interpreter.get_output_details()})


def delegation(interpreter: litert.Interpreter) -> dict:
    """Which operations XNNPACK took.

    LiteRT lists a DELEGATE for each part of the graph that it gave away, with the
    tensors at its border, and the graph's own operations beside: those between a
    part's outputs and its inputs are the part.
    """
    nodes = interpreter._get_ops_details()
    own = [node for node in nodes if node["op_name"] != "DELEGATE"]
    made_by = {int(tensor): node for node in own for tensor in node["outputs"]}
    taken = {}
    for part in (node for node in nodes if node["op_name"] == "DELEGATE"):
        border, waiting = set(map(int, part["inputs"])), list(map(int, part["outputs"]))
        while waiting:
            tensor = waiting.pop()
            node = None if tensor in border else made_by.get(tensor)
            if node is not None and node["index"] not in taken:
                taken[node["index"]] = node["op_name"]
                waiting += map(int, node["inputs"])
    left = [node["op_name"] for node in own if node["index"] not in taken]
    return {"parts": len(nodes) - len(own),
            "taken": dict(collections.Counter(taken.values()).most_common()),
            "left": dict(collections.Counter(left).most_common())}


def median_ms(run: Callable[[], object], repeats: int) -> float:
    """Median milliseconds of a call, of so many repeats or of two seconds' worth."""
    seconds: list[float] = []
    while len(seconds) < repeats and sum(seconds) < _MOST_SECONDS:
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return 1e3 * float(np.median(seconds))


def times_by_another_process(path: str, tokens: int, num_threads: int,
                             repeats: int) -> list[dict]:
    """As `times`, of a process of its own.

    Raises:
        RuntimeError: it came to nothing; says what it said last.
    """
    done = subprocess.run(
        [sys.executable, __file__, f"--artifact={path}", f"--tokens={tokens}",
         f"--num_threads={num_threads}", f"--repeats={repeats}"],
        capture_output=True, text=True, check=False,
        env={**os.environ, **latency.environment(num_threads)})
    if done.returncode or "Summary by node type" not in done.stdout:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise RuntimeError(f"status {done.returncode}, {said[-1]}")
    return times(done.stdout, repeats)


def times(summary: str, repeats: int) -> list[dict]:
    """Milliseconds of a request by kind of operation, out of LiteRT's summary.

    Args:
        summary: as `profile` gives it.
        repeats: requests it is of.

    Returns:
        {"by", "kind", "count", "ms"}, the longest first; XNNPACK names its own kinds.
    """
    whole_us = int(re.search(r"Timings \(microseconds\).*?curr=(\d+)", summary)[1])
    lines = summary.partition("Summary by node type")[2].partition("\n\n")[0]
    rows = re.findall(r"^ *(\S.*?) +\d+ +[\d.]+ +([\d.]+)% .* (\d+)$", lines, re.M)
    return [{"by": "XNNPACK" if kind.startswith("Delegate/") else "LiteRT",
             "kind": kind.removeprefix("Delegate/"), "count": int(called) // repeats,
             "ms": float(percent) / 100 * whole_us / repeats / 1e3}
            for kind, percent, called in rows]


class _TensorType(ctypes.Structure):
    """LiteRtRankedTensorType of LiteRT's C API."""

    _fields_ = [("element_type", ctypes.c_int), ("rank", ctypes.c_uint32),
                ("dimensions", ctypes.c_int32 * 8), ("strides", ctypes.c_uint32 * 8)]


def _call(library: ctypes.CDLL, name: str, *arguments) -> None:
    status = getattr(library, f"LiteRt{name}")(*(
        ctypes.c_size_t(a) if isinstance(a, int) else a for a in arguments))
    if status:
        raise RuntimeError(f"LiteRt{name} answers {status}")


def profile(path: str, tokens: int, num_threads: int, repeats: int) -> str:
    """LiteRT's own summary of times, of so many requests together.

    Its Python API has no profiler; its library does. A wrong guess of how that is
    called would end the process, so `times` asks for this in another.

    Raises:
        OSError, AttributeError, RuntimeError: this LiteRT has it not, or differs.
    """
    library = ctypes.CDLL(str(Path(ai_edge_litert.__file__).with_name("libLiteRt.so")))
    c = ctypes.CDLL(None)
    c.strdup.restype = pointer = ctypes.c_void_p

    call = functools.partial(_call, library)

    def made(name: str, *arguments) -> ctypes.c_void_p:
        result = pointer()
        call(name, *arguments, ctypes.byref(result))
        return result

    _, values, outputs = start(path, tokens, num_threads)
    environment = made("CreateEnvironment", 0, None)
    model = made("CreateModelFromFile", environment, os.fsencode(path))
    options = made("CreateOptions")
    call("SetOptionsHardwareAccelerators", options, 1)  # the CPU
    for kind, text in ((b"runtime_options_string", b"enable_profiling = true\n"),
                       (b"xnnpack", b"num_threads = %d\n" % num_threads)):
        call("AddOpaqueOptions", options, made(
            "CreateOpaqueOptions", kind, pointer(c.strdup(text)),
            ctypes.cast(c.free, pointer)))
    compiled = made("CreateCompiledModel", environment, model, options)
    signature = made("GetModelSignature", model, 0)

    def buffers(side: str, arrays: dict[str, np.ndarray]) -> ctypes.Array:
        found = []
        for index in range(len(arrays)):
            name = ctypes.cast(made(f"GetSignature{side}Name", signature, index),
                               ctypes.c_char_p).value.decode()
            array = arrays[name]
            if side == "Input" and name in INPUT_NAMES:
                call("CompiledModelResizeInputTensorNonStrict", compiled, 0, index,
                     (ctypes.c_int * array.ndim)(*array.shape), array.ndim)
            kind = _TensorType(_ELEMENT_TYPES[array.dtype.name], array.ndim,
                               (ctypes.c_int32 * 8)(*array.shape))
            found.append(made("CreateManagedTensorBuffer", environment, 1,
                              ctypes.byref(kind), array.nbytes))
            ctypes.memmove(made("GetTensorBufferHostMemory", found[-1]),
                           np.ascontiguousarray(array).ctypes.data, array.nbytes)
        return (pointer * len(found))(*found)

    inputs, results = buffers("Input", values), buffers("Output", outputs)
    profiler = made("CompiledModelGetProfiler", compiled)
    for step in ("Start", "Stop"):
        for _ in range(repeats):  # the first time round warms up
            call("RunCompiledModel", compiled, 0, len(inputs), inputs, len(results),
                 results)
        call(f"{step}Profiler", profiler)
    summary = made("GetProfileSummary", profiler, compiled)
    return ctypes.cast(summary, ctypes.c_char_p).value.decode()


def main() -> None:
    """Prints LiteRT's summary."""
    print(profile(FLAGS.artifact, FLAGS.tokens, FLAGS.num_threads,
                  2 if FLAGS.smoke else FLAGS.repeats))


def define_flags() -> None:
    """Defines the flags that this script shares with `inspect_tflite.py`."""
    flags.DEFINE_string("artifact", None, "A .tflite. inspect_tflite.py takes FILE "
                        "alone for it as well.", required=True)
    flags.DEFINE_integer("tokens", 32, "Tokens of a request, where the file leaves the "
                         "length open.", lower_bound=1)
    flags.DEFINE_integer("repeats", 50, "Requests of a timing.", lower_bound=1)
    shared.define_measuring()


if __name__ == "__main__":
    define_flags()
    shared.run(main)
