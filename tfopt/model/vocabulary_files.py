"""Whether the tokenizer beside a checkpoint fits its table of embeddings.

Only numbers are read here; what a tokenizer makes of a text is for `tfopt.data`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tfopt.files import read_json
from tfopt.types import shown


def check(directory: Path, vocab_size: int) -> None:
    """Checks that no file gives an id for which there is no embedding.

    A file that is damaged is passed over: whoever reads the tokenizer says so.

    Args:
        directory: of the checkpoint.
        vocab_size: rows of the table.

    Raises:
        ValueError: one does; names the file and the token.
    """
    lines = directory / "vocab.txt"
    if lines.is_file():
        with lines.open("rb") as opened:
            count = sum(1 for _ in opened)
        if count > vocab_size:
            raise ValueError(
                "A vocabulary must not have more entries than the checkpoint has "
                f"embeddings. Received: {lines} with {count} lines, "
                f"vocab_size={vocab_size}")
    for name, ids_of in _KINDS.items():
        file = directory / name
        if not file.is_file():
            continue
        try:
            ids = [(number, token) for token, number in ids_of(read_json(file)).items()
                   if type(number) is int]
            largest, token = max(ids)
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
        if largest >= vocab_size:
            raise ValueError(
                "A tokenizer must not have ids beyond the checkpoint's embeddings. "
                f"Received: {file} with {shown(token)} of id {largest}, "
                f"vocab_size={vocab_size}")


def _of_description(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Of a `tokenizer.json`."""
    words = fields["model"]["vocab"]
    if isinstance(words, list):  # of pairs, a piece and its score, in the order of ids
        words = {word: number for number, (word, _) in enumerate(words)}
    added = fields.get("added_tokens") or []
    return {**words, **{token["content"]: token["id"] for token in added}}


_KINDS: dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = {
    "tokenizer.json": _of_description, "vocab.json": dict, "added_tokens.json": dict}
