"""A tokenizer's description -> that of a part of its vocabulary; of WordPiece alone.

A description is what a `tokenizer.json` holds. All tokens that stand in it by an id are
numbered anew: the vocabulary's, the added ones, those put round a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

ADDED = "added_tokens"


def removable(description: Mapping, needed: Sequence[str]) -> list[int]:
    """The pieces that the vocabulary can do without.

    Args:
        description: of a WordPiece tokenizer.
        needed: tokens that must stay.

    Returns:
        Ids of pieces of several characters that pieces of one character spell.
    """
    ids = description["model"]["vocab"]
    prefix = description["model"]["continuing_subword_prefix"]
    kept = {*needed, *(token["content"] for token in description[ADDED])}
    return [number for word, number in ids.items()
            if word not in kept and len(word.removeprefix(prefix)) > 1
            and all(letter in ids for letter in _letters(word, prefix))]


def cut(description: Mapping, words: Sequence[str]) -> dict[str, Any]:
    """The description of a vocabulary of these words alone, numbered in their order.

    Added tokens become entries of the vocabulary: for one that is none, no id can be
    asked for.

    Args:
        description: of a WordPiece tokenizer.
        words: entries that stay, those of `placed` among them.
    """
    ids = {word: number for number, word in enumerate(words)}
    return {
        **description,
        "model": {**description["model"], "vocab": ids},
        ADDED: [{**token, "id": ids[token["content"]]}
                for token in description[ADDED] if token["content"] in ids],
        "post_processor": _renumbered(description["post_processor"] or {}, ids) or None,
    }


def placed(processor: Mapping | None) -> list[str]:
    """The tokens that a post-processor puts round texts."""
    processor = processor or {}
    found = [processor[place][0] for place in ("cls", "sep") if place in processor]
    for special in processor.get("special_tokens", {}).values():
        found += special["tokens"]
    for part in processor.get("processors", []):
        found += placed(part)
    return found


def _letters(word: str, prefix: str) -> list[str]:
    """The pieces of one character that spell a piece."""
    letters = word.removeprefix(prefix)
    first = letters[0] if letters == word else prefix + letters[0]
    return [first, *(prefix + letter for letter in letters[1:])]


def _renumbered(processor: Mapping, ids: Mapping[str, int]) -> dict[str, Any]:
    """A post-processor that puts the tokens by their new ids."""
    new = dict(processor)
    for place in ("cls", "sep"):
        if place in new:
            new[place] = [new[place][0], ids[new[place][0]]]
    if "special_tokens" in new:
        new["special_tokens"] = {
            name: {**special, "ids": [ids[token] for token in special["tokens"]]}
            for name, special in new["special_tokens"].items()}
    if "processors" in new:
        new["processors"] = [_renumbered(part, ids) for part in new["processors"]]
    return new
