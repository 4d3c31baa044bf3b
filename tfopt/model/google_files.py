"""The TensorFlow checkpoint in a directory: Google's own, or what its training leaves.

`bert_model.ckpt.*` is a published one (Devlin et al. 2018, arXiv:1810.04805);
`run_classifier.py` leaves several, `model.ckpt-343.*` by the number of steps, and a
file `checkpoint` that names the last.
"""

from __future__ import annotations

import re
from pathlib import Path

from absl import logging

CONFIG_FILE = "bert_config.json"
_INDEX = re.compile(r"(.*\.ckpt(?:-(\d+))?)\.index", re.DOTALL)
_NAMES_FILE = "checkpoint"
_NAMED = re.compile(r'^model_checkpoint_path:\s*"(.*)"\s*$', re.MULTILINE)
_WITHOUT_STEPS = -1  # before all that were trained


def prefix_in(directory: Path) -> Path | None:
    """What the names of the checkpoint's files begin with.

    Args:
        directory: may hold several; the file `checkpoint` says which counts, or else it
            is the one of most steps.

    Returns:
        Such as `DIR/model.ckpt-343`; None where there is none.
    """
    steps = _steps(directory)
    if not steps:
        return None
    named = _named(directory / _NAMES_FILE)
    if named is not None and named not in steps:
        logging.warning("%s names %s, which is not there", directory / _NAMES_FILE,
                        named)
    chosen = named if named in steps else max(steps, key=lambda name: steps[name])
    if len(steps) > 1:
        logging.info("%s: of %d checkpoints %s is read", directory, len(steps), chosen)
    return directory / str(chosen)


def is_in(directory: Path) -> bool:
    """Whether there is such a checkpoint."""
    return bool(_steps(directory))


def _steps(directory: Path) -> dict[str, int]:
    """What each checkpoint's files begin with -> its number of steps."""
    return {match[1]: int(match[2] or _WITHOUT_STEPS)
            for match in (_INDEX.fullmatch(file.name)
                          for file in sorted(directory.glob("*.ckpt*.index")))
            if match}


def _named(file: Path) -> str | None:
    """The last checkpoint by TensorFlow's own list; its directory may have moved."""
    if not file.is_file():
        return None
    found = _NAMED.search(file.read_text(encoding="utf-8", errors="replace"))
    return found and found[1].rpartition("/")[2]
