"""LiteRT's interpreter of one `.tflite`: arrays in, logits out, a thread at a time.

No two threads may be in it at once: it fails, or answers with the other's numbers.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from tfopt.types import INPUT_NAMES

LAST_POSITION = "last_position"  # name of the constant that bounds positions
_LOGITS = "logits"
_LONGEST_REPORT = 1 << 16  # letters of all that LiteRT has said


class LiteRT:
    """A text model's graph, ready to compute.

    Args:
        path: of the `.tflite`.
        num_threads: that compute a request.
        state: of the file, where it must still be as it was.

    Attributes:
        names: the model's inputs, of `INPUT_NAMES`.
        outputs: C, logits of an example, or of a token.
        per_token: whether there are C of each token.
        fixed_length: tokens of the input; None where it is open.
        max_tokens: more than these have no position of their own; None where the file
            does not say so, but fails.

    Raises:
        ValueError: the file is missing, damaged, changed, or no text model of tfopt's.
    """

    def __init__(self, path: Path, num_threads: int,
                 state: tuple[int, ...] | None = None):
        self._path, self._num_threads = path, num_threads
        self._state = state or state_of(path)
        self._open()

    def again(self) -> LiteRT:
        """Another graph of the same file.

        Raises:
            ValueError: the file is another by now, or gone.
        """
        return LiteRT(self._path, self._num_threads, self._state)

    def _open(self) -> None:
        from ai_edge_litert import interpreter as litert

        if state_of(self._path) != self._state:
            raise ValueError("The file must stay the one that was opened. Received: "
                             f"{self._path}, written since")
        try:
            interpreter = litert.Interpreter(model_path=str(self._path),
                                             num_threads=self._num_threads)
            signature = interpreter.get_signature_list()["serving_default"]
            self.max_tokens = _max_tokens(interpreter)
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            raise ValueError("The file must be a .tflite with the signature "
                             f"'serving_default'. Received: {self._path}: {error}"
                             ) from error
        self.names = [name for name in INPUT_NAMES if name in signature["inputs"]]
        if (INPUT_NAMES[0] not in self.names
                or len(self.names) < len(signature["inputs"])):
            raise ValueError(f"The model's inputs must be of {INPUT_NAMES}, the first "
                             "among them. Received: "
                             f"{self._path} with {signature['inputs']}")
        if _LOGITS not in signature["outputs"]:
            raise ValueError(
                f"The model must have the output {_LOGITS!r}, as tfopt exports it; "
                "what others mean, such as probabilities alone, it cannot tell. "
                f"Received: {self._path} with {signature['outputs']}")
        runner = interpreter.get_signature_runner("serving_default")
        details = runner.get_input_details()
        self._inputs = {name: details[name]["index"] for name in self.names}
        output = runner.get_output_details()[_LOGITS]
        self._output, self._quantization = output["index"], output["quantization"]
        self.outputs = int(output["shape"][-1])
        self.per_token = len(output["shape"]) > 2
        shape = details[INPUT_NAMES[0]]["shape_signature"]
        self.fixed_length = None if shape[1] < 0 else int(shape[1])
        self._interpreter, self._said = interpreter, ""
        self._shape: tuple[int, ...] | None = None

    def run(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Computes a batch of inputs by name: logits <float32>[B, ...]."""
        shape = values[INPUT_NAMES[0]].shape
        if shape != self._shape:
            self._shape = None
            for index in self._inputs.values():
                self._interpreter.resize_tensor_input(index, shape)
            self._interpreter.allocate_tensors()
            self._shape = shape
        for name, index in self._inputs.items():
            self._interpreter.set_tensor(index, values[name])
        self._interpreter.invoke()
        return widened(self._interpreter.get_tensor(self._output), self._quantization)

    def failed(self, error: Exception) -> str:
        """What LiteRT says of this failure: it repeats all that it ever said before.

        Once that has grown long, the interpreter is made anew.
        """
        said = str(error)
        latest = said.removeprefix(self._said)
        if said.startswith(self._said):
            self._said = said
        if len(said) > _LONGEST_REPORT:
            with contextlib.suppress(ValueError):  # the file is another by now
                self._open()
        return latest


def _max_tokens(interpreter: Any) -> int | None:
    """Tokens up to the constant that bounds positions (`export.mediapipe`)."""
    last = next((found["index"] for found in interpreter.get_tensor_details()
                 if found["name"] == LAST_POSITION), None)
    return None if last is None else int(interpreter.get_tensor(last)) + 1


def state_of(path: Path) -> tuple[int, ...]:
    """What changes when a file is written or replaced; empty for no file."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


def unnamed_copy(path: Path) -> IO[bytes]:
    """A file without a name, of the same contents.

    Raises:
        OSError: the disk for temporary files is full.
    """
    copy = tempfile.TemporaryFile()
    with path.open("rb") as file:
        shutil.copyfileobj(file, copy)
    copy.flush()
    return copy


def widened(values: np.ndarray, quantization: tuple[float, int]) -> np.ndarray:
    """Numbers of a tensor as floats, by its scale and zero point, as LiteRT has them.

    A scale of 0 is that of a tensor of floats.
    """
    scale, zero_point = quantization
    if not scale:
        return values
    return np.float32(scale) * (values.astype(np.float32) - zero_point)
