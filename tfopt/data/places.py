"""Where the tokens of a text stand in it, and which words they are of.

The package `tokenizers` knows both; a task whose answers name places in a text, or
whose labels are of its words, asks for them (`JsonTokenizer.encode`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

NO_WORD = -1


@dataclasses.dataclass(frozen=True, slots=True)
class Places:
    """The places of the T tokens of one text.

    Attributes:
        text: the text, as it was given.
        spans: of each token (first character, one behind the last), without white space
            around it; (0, 0) of a special token.
        words: of each token the number of its word, as the tokenizer splits texts
            before it looks for pieces; `NO_WORD` of a special token, and of one of
            white space alone.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    words: tuple[int, ...]

    @classmethod
    def of(cls, text: str, encoding: Any) -> Places:
        """Takes them from an encoding of the package `tokenizers`.

        Args:
            text: that was encoded, alone.
            encoding: of it.
        """
        spans, words = [], []
        word, before, end = NO_WORD, None, 0
        for (first, last), own, special in zip(
                encoding.offsets, encoding.word_ids, encoding.special_tokens_mask,
                strict=True):
            piece = text[first:last]
            first += len(piece) - len(piece.lstrip())
            last = first + len(piece.strip())
            if special or first >= last:
                spans.append((0, 0))
                words.append(NO_WORD)
                continue
            # Without a splitting of its own, a tokenizer has one word, with spaces.
            if own != before or text[end:first].strip() != text[end:first]:
                word += 1
            before, end = own, last
            spans.append((first, last))
            words.append(word)
        return cls(text, tuple(spans), tuple(words))

    def first_tokens(self) -> list[int]:
        """The first token of each word."""
        return [place for place, word in enumerate(self.words)
                if word != NO_WORD and word not in self.words[place - 1:place]]

    def word_spans(self) -> list[tuple[int, int]]:
        """(first character, one behind the last) of each word."""
        found: dict[int, tuple[int, int]] = {}
        for word, (first, last) in zip(self.words, self.spans, strict=True):
            if word != NO_WORD:
                found[word] = found.get(word, (first, last))[0], last
        return list(found.values())

    def tokens_of(self, words: Sequence[tuple[int, int]]) -> list[int]:
        """The first token of each of some words of somebody else's.

        Args:
            words: (first character, one behind the last) of each, ascending.

        Returns:
            Of each the first token that begins in it; -1 where none does, since the
            text was cut before, or the tokenizer drops all of it.
        """
        starts = [(first, place) for place, (first, last) in enumerate(self.spans)
                  if first < last]
        found, at = [], 0
        for first, last in words:
            while at < len(starts) and starts[at][0] < first:
                at += 1
            inside = at < len(starts) and starts[at][0] < last
            found.append(starts[at][1] if inside else -1)
        return found

    @property
    def end(self) -> int:
        """One behind the last character that a token stands for."""
        return max((last for _, last in self.spans), default=0)
