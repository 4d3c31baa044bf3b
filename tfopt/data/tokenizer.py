"""A checkpoint's directory -> its tokenizer, chosen by the files that are there.

    tokenizer = from_directory("checkpoint/")
    encoded = tokenizer.encode(["a great film"], max_length=128)

Each kind of file has a module of its own; `tokenizer_json` is what all of them become.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import tokenizers

from tfopt.checkpoint_names import place_of
from tfopt.data import byte_bpe
from tfopt.data.tokenizer_json import (
    JSON_FILE,
    VOCABULARY_FILE,
    Encoded,
    JsonTokenizer,
)
from tfopt.data.tokenizer_settings import SETTINGS_FILE, Settings
from tfopt.data.wordpiece import WordPiece
from tfopt.types import PathLike

__all__ = ["FILES", "Encoded", "Tokenizer", "WordPiece", "from_directory"]

# What `Tokenizer.save` may write.
FILES = (JSON_FILE, SETTINGS_FILE, VOCABULARY_FILE)
_SHOWN = 12  # files of a directory, in an error


class Tokenizer(Protocol):
    """Text -> token ids; all that the other parts need of a tokenizer.

    Attributes:
        words: the vocabulary by id.
        pad_id: stands behind shorter texts of a batch.
        unknown_id: stands for what the vocabulary cannot spell, if anything does.
        mask_id: stands for a word that a masked language model is to find, if any does.
    """

    words: list[str]
    pad_id: int
    unknown_id: int | None
    mask_id: int | None

    @property
    def vocab_size(self) -> int:
        """Entries of the vocabulary."""

    @property
    def lowercase(self) -> bool:
        """Whether texts are made lower case."""

    def description(self) -> Mapping[str, Any]:
        """What a `tokenizer.json` of it holds."""

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None, *,
               max_length: int = 512, places: bool = False) -> Encoded:
        """Encodes texts, or pairs of texts; tells where tokens stand, if asked to."""

    def removable(self) -> Mapping[int, int]:
        """Ids that the vocabulary can do without -> the id read in their place."""

    def keeping(self, rows: Sequence[int]) -> Tokenizer:
        """The tokenizer of a part of the vocabulary."""

    def save(self, directory: PathLike) -> None:
        """Writes files that `from_directory` reads."""


def from_directory(directory: PathLike) -> Tokenizer:
    """Reads the tokenizer of a checkpoint, of whichever kind it is.

    Args:
        directory: or a name that `model.load` knows, such as "minilm". In it is
            `tokenizer.json`; or else `vocab.txt` (WordPiece); or else `vocab.json` and
            `merges.txt` (byte-level BPE). What `tokenizer_config.json` says of cases,
            accents, Chinese characters and special tokens counts beside all; beside the
            latter two `special_tokens_map.json` and `added_tokens.json` are read too.

    Returns:
        The tokenizer.

    Raises:
        ValueError: there are no such files, or one is damaged; the message names it.
    """
    directory = place_of(directory)
    for names, read in _KINDS.items():
        if _are_in(directory, names):
            return read(directory)
    found = sorted(path.name for path in directory.iterdir()) if (
        directory.is_dir()) else ["no directory"]
    raise ValueError(f"A tokenizer must be one of these files: {kinds()}. Received: "
                     f"{directory} with {', '.join(found[:_SHOWN]) or 'no file'}")


def kinds() -> str:
    """The files that `from_directory` reads, in words."""
    return "; ".join(" with ".join(names) for names in _KINDS)


def is_in(directory: PathLike) -> bool:
    """Whether a directory has files that `from_directory` reads."""
    return any(_are_in(directory, names) for names in _KINDS)


def _are_in(directory: PathLike, names: Sequence[str]) -> bool:
    return all((place_of(directory) / name).is_file() for name in names)


def _from_json(directory: Path) -> JsonTokenizer:
    path = directory / JSON_FILE
    settings = Settings(directory)
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises no kind of its own
        raise ValueError(f"A tokenizer cannot be read. Received: {path}: {error}"
                         ) from error
    settings.apply(backend)
    try:
        made = JsonTokenizer(backend, settings.tokens)
        made.encode(["a"])  # which shows whether its parts go together
        made.encode(["a"], ["b"])
    except ValueError as error:
        raise ValueError(f"{error} in {path}") from error
    return made


# Files -> what reads them; the first kind that is there counts.
_KINDS = {
    (JSON_FILE,): _from_json,
    (VOCABULARY_FILE,): WordPiece.from_directory,
    (byte_bpe.VOCABULARY_FILE, byte_bpe.MERGES_FILE): byte_bpe.from_directory,
}
