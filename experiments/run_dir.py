"""The results directory of a run: claimed by one command, resumed by the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from absl import flags

from tfopt.files import write_whole

RUN_FILE = "run.json"
STATE = "state"
# Flags that do not change what is computed.
_FREE = {"out_dir", "num_threads"}


def claim(out_dir: str, script: str) -> Path:
    """Takes a directory for this command.

    Args:
        out_dir: new, empty, or holding a run of the same command.
        script: name of the script.

    Returns:
        The directory.

    Raises:
        ValueError: it holds another run, or other files; nothing is changed then.
    """
    path = Path(out_dir)
    own = flags.FLAGS.flags_by_module_dict()
    chosen = {"script": script} | {
        flag.name: flag.value
        for module, items in own.items() if not module.startswith("absl")
        for flag in items if flag.name not in _FREE}
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
    write_whole(file, text)
    return path


def finish(path: Path) -> None:
    """Removes the state that only a resumed run needs."""
    shutil.rmtree(path / STATE, ignore_errors=True)
