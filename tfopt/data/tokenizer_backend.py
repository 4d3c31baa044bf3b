"""The package `tokenizers` where files come from anybody: what it leaves unchecked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tokenizers

from tfopt.types import is_unicode, shown

_MOST_ENTRIES = 10_000_000  # the largest published vocabularies have half a million
_PART = 4096  # texts encoded at once: what is made of one takes kilobytes
_SHOWN = 40  # letters of a text, in an error


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


def encodings(backend: tokenizers.Tokenizer, batch: list
              ) -> Iterator[tokenizers.Encoding]:
    """What the backend makes of texts, or pairs of texts, one after the other.

    Args:
        backend: whose truncation is set.
        batch: texts, or tuples of two.

    Raises:
        ValueError: one is no valid Unicode.
    """
    for start in range(0, len(batch), _PART):
        part = batch[start:start + _PART]
        try:
            yield from backend.encode_batch(part)
        except TypeError as error:  # a lone surrogate; the text is not named there
            for one in part:
                for text in one if isinstance(one, tuple) else (one,):
                    _check_unicode(text)
            raise ValueError(f"The texts cannot be encoded: {error}. Received: "
                             f"{len(batch)} texts") from error


def _check_unicode(text: str) -> None:
    if not is_unicode(text):
        raise ValueError("A text must be valid Unicode; half of a surrogate pair is "
                         f"none. Received: {shown(text, _SHOWN)}")
