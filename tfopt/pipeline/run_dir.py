"""The results directory of a run: claimed by one run at a time, resumed by the same.

`run.json` in it holds the run's identity. A stage's directory notes the identity it was
made for, so that what another run has left there is never taken for its own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import logging

from tfopt.files import read_json, remove_partial, to_json, write_whole
from tfopt.pipeline import identity as identities
from tfopt.types import PathLike

RUN_FILE = identities.RUN_FILE
_RUN_RULE = "A run's file must be a JSON object"
STATE = "state"
_LOCK = ".lock"
_STAGE_FILE = "made_for.txt"
SEARCH_LOCK = ".search.lock"  # which the processes of a search wait for
_OWN = {RUN_FILE, _LOCK, SEARCH_LOCK}
# In which the first of several workers claims a directory, once all have met.
_CLAIM_S = 120.0


def is_helper() -> bool:
    """Whether this process is a worker that computes along, and writes nothing."""
    if not os.environ.get("TF_CONFIG"):
        return False
    from tfopt.train.distribute import cluster  # TensorFlow is not always needed

    found = cluster.read()
    return found is not None and not found.is_chief


@contextlib.contextmanager
def claim(out_dir: PathLike, identity: Mapping[str, Any]) -> Iterator[Path]:
    """Takes a directory for a run, until the block ends or the process dies.

    Where the block under it fails before it has left anything there, the directory is
    given back: a mistake mended by another option must not be held against the user.
    What a killed run has written in part is removed.

    Args:
        out_dir: new, empty, or holding a run of the same identity.
        identity: what the run is made of (`pipeline.identity`).

    Yields:
        The directory; to a worker that is not the first a temporary one, in which it
        finds what the first has left in its own.

    Raises:
        ValueError: it holds another run, or other files, or a run is at work there;
            nothing is changed then. Or the first worker has not claimed it for the same
            identity.
    """
    path = Path(out_dir)
    identity = json.loads(to_json(identity, default=str))
    if is_helper():
        with _beside(path, identity) as own:
            yield own
        return
    if path.exists() and (not path.is_dir() or (
            not (path / RUN_FILE).exists()
            and {place.name for place in path.iterdir()} - _OWN)):
        raise ValueError("--out_dir must be new, empty, or hold a run of the same "
                         f"identity. Received: {out_dir}")
    made = [place for place in (path, *path.parents) if not place.exists()]
    path.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        _check_same(path, identity)
        remove_partial(path)
        write_whole(path / RUN_FILE, to_json(identity, indent=1) + "\n")
        try:
            yield path
        except Exception:
            if {place.name for place in path.iterdir()} <= _OWN:
                for name in _OWN:
                    (path / name).unlink(missing_ok=True)
                for place in made:
                    place.rmdir()
            raise


def is_done(stage: Path, file: str, identity: Mapping[str, Any]) -> bool:
    """Whether a stage has left a file in its directory, made for this very identity."""
    note = stage / _STAGE_FILE
    return (stage / file).exists() and note.exists() and (
        note.read_bytes().strip() == identities.digest(identity).encode())


def note_stage(stage: Path, identity: Mapping[str, Any]) -> None:
    """Notes in a stage's directory what it is made for, before its last file comes."""
    write_whole(stage / _STAGE_FILE, identities.digest(identity) + "\n")


def finish(path: Path) -> None:
    """Removes the state that only a resumed run needs."""
    shutil.rmtree(path / STATE, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the directory's lock, which the system releases when a process dies."""
    with open(path / _LOCK, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ValueError("One run at a time may use an --out_dir; another is at "
                             f"work there. Received: {path}, in use by "
                             f"{file.read().strip() or 'another process'}") from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
            logging.warning("%s cannot be locked (%s): start no second run there",
                            path, error.strerror)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


def _check_same(path: Path, identity: Mapping[str, Any]) -> None:
    file = path / RUN_FILE
    if not file.exists():
        return
    said = identities.difference(read_json(file, _RUN_RULE), identity)
    if said:
        raise ValueError(
            f"--out_dir holds another run: {said}; choose a new directory, or give "
            f"what {file.name} in it lists again. Received: {path}")


@contextlib.contextmanager
def _beside(path: Path, identity: Mapping[str, Any]) -> Iterator[Path]:
    """A helper's directory, once the first worker has claimed its own."""
    deadline = time.monotonic() + _CLAIM_S
    file = path / RUN_FILE
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    said = "not claimed by the first"
    if file.exists():
        differs = identities.difference(read_json(file, _RUN_RULE), identity)
        said = differs and f"of another command: {differs}"
    if said:
        raise ValueError(
            "All workers must be given the same flags and recipe, and an --out_dir on "
            f"a disk that they share. Received: {path}, {said}")
    (path / STATE).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as own:
        for place in path.iterdir():
            (Path(own) / place.name).symlink_to(place.resolve())
        yield Path(own)
