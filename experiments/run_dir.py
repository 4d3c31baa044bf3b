"""The results directory of a run: claimed by one command, resumed by the same."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from tfopt.files import write_whole

RUN_FILE = "run.json"
STATE = "state"
# Flags that do not change what is computed.
_FREE = {"out_dir", "num_threads"}


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
        The directory.

    Raises:
        ValueError: it holds another run, or other files; nothing is changed then.
    """
    path = Path(out_dir)
    defined = flags.FLAGS.flags_by_module_dict()
    chosen = {"script": script, **more} | {
        flag.name: flag.value for module in (sys.argv[0], script)
        for flag in defined.get(module, ()) if flag.name not in _FREE}
    text = json.dumps(chosen, indent=1, sort_keys=True, default=str) + "\n"
    file = path / RUN_FILE
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


def finish(path: Path) -> None:
    """Removes the state that only a resumed run needs."""
    shutil.rmtree(path / STATE, ignore_errors=True)
