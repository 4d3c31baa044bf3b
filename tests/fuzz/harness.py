"""Loads damaged files, and says what came of each.

In this process (`here`), or in another (`apart`), where a crash, a hang and the memory
of each load are seen: `python -m fuzz.harness LOADER PLACE FIRST COUNT`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import resource
import selectors
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from fuzz.loaders import LOADERS, Loader

HANG_S = 20
MOST_BYTES = 1 << 30
_START_S = 120  # for a process to import TensorFlow on a busy machine
_ROOM_BYTES = 6 << 30  # of address space, beyond what a process has at the start


@dataclasses.dataclass
class Outcome:
    """What came of a number of damaged files.

    Attributes:
        loaded: how many were taken.
        refused: how many were answered by a ValueError of one sentence.
        faults: what else came, each with its seed.
        most_bytes: the most memory that a load took, where it was looked at.
    """

    loaded: int = 0
    refused: int = 0
    faults: list[str] = dataclasses.field(default_factory=list)
    most_bytes: int = 0

    def add(self, seed: int, said: str, taken: int = 0) -> None:
        """Counts a file."""
        self.most_bytes = max(self.most_bytes, taken)
        if taken > MOST_BYTES:
            said = f"{taken / 1e9:.1f} GB"
        if said == "loaded":
            self.loaded += 1
        elif said == "refused":
            self.refused += 1
        else:
            self.faults.append(f"seed {seed}: {said}")


def damage(loader: Loader, place: Path, seed: int) -> None:
    """Damages one of a loader's files, for good."""
    source = random.Random(f"{loader.name} {seed}")
    name = source.choice(sorted(loader.files))
    file = place / name
    file.write_bytes(loader.files[name](source, file.read_bytes()))


def load_good(loader: Loader, good: Path) -> None:
    """Loads a copy of good files as they are: what refuses these tells nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        loader.load(Path(shutil.copytree(good, Path(scratch) / "copy")))


def attempt(loader: Loader, good: Path, seed: int) -> str:
    """Loads a copy of good files, one of them damaged: what came of it."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(shutil.copytree(good, Path(scratch) / "copy"))
        damage(loader, place, seed)
        try:
            loader.load(place)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # of which a panic in Rust is one
            if type(error) is ValueError and "Received: " in str(error):
                return "refused"
            return f"{type(error).__name__}: {str(error)[:200]!r}"
        beside = sorted(path.name for path in Path(scratch).iterdir())
        return "loaded" if beside == ["copy"] else f"wrote beside it: {beside}"


def here(loader: Loader, good: Path, seeds: range) -> Outcome:
    """Loads damaged files in this process."""
    outcome = Outcome()
    load_good(loader, good)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of overflows in damaged numbers, say
        for seed in seeds:
            outcome.add(seed, attempt(loader, good, seed))
    return outcome


def apart(loader: Loader, good: Path, seeds: range) -> Outcome:
    """Loads damaged files in processes of their own, a new one after each that died."""
    outcome = Outcome()
    seed = seeds.start
    while seed < seeds.stop:
        with _process(loader, good, range(seed, seeds.stop)) as process:
            for line in _lines(process):
                said = json.loads(line)
                outcome.add(seed, said["said"], said["bytes"])
                seed += 1
            if seed < seeds.stop:  # it died of this one
                hung = process.poll() is None
                process.kill()
                outcome.add(seed, "hang" if hung else f"died: {process.wait()}")
                seed += 1
    return outcome


def _process(loader: Loader, good: Path, seeds: range) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "fuzz.harness", loader.name, str(good),
         str(seeds.start), str(len(seeds))],
        cwd=Path(__file__).parents[1], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, env={
            **os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join(
                [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])])})


def _lines(process: subprocess.Popen) -> Iterator[str]:
    """What a process says, until it ends or is silent for too long."""
    assert process.stdout
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        wait_s = _START_S
        while selector.select(wait_s):
            line = process.stdout.readline()
            if not line:
                process.wait()
                return
            if line != "ready\n":
                yield line
            wait_s = HANG_S


def _memory(name: str) -> int:
    """A figure of this process's memory in bytes: VmRSS, VmHWM or VmSize."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) * 1024


def main(name: str, good: str, first: int, count: int) -> None:
    """Says a line of JSON for each damaged file."""
    loader = LOADERS[name]
    # What a library prints must not mix with the answers, nor a crash tell a terminal.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    load_good(loader, Path(good))
    most = _memory("VmSize") + _ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    print("ready", file=answers, flush=True)
    for seed in range(first, first + count):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _memory("VmRSS")
        said = attempt(loader, Path(good), seed)
        taken = max(0, _memory("VmHWM") - before)
        print(json.dumps({"said": said, "bytes": taken}), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
