"""What `measure.py` and `predict.py` share: an artifact, its tokenizer and labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from tfopt import data
from tfopt.data import tokenizer

# The flags count as those of the script that asks for them: --help lists them.
flags.disclaim_key_flags()

def define() -> None:
    """Which artifact, and where its vocabulary is."""
    flags.DEFINE_string("artifact", None, "A .tflite, or a directory with a Keras "
                        "model.", required=True)
    flags.DEFINE_string("text_dir", None, "Directory with tokenizer and labels.txt, if "
                        "they do not lie beside the artifact.")


def text_directory(artifact: Path, given: str | None) -> Path:
    """The directory with the artifact's tokenizer.

    Raises:
        ValueError: neither the artifact's directory nor the one above has it.
    """
    near = artifact if artifact.is_dir() else artifact.parent
    places = [Path(given)] if given else [near, near.parent]
    for place in places:
        if tokenizer.is_in(place):
            return place
    raise ValueError(f"A tokenizer ({tokenizer.kinds()}) must lie beside the artifact "
                     "or in --text_dir. "
                     f"Received: {', '.join(map(str, places))}")


def check_labels(labels: Sequence[str], classes: int, directory: Path) -> None:
    """Checks that the labels read from a directory are the model's.

    Raises:
        ValueError: they are more or fewer than its classes.
    """
    if len(labels) != classes:
        raise ValueError(
            f"The label list must have the model's {classes} classes. "
            f"Received: {directory / data.LABELS_FILE} with {len(labels)}")
