"""What `measure` and `predict` share: an artifact, its tokenizer, labels and task.

Imports no TensorFlow.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from absl import flags

from tfopt import data, tasks
from tfopt.checkpoint_names import place_of
from tfopt.data import tokenizer
from tfopt.data.tokenizer import Tokenizer
from tfopt.pipeline import text_side as text_sides
from tfopt.pipeline.text_side import TextSide
from tfopt.serve import manifest

# The flags count as those of the script that asks for them: --help lists them.
flags.disclaim_key_flags()


def define(required: bool = True) -> None:
    """Which artifact, and where its tokenizer is."""
    flags.DEFINE_string("artifact", None, "A .tflite, or a directory with a Keras "
                        "model.", required=required)
    flags.DEFINE_string("text_dir", None, "Directory with tokenizer, task.json and "
                        "labels.txt, if they do not lie beside the artifact.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WholeTextSide(TextSide):
    """A `TextSide` whose tokenizer and task are there; the length may be unknown."""

    tokenizer: Tokenizer
    task: tasks.Task


def text_side(artifact: Path, given: str | None) -> WholeTextSide:
    """What an artifact brings, or what lies near it: tokenizer, task, length.

    Args:
        artifact: a `.tflite`, or a directory with a Keras model.
        given: the directory to look into; None for the artifact's and the one above.

    Returns:
        All of it; the length may be unknown.

    Raises:
        ValueError: neither directory has a tokenizer, or there are no labels.
    """
    near = artifact if artifact.is_dir() else artifact.parent
    places = [place_of(given)] if given else [near, near.parent]
    place = next((place for place in places if tokenizer.is_in(place)), None)
    if place is None:
        raise ValueError(f"A tokenizer ({tokenizer.kinds()}) must lie beside the "
                         "artifact or in --text_dir. "
                         f"Received: {', '.join(map(str, places))}")
    labels = place / data.LABELS_FILE
    side = text_sides.read(
        place, data.read_labels(labels) if labels.exists() else None)
    if (place / manifest.MANIFEST_FILE).is_file():
        fields = manifest.read(place)
        side = dataclasses.replace(side, task=tasks.from_fields(fields["task"]),
                                   max_length=fields["max_length"])
    if side.tokenizer is None or side.task is None:
        raise ValueError("A task, or the labels of a classification, must lie beside "
                         f"the tokenizer. Received: {labels}, which is not there")
    return WholeTextSide(tokenizer=side.tokenizer, task=side.task,
                         max_length=side.max_length)


def check_outputs(task: tasks.Task, outputs: int, artifact: Path) -> None:
    """Checks that the task read for an artifact is its model's.

    Raises:
        ValueError: the model gives more or fewer numbers than it has.
    """
    if task.labels and len(task.labels) != outputs:
        raise ValueError(
            f"The label list must have the model's {outputs} classes. "
            f"Received: {data.LABELS_FILE} of {artifact} with {len(task.labels)}")
    if task.giving(outputs).outputs != outputs:
        raise ValueError(f"A model of the task {task.name()!r} must give "
                         f"{task.outputs} outputs. Received: {outputs} outputs")
