"""The results directory of a run: claimed by one command, resumed by the same."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from tfopt.files import write_whole

RUN_FILE = "run.json"
STATE = "state"
# Flags that do not change what is computed.
_FREE = {"out_dir", "num_threads"}
# In which the first of several workers claims a directory, once all have met.
_CLAIM_S = 120.0


def is_helper() -> bool:
    """Whether this process is a worker that computes along, and writes nothing."""
    if not os.environ.get("TF_CONFIG"):
        return False
    from tfopt.train.distribute import (
        cluster,
    )  # brings TensorFlow, which not all scripts need

    found = cluster.read()
    return found is not None and not found.is_chief


@contextlib.contextmanager
def claim(out_dir: str, script: str, **more: object) -> Iterator[Path]:
    """Takes a directory for this command.

    Where the block under it fails before it has left anything there, the directory is
    given back: a mistake mended by another flag must not be held against the user.

    Args:
        out_dir: new, empty, or holding a run of the same command.
        script: name of the script.
        **more: what else makes a command another one, such as a recipe's contents.

    Yields:
        The directory; to a worker that is not the first a temporary one, in which it
        finds what the first has left in its own.

    Raises:
        ValueError: it holds another run, or other files; nothing is changed then. Or
            the first worker has not claimed it for the same command.
    """
    path = Path(out_dir)
    defined = flags.FLAGS.flags_by_module_dict()
    chosen = {"script": script, **more} | {
        flag.name: flag.value for module in (sys.argv[0], script)
        for flag in defined.get(module, ()) if flag.name not in _FREE}
    text = json.dumps(chosen, indent=1, sort_keys=True, default=str) + "\n"
    file = path / RUN_FILE
    if is_helper():
        with _beside(path, text) as path:
            yield path
        return
    if file.exists():
        if file.read_text(encoding="utf-8") != text:
            raise ValueError(
                "--out_dir holds a run of another command; choose a new directory, or "
                f"give its flags again ({file} lists them). Received: {out_dir}")
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError("--out_dir must be new, empty, or hold a run of the same "
                         f"command. Received: {out_dir}")
    made = [place for place in (path, *path.parents) if not place.exists()]
    write_whole(file, text)
    try:
        yield path
    except Exception:
        if [place.name for place in path.iterdir()] == [RUN_FILE]:
            file.unlink()
            for place in made:
                place.rmdir()
        raise


@contextlib.contextmanager
def _beside(path: Path, text: str) -> Iterator[Path]:
    deadline = time.monotonic() + _CLAIM_S
    file = path / RUN_FILE
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    if not file.exists() or file.read_text(encoding="utf-8") != text:
        raise ValueError(
            "All workers must be given the same flags and recipe, and an --out_dir on "
            f"a disk that they share. Received: {path}, "
            + ("of another command" if file.exists() else "not claimed by the first"))
    (path / STATE).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as own:
        for place in path.iterdir():
            (Path(own) / place.name).symlink_to(place.resolve())
        yield Path(own)


def finish(path: Path) -> None:
    """Removes the state that only a resumed run needs."""
    shutil.rmtree(path / STATE, ignore_errors=True)
