"""What `measure.py` and `predict.py` share: an artifact, its tokenizer and task."""

from __future__ import annotations

from pathlib import Path

from absl import flags

from tfopt import data, tasks
from tfopt.data import tokenizer
from tfopt.serve import manifest

# The flags count as those of the script that asks for them: --help lists them.
flags.disclaim_key_flags()

def define() -> None:
    """Which artifact, and where its vocabulary is."""
    flags.DEFINE_string("artifact", None, "A .tflite, or a directory with a Keras "
                        "model.", required=True)
    flags.DEFINE_string("text_dir", None, "Directory with tokenizer, task.json and "
                        "labels.txt, if they do not lie beside the artifact.")


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


def task_of(directory: Path) -> tasks.Task:
    """The task of the artifact whose tokenizer lies in a directory.

    Raises:
        ValueError: neither a task nor labels lie there.
    """
    if (directory / manifest.MANIFEST_FILE).exists():
        return tasks.from_fields(manifest.read(directory)["task"])
    labels = directory / data.LABELS_FILE
    found = tasks.read(directory, data.read_labels(labels) if labels.exists() else None)
    if found is None:
        raise ValueError("A task, or the labels of a classification, must lie beside "
                         f"the tokenizer. Received: {labels}, which is not there")
    return found


def check_outputs(task: tasks.Task, outputs: int, directory: Path) -> None:
    """Checks that the task read from a directory is the model's.

    Raises:
        ValueError: the model gives more or fewer numbers than it has.
    """
    if task.labels and len(task.labels) != outputs:
        raise ValueError(
            f"The label list must have the model's {outputs} classes. "
            f"Received: {directory / data.LABELS_FILE} with {len(task.labels)}")
    if task.outputs != outputs:
        raise ValueError(f"A model of the task {task.name()!r} must give "
                         f"{task.outputs} outputs. Received: {outputs} outputs")
