"""What stands beside a Keras model on disk: tokenizer, labels, task, text length."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from tfopt import data, tasks
from tfopt.data import tokenizer as tokenizers
from tfopt.data.tokenizer import Tokenizer
from tfopt.files import write_whole
from tfopt.types import PathLike

FILE = "task.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextSide:
    """What a directory brings for its model; None for what it does not.

    Attributes:
        tokenizer: of the ids that the model reads.
        task: what it was trained for.
        max_length: tokens to which texts were cut.
    """

    tokenizer: Tokenizer | None = None
    task: tasks.Task | None = None
    max_length: int | None = None


def write(directory: PathLike, tokenizer: Tokenizer, task: tasks.Task, max_length: int
          ) -> None:
    """Writes all of it.

    Raises:
        OSError: the disk is full or not writable.
    """
    directory = Path(directory)
    tokenizer.save(directory)
    if task.labels:
        write_whole(directory / data.LABELS_FILE, data.labels_text(task.labels))
    write_whole(directory / FILE, json.dumps(
        {"task": task.to_fields(), "max_length": max_length}, ensure_ascii=False,
        indent=1) + "\n")


def read(directory: PathLike) -> TextSide:
    """Reads what there is; of the first edition, the tokenizer alone.

    Raises:
        ValueError: a file is damaged; names it.
    """
    directory = Path(directory)
    tokenizer = (data.tokenizer_from(directory) if tokenizers.is_in(directory)
                 else None)
    file = directory / FILE
    if not file.is_file():
        return TextSide(tokenizer=tokenizer)
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        return TextSide(tokenizer=tokenizer, task=tasks.from_fields(fields["task"]),
                        max_length=int(fields["max_length"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("A model's task must be told by a JSON object with `task` and "
                         f"`max_length`. Received: {file}: {error}") from error
