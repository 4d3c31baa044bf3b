"""The package `tokenizers` where files come from anybody: what it leaves unchecked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tokenizers

_MOST_ENTRIES = 10_000_000  # the largest published vocabularies have half a million


def by_id(backend: tokenizers.Tokenizer) -> list[str]:
    """The vocabulary; an id that no entry has gets one that no text can have.

    Raises:
        ValueError: there is no entry, or an id is so large that a list of all would
            take gigabytes.
    """
    vocabulary = backend.get_vocab(with_added_tokens=True)
    largest = max(vocabulary.values(), default=-1)
    if not 0 <= largest < _MOST_ENTRIES:
        raise ValueError(f"Ids of a vocabulary must be below {_MOST_ENTRIES}, and "
                         f"there must be one. Received: {largest}")
    words = [f"[no entry {number}]" for number in range(1 + largest)]
    for word, number in vocabulary.items():
        words[number] = word
    return words


@contextlib.contextmanager
def refusing_panics(received: str) -> Iterator[None]:
    """Turns a panic of Rust, which is no `Exception`, into a ValueError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError("The tokenizer's file must go together in itself. Received: "
                         f"{received}: {error}") from error
