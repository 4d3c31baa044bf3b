"""Many texts -> a file of answers: a process a core, in the order of the texts.

    bulk.answer("runs/a", texts, output="answers.jsonl")

Texts go out in blocks, and of a block in parts of much the same length: a change of
length costs a model of 1 ms a fifth of its time, and parts of like work keep all cores
busy. Blocks are written in order; a killed run goes on behind the last one that is in
the file. Each process computes with one thread: two of them on one text each give more
than two threads on one.

From a script, call it below `if __name__ == "__main__":`, for processes read it again.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import fcntl
import hashlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from absl import logging

from tfopt.data.corpus import LABELS_FILE
from tfopt.data.tokenizer import FILES
from tfopt.files import check_place, digest, read_json, to_json, write_whole
from tfopt.serve import answer_lines, manifest
from tfopt.serve.bundle import Bundle
from tfopt.types import PathLike

_BLOCK, _PART = 8192, 256  # texts
_AHEAD = 2  # blocks that are computed while one is waited for
_EVERY_S = 10.0  # of a log's progress
_PARTIAL, _STATE = ".partial", ".partial.json"

Texts = Sequence[tuple[str, str | None]]


@dataclasses.dataclass(frozen=True)
class Answered:
    """How many texts have got a line.

    Attributes:
        count: all of them.
        failed: those whose line says "error".
        first_error: the first of these; "" for none.
    """

    count: int
    failed: int
    first_error: str


def answer(directory: PathLike, texts: Texts, output: PathLike, *, top_k: int = 3,
           processes: int | None = None, max_length: int | None = None) -> Answered:
    """Answers texts, or pairs, into a file of JSON lines, in their order.

    Args:
        directory: of the bundle.
        texts: N texts, each with the second one of a pair or None.
        output: the file; while it is not whole it is called OUTPUT.partial.
        top_k: classes that are named.
        processes: None for one a core.
        max_length: tokens to which texts are cut; None for the bundle's.

    Returns:
        What was answered, in this run and before.

    Raises:
        ValueError: the bundle is wrong, some texts alone are of a pair, the file is
            there, or one that is not whole is of other texts or another bundle, or is
            cut; or a process was killed.
        OSError: the disk is full.
    """
    output = Path(output)
    check_place(output)
    if output.exists():
        raise ValueError(f"--output_file must be new. Received: {output}")
    if len({pair is None for _, pair in texts}) > 1:
        raise ValueError("All texts, or none, must be of a pair. Received: "
                         f"{sum(pair is None for _, pair in texts)} alone of "
                         f"{len(texts)}")
    Bundle.open(directory, num_threads=1, copies=1)  # which checks that it is whole
    identity = _identity(Path(directory), texts, top_k, max_length)
    state = output.with_name(output.name + _STATE)
    with _begun(output, identity) as (file, counts):
        bar = _Bar(len(texts), counts.count)
        for lines, failed, first in _blocks(Path(directory), texts[counts.count:],
                                            top_k, processes, max_length):
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
            counts = Answered(bar.done(lines.count(b"\n")), counts.failed + failed,
                              counts.first_error or first)
            write_whole(state, to_json({
                "of": identity, "counts": dataclasses.astuple(counts),
                "bytes": file.tell()}))
        os.replace(file.name, output)
        state.unlink(missing_ok=True)
    return counts


@contextlib.contextmanager
def _begun(output: Path, identity: str) -> Iterator[tuple[Any, Answered]]:
    """The file of what is answered so far, behind its last whole block; and how many.

    Raises:
        ValueError: it is of other texts or another bundle, or in use.
    """
    partial = output.with_name(output.name + _PARTIAL)
    state = output.with_name(output.name + _STATE)
    with open(partial, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError("One run at a time may write an --output_file. Received: "
                             f"{partial}, in use") from error
        except OSError:
            logging.warning("%s cannot be locked: start no second run", partial)
        found: dict[str, Any] = read_json(state) if state.exists() else {
            "of": identity, "counts": (0, 0, ""), "bytes": 0}
        there = os.fstat(file.fileno()).st_size
        if found.get("of") != identity or there < found["bytes"]:
            raise ValueError("What is there of --output_file must be of the same texts "
                             "and bundle, and whole; remove both files to start anew. "
                             f"Received: {partial} of {there} bytes, {state}")
        file.truncate(found["bytes"])  # behind it is what was cut off
        counts = Answered(*found["counts"])
        if counts.count:
            logging.info("%d texts are answered already", counts.count)
        yield file, counts


def _identity(directory: Path, texts: Texts, top_k: int, max_length: int | None) -> str:
    """A hash of all that answers depend on."""
    files = (manifest.MODEL_FILE, manifest.MANIFEST_FILE, LABELS_FILE, *FILES)
    found = hashlib.sha256(to_json([
        {name: digest(directory / name) for name in files
         if (directory / name).is_file()}, top_k, max_length]).encode())
    for text, pair in texts:
        found.update(f"{text}\0{pair}\n".encode(errors="surrogatepass"))
    return found.hexdigest()


def _blocks(directory: Path, texts: Texts, top_k: int, processes: int | None,
            max_length: int | None) -> Iterator[tuple[bytes, int, str]]:
    """The lines of each block in order, how many of them failed, and why the first."""
    count = processes or len(os.sched_getaffinity(0))
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _open,
                               (directory, top_k, max_length))
    waiting: collections.deque[list[tuple[list[int], Future]]] = collections.deque()
    try:
        for start in range(0, len(texts), _BLOCK):
            block = texts[start:start + _BLOCK]
            waiting.append([(rows, pool.submit(_part, [block[row] for row in rows]))
                            for rows in _parts(block)])
            if len(waiting) > _AHEAD:
                yield _in_order(waiting.popleft())
        while waiting:
            yield _in_order(waiting.popleft())
    except BrokenProcessPool as error:
        raise ValueError("A process that answers was killed, for want of memory say; "
                         "the same command goes on, with fewer --processes if need be. "
                         f"Received: {count} processes") from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _parts(block: Texts) -> Iterator[list[int]]:
    """Rows of a block in parts of much the same length, the longest first."""
    rows = sorted(range(len(block)), key=lambda row: -len(block[row][0])
                  - len(block[row][1] or ""))
    yield from (rows[start:start + _PART] for start in range(0, len(rows), _PART))


def _in_order(parts: Sequence[tuple[list[int], Future]]) -> tuple[bytes, int, str]:
    lines: dict[int, str] = {}
    errors: dict[int, str] = {}
    for rows, future in parts:
        found, failed = future.result()
        lines.update(zip(rows, found, strict=True))
        errors.update({rows[place]: said for place, said in failed.items()})
    said = "".join(f"{lines[row]}\n" for row in sorted(lines))
    return said.encode(), len(errors), errors[min(errors)] if errors else ""


# Of a process that answers: its bundle, and how many classes it names.
_own: dict[str, Any] = {}


def _open(directory: Path, top_k: int, max_length: int | None) -> None:
    """Makes a process ready."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: it is the parent's
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # all cores have work
    bundle = Bundle.open(directory, num_threads=1, copies=1)
    bundle.max_length = min(bundle.max_length, max_length or bundle.max_length)
    _own.update(bundle=bundle, top_k=top_k)


