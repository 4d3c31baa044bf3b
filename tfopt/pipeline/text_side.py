"""What stands beside a Keras model on disk: tokenizer, labels, task, text length."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tfopt import data, tasks
from tfopt.data import tokenizer as tokenizers
from tfopt.data.tokenizer import Tokenizer
from tfopt.files import read_json, to_json, write_whole
from tfopt.types import PathLike

FILE = "text.json"


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


def same_ids(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether two tokenizers have the same words by the same ids.

    Of an entry that a vocabulary has twice, the last one's id counts.
    """
    def known(tokenizer: Tokenizer) -> dict[str, int]:
        return {word: number for number, word in enumerate(tokenizer.words)
                if word != f"[no entry {number}]"}  # as a saved one calls the first

    return one.vocab_size == other.vocab_size and known(one) == known(other)


def write(directory: PathLike, tokenizer: Tokenizer, task: tasks.Task, max_length: int
          ) -> None:
    """Writes all of it.

    Raises:
        OSError: the disk is full or not writable.
    """
    directory = Path(directory)
    tokenizer.save(directory)
    tasks.save(task, directory)
    if task.labels:
        write_whole(directory / data.LABELS_FILE, data.labels_text(task.labels))
    write_whole(directory / FILE, to_json({"max_length": max_length}) + "\n")


def read(directory: PathLike, labels: Sequence[str] | None = None) -> TextSide:
    """Reads what there is.

    Args:
        directory: of a model.
        labels: of its classes, where no file says more; or None.

    Raises:
        ValueError: a file is damaged; names it.
    """
    directory = Path(directory)
    file = directory / FILE
    max_length = None
    if file.is_file():
        max_length = read_json(file).get("max_length")
        if type(max_length) is not int or not 0 < max_length < 1 << 31:
            raise ValueError("`max_length` must be a whole number from 1. Received: "
                             f"{file}: max_length={str(max_length)[:80]}")
    return TextSide(
        tokenizer=data.tokenizer_from(directory) if tokenizers.is_in(directory)
        else None,
        task=tasks.read(directory, labels), max_length=max_length)
