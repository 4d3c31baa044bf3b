"""Runs a `.tflite` by LiteRT: texts or token ids in, logits out.

Neither TensorFlow nor Keras is imported here; a server needs `ai-edge-litert`,
`tokenizers` and NumPy. One interpreter is resized to each text's exact length: a
change of length costs some 0.2 ms, while a pool of interpreters of fixed lengths would
hold a copy of the weights each.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from tfopt import inputs
from tfopt.types import INPUT_NAMES, PathLike

# How numbers of threads are tried: requests of so many tokens, in turns of several.
_TRIED_TOKENS = 16
_TURNS, _REQUESTS = 3, 5
_AS_FAST = 1.05  # times the fastest


class TextEncoder(Protocol):
    """What turns texts to ids; `data.WordPiece` is one."""

    def encode(self, texts, pairs=None, *, max_length: int):
        """Returns an object with `ids` and `first_lengths`."""


class Interpreter:
    """A BERT in LiteRT.

    Args:
        path: of the `.tflite`.
        num_threads: for each request; None tries what answers fastest here, up to
            every core the process may use (`fewest_threads`).
        encoder: turns texts to ids; needed for `predict` alone.
        max_length: tokens to which `predict` cuts texts.
        pad_id: fills a model of a fixed length; None takes the encoder's, or 0.

    Raises:
        ValueError: the file is missing, damaged, or no text model of tfopt's.
    """

    def __init__(self, path: PathLike, *, num_threads: int | None = None,
                 encoder: TextEncoder | None = None, max_length: int = 128,
                 pad_id: int | None = None):
        from ai_edge_litert import interpreter as litert

        path = Path(path)
        if not path.is_file():
            raise ValueError(f"A .tflite file is needed. Received: {path}")
        if num_threads is not None and num_threads < 1:
            raise ValueError("`num_threads` must be at least 1. Received: "
                             f"num_threads={num_threads}")
        if num_threads is None:
            num_threads = fewest_threads(path, len(os.sched_getaffinity(0)))
        try:
            self._interpreter = litert.Interpreter(model_path=str(path),
                                                   num_threads=num_threads)
            signature = self._interpreter.get_signature_list()["serving_default"]
        except (ValueError, RuntimeError, KeyError) as error:
            raise ValueError("The file must be a .tflite with the signature "
                             f"'serving_default'. Received: {path}: {error}") from error
        self._names = [name for name in INPUT_NAMES if name in signature["inputs"]]
        if (INPUT_NAMES[0] not in self._names
                or len(self._names) < len(signature["inputs"])):
            raise ValueError(f"The model's inputs must be of {INPUT_NAMES}, the first "
                             f"among them. Received: {path} with {signature['inputs']}")
        runner = self._interpreter.get_signature_runner("serving_default")
        details = runner.get_input_details()
        self._inputs = [details[name]["index"] for name in self._names]
        output = runner.get_output_details()["logits"]
        self._output = output["index"]
        self._quantization = output["quantization"]
        shape = details[INPUT_NAMES[0]]["shape_signature"]
        self.fixed_length = None if shape[1] < 0 else int(shape[1])
        self._length: int | None = None
        self._encoder = encoder
        self._pad_id = getattr(encoder, "pad_id", 0) if pad_id is None else pad_id
        self._max_length = min(max_length, self.fixed_length or max_length)

    def run(self, ids: Sequence[int], first_length: int | None = None) -> np.ndarray:
        """Computes one example.

        Args:
            ids: token ids, [CLS] first.
            first_length: how many of them are of the first segment; default all.

        Returns:
            Logits <float32>[C].

        Raises:
            ValueError: the model takes no input of that length, an id is outside of
                its vocabulary, or the first segment is longer than the ids.
        """
        count = len(ids)
        first = count if first_length is None else first_length
        length = self.fixed_length or count
        if not 0 < count <= length:
            raise ValueError("The model takes at least 1 token, and at most its fixed "
                             f"length if it has one ({self.fixed_length}). "
                             f"Received: {count} tokens")
        values = inputs.build([ids], [first], self._names, length=length,
                              pad_id=self._pad_id)
        try:
            if length != self._length:
                self._length = None
                for index in self._inputs:
                    self._interpreter.resize_tensor_input(index, [1, length])
                self._interpreter.allocate_tensors()
                self._length = length
            for index, value in zip(self._inputs, values.values(), strict=True):
                self._interpreter.set_tensor(index, value)
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                "The model refuses the input; it may be longer than its positions, or "
                f"hold ids outside of its vocabulary. Received: {count} tokens, ids "
                f"{min(ids)} to {max(ids)}: {error}") from error
        return widened(self._interpreter.get_tensor(self._output)[0],
                       self._quantization)

    def logits(self, ids: Sequence[Sequence[int]],
               first_lengths: Sequence[int]) -> np.ndarray:
        """Computes N examples one after the other: logits <float32>[N, C]."""
        return np.stack([self.run(*example)
                         for example in zip(ids, first_lengths, strict=True)])

    def predict(self, texts: Sequence[str],
                pairs: Sequence[str] | None = None) -> np.ndarray:
        """Computes N texts, or pairs.

        Args:
            texts: N texts.
            pairs: N second texts, or None.

        Returns:
            Logits <float32>[N, C].

        Raises:
            ValueError: the interpreter was made without an encoder.
        """
        if self._encoder is None:
            raise ValueError("Texts need an encoder: Interpreter(path, encoder="
                             "WordPiece.from_directory(...)). Received: encoder=None")
        encoded = self._encoder.encode(texts, pairs, max_length=self._max_length)
        return self.logits(encoded.ids, encoded.first_lengths)


def thread_counts(most: int) -> list[int]:
    """Numbers of threads worth a trial, ascending: 1, 2, 4 ... and the most."""
    return sorted({most, *(2 ** i for i in range(most.bit_length()))})


def fewest_threads(path: PathLike, most: int) -> int:
    """Tries how many threads a model needs on this machine, in fractions of a second.

    Threads wait for one another after each of a model's hundred operations; where those
    are small, or two cores are one that is shared, a single thread is the fastest.

    Args:
        path: of the `.tflite`.
        most: threads that may be used.

    Returns:
        The fewest of `thread_counts` that answer within 5 % of the fastest.

    Raises:
        ValueError: the file is missing, damaged, or no BERT of tfopt's.
    """
    counts = thread_counts(most)
    if len(counts) == 1:
        return most
    tried = [Interpreter(path, num_threads=count) for count in counts]
    ids = [0] * (tried[0].fixed_length or _TRIED_TOKENS)
    seconds = np.zeros([len(tried), _TURNS, _REQUESTS])
    for turn in range(_TURNS):
        for taken, interpreter in zip(seconds[:, turn], tried, strict=True):
            interpreter.run(ids)  # wakes its threads
            for i in range(_REQUESTS):
                begun = time.perf_counter()
                interpreter.run(ids)
                taken[i] = time.perf_counter() - begun
    medians = np.median(seconds, axis=(1, 2))
    return counts[int(np.argmax(medians <= _AS_FAST * medians.min()))]


def widened(values: np.ndarray, quantization: tuple[float, int]) -> np.ndarray:
    """Numbers of a tensor as floats, by its scale and zero point, as LiteRT has them.

    A scale of 0 is that of a tensor of floats.
    """
    scale, zero_point = quantization
    if not scale:
        return values
    return np.float32(scale) * (values.astype(np.float32) - zero_point)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits <float>[..., C], over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)