def _part(texts: Texts) -> tuple[list[str], dict[int, str]]:
    """A line of JSON for each text, and the errors among them by their places."""
    found = answers(_own["bundle"], texts)
    errors = {place: each["error"] for place, each in enumerate(found)
              if "error" in each}
    return [answer_lines.line_of(answer_lines.fields_of(*asked, each, _own["top_k"]))
            for asked, each in zip(texts, found, strict=True)], errors


def answers(bundle: Bundle, texts: Texts) -> list[Mapping[str, Any]]:
    """The task's answers to texts, all or none of a pair; or {"error": why}."""
    if not texts:
        return []
    pairs = None if texts[0][1] is None else [pair or "" for _, pair in texts]
    with contextlib.suppress(ValueError):
        for text, _ in texts:
            check(text)
        return list(bundle.predict([text for text, _ in texts], pairs))
    found: list[Mapping[str, Any]] = []
    for text, pair in texts:  # one of them is wrong
        try:
            check(text)
            found += bundle.predict([text], None if pair is None else [pair])
        except ValueError as error:
            found.append({"error": str(error)})
    return found


def check(text: str) -> None:
    """Checks that there is something to answer.

    Raises:
        ValueError: the text is empty.
    """
    if not text.strip():
        raise ValueError(f"A text must not be empty. Received: {text!r}")


class _Bar:
    """Says on a terminal, or now and then in the log, how far it is.

    Args:
        total: texts.
        before: that were answered before.
    """

    def __init__(self, total: int, before: int):
        self._total, self._count, self._before = total, before, before
        self._begun = self._said = time.monotonic()

    def done(self, count: int) -> int:
        """Takes note of so many more; returns how many there are in all."""
        self._count += count
        now = time.monotonic()
        rate = (self._count - self._before) / max(now - self._begun, 1e-9)
        said = (f"{self._count:,} of {self._total:,} texts, {rate:,.0f} a second, "
                f"{(self._total - self._count) / max(rate, 1e-9):,.0f} s left")
        last = self._count >= self._total
        if sys.stderr.isatty():
            full = 30 * self._count // self._total
            sys.stderr.write(f"\r[{'=' * full:30}] {said}  {chr(10) if last else ''}")
            sys.stderr.flush()
        elif last or now - self._said > _EVERY_S:
            self._said = now
            logging.info("%s", said)
        return self._count
