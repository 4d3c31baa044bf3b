"""Runs a `.tflite` by LiteRT: texts or token ids in, logits out.

Neither TensorFlow nor Keras is imported here; a server needs `ai-edge-litert`,
`tokenizers`, NumPy and absl-py. A graph is resized to each text's exact length: a
change of length costs some 0.2 ms, while one for each length would hold a copy of the
weights each. It serves one thread at a time; where several ask, there are copies of it.
"""

from __future__ import annotations

import os
import queue
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from absl import logging

from tfopt import inputs
from tfopt.export import trial, verify
from tfopt.export.litert import LiteRT, state_of, unnamed_copy
from tfopt.types import PathLike, check_lists

# How numbers of threads are tried: requests of so many tokens, in turns of several.
_TRIED_TOKENS = 16
_TURNS, _REQUESTS = 3, 5
_AS_FAST = 1.05  # times the fastest


class TextEncoder(Protocol):
    """What turns texts to ids; every `data.Tokenizer` is one."""

    def encode(self, texts, pairs=None, *, max_length: int):
        """Returns an object with `ids` and `first_lengths`."""


class Interpreter:
    """A text model in LiteRT; any number of threads may ask it at once.

    Args:
        path: of the `.tflite`.
        num_threads: for each request; None tries what answers fastest here, up to
            every core the process may use (`fewest_threads`).
        copies: of the graph at most, each with weights of its own: that many requests
            are computed at once, others wait. A copy is made when a request finds none
            free. None makes as many as have a core for each thread.
        encoder: turns texts to ids; needed for `predict` alone.
        max_length: tokens to which `predict` cuts texts.
        pad_id: fills a model of a fixed length; None takes the encoder's, or 0.
        known: whether it is known where the file comes from, such as by the hash in a
            bundle. Another is opened in a process of its own first (`export.trial`),
            which takes half a second; each is verified (`export.verify`).
        private: whether a copy of the file is opened, on the disk and without a name:
            the file is mapped into memory, so that whoever writes into it, or cuts it,
            would change the model or end the process.

    Attributes:
        names: the model's inputs, of `types.INPUT_NAMES`.
        outputs: C, logits of an example, or of a token.
        per_token: whether there are C of each token.
        fixed_length: tokens of the model's input; None where it is open.

    Raises:
        ValueError: the file is missing, damaged, no text model of tfopt's, or ends the
            process that tries it.
    """

    def __init__(self, path: PathLike, *, num_threads: int | None = None,
                 copies: int | None = None, encoder: TextEncoder | None = None,
                 max_length: int = 128, pad_id: int | None = None, known: bool = False,
                 private: bool = False):
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"A .tflite file is needed. Received: {path}")
        if min(1 if count is None else count for count in (num_threads, copies)) < 1:
            raise ValueError("`num_threads` and `copies` must be at least 1. Received: "
                             f"num_threads={num_threads}, copies={copies}")
        cores = len(os.sched_getaffinity(0))
        state = state_of(path)  # it must stay the one that was checked
        verify.check_file(path)
        if not known:
            trial.run(path, state)
        if num_threads is None:
            num_threads = fewest_threads(path, cores, known=True)
        if private:
            file = unnamed_copy(path)
            weakref.finalize(self, file.close)  # there as long as copies are made
            if state_of(path) != state:
                raise ValueError("The file must stay the one that was opened. Received:"
                                 f" {path}, written since")
            path = Path(f"/proc/self/fd/{file.fileno()}")
            state = state_of(path)
        first = LiteRT(path, num_threads, state)
        self.names, self.outputs = first.names, first.outputs
        self.fixed_length, self.per_token = first.fixed_length, first.per_token
        # Last in, first out: one client's requests find the copy they warmed.
        self._free: queue.LifoQueue[LiteRT] = queue.LifoQueue()
        self._free.put(first)
        self._first = first
        self._more = (copies or max(1, cores // num_threads)) - 1
        self._lock = threading.Lock()  # for counting copies
        self._encoder = encoder
        self._pad_id = getattr(encoder, "pad_id", 0) if pad_id is None else pad_id
        self._max_length = min(max_length, self.fixed_length or max_length)
        self._cut = CutOnce()

    def run(self, ids: Sequence[int], first_length: int | None = None) -> np.ndarray:
        """Computes one example.

        Args:
            ids: token ids, [CLS] first.
            first_length: how many of them are of the first segment; default all.

        Returns:
            Logits <float32>[C]; of a head that reads all tokens [T, C], of the given
            ones alone.

        Raises:
            ValueError: the model takes no input of that length, an id is outside of
                its vocabulary, the first segment is longer than the ids, or the model
                gives NaN.
        """
        count = len(ids)
        first = count if first_length is None else first_length
        length = self.fixed_length or count
        most = self.fixed_length or self._first.max_tokens or count
        if not 0 < count <= most:
            raise ValueError("The model takes at least 1 token, and at most its fixed "
                             f"length or its positions ({most}). Received: {count} "
                             "tokens")
        values = inputs.build([ids], [first], self.names, length=length,
                              pad_id=self._pad_id)
        copy = self._taken()
        try:
            found = copy.run(values)[0]
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                "The model refuses the input; it may be longer than its positions, or "
                f"hold ids outside of its vocabulary. Received: {count} tokens, ids "
                f"{min(ids)} to {max(ids)}: {copy.failed(error)}") from error
        finally:
            self._free.put(copy)
        if not np.isfinite(found).all():
            raise ValueError("A model must give finite numbers; this one's weights may "
                             f"hold NaN. Received: {found[:4].tolist()}")
        return found[:count] if self.per_token else found

    def warm(self, ids: Sequence[int]) -> None:
        """Makes all copies at once, and has each compute an example.

        A server's first requests would wait for them otherwise.

        Args:
            ids: as of `run`.

        Raises:
            ValueError: as `run`.
        """
        self.run(ids)
        values = inputs.build([ids], [len(ids)], self.names, pad_id=self._pad_id,
                              length=self.fixed_length or len(ids))
        with self._lock:
            new, self._more = self._more, 0
        for copy in [self._first.again() for _ in range(new)]:
            copy.run(values)
            self._free.put(copy)

    def logits(self, ids: Sequence[Sequence[int]],
               first_lengths: Sequence[int]) -> Any:
        """Computes N examples, those of a length together.

        Returns:
            Logits <float32>[N, C]; of a head that reads all tokens N times [T, C].
        """
        rows = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        found = {row: self.run(ids[row], first_lengths[row]) for row in rows}
        return (inputs.together([found[row] for row in range(len(ids))]) if rows
                else np.zeros([0, self.outputs], np.float32))

    def predict(self, texts: Sequence[str],
                pairs: Sequence[str] | None = None) -> Any:
        """Computes N texts, or pairs.

        Args:
            texts: N texts.
            pairs: N second texts, or None.

        Returns:
            As of `logits`.

        Raises:
            ValueError: the interpreter was made without an encoder, or `texts` or
                `pairs` are one text.
        """
        check_lists(texts=texts, pairs=pairs)
        if self._encoder is None:
            raise ValueError("Texts need an encoder: Interpreter(path, encoder=data."
                             "tokenizer_from(...)). Received: encoder=None")
        encoded = self._encoder.encode(texts, pairs, max_length=self._max_length)
        self._cut.say(getattr(encoded, "truncated", 0), self._max_length)
        return self.logits(encoded.ids, encoded.first_lengths)

    def _taken(self) -> LiteRT:
        """A copy that is free, or a new one, or the first that becomes free."""
        try:
            return self._free.get_nowait()
        except queue.Empty:
            with self._lock:
                new, self._more = self._more > 0, max(0, self._more - 1)
        if new:
            try:
                return self._first.again()
            except ValueError as error:  # the file is gone: go on with what there is
                logging.warning("There is no further copy of the model: %s", error)
                self._more = 0
        return self._free.get()


class CutOnce:
    """Says in the log that texts are cut, the first time that one is."""

    def __init__(self):
        self._said = False

    def say(self, count: int, max_length: int) -> None:
        """Takes note of `count` texts that were cut to `max_length` tokens."""
        if count and not self._said:
            self._said = True
            logging.warning("Texts are cut to %d tokens; the rest of them has no part "
                            "in the answer", max_length)


def thread_counts(most: int) -> list[int]:
    """Numbers of threads worth a trial, ascending: 1, 2, 4 ... and the most."""
    return sorted({most, *(2 ** i for i in range(most.bit_length()))})


def fewest_threads(path: PathLike, most: int, known: bool = False) -> int:
    """Tries how many threads a model needs on this machine, in fractions of a second.

    Threads wait for one another after each of a model's hundred operations; where those
    are small, or two cores are one that is shared, a single thread is the fastest.

    Args:
        path: of the `.tflite`.
        most: threads that may be used.
        known: as of `Interpreter`.

    Returns:
        The fewest of `thread_counts` that answer within 5 % of the fastest.

    Raises:
        ValueError: the file is missing, damaged, or no BERT of tfopt's.
    """
    counts = thread_counts(most)
    if len(counts) == 1:
        return most
    tried = [Interpreter(path, num_threads=count, known=known or i > 0)
             for i, count in enumerate(counts)]
    ids = [0] * (tried[0].fixed_length or _most_tokens(tried[0], _TRIED_TOKENS))
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


def _most_tokens(interpreter: Interpreter, most: int) -> int:
    """Tokens that a model answers: the most, or half of them, or half again."""
    while most > 1:
        try:
            interpreter.run([0] * most)
            break
        except ValueError:  # it may have fewer positions
            most //= 2
    return most


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits <float>[..., C], over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)
