"""Tags of a text's words, on the tokens that stand for them; and how right answers are.

A word's tag is that of its first token. A word without a token, cut off or of nothing
that a tokenizer reads, is taken to be answered by O: what follows does not move up.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfopt.tasks import entities

NONE = -1


@dataclasses.dataclass(frozen=True, slots=True)
class TaggedWords:
    """The tags of a text's words; as an array, class numbers of its tokens <int32>[T].

    Attributes:
        tags: of each of W words.
        tokens: of each word its first token; -1 where it has none.
        classes: <int32>[T], -1 where a token has no target.
        cut: how many of the words without a token were cut off.
    """

    tags: tuple[str, ...]
    tokens: tuple[int, ...]
    classes: np.ndarray
    cut: int = 0

    @classmethod
    def of(cls, tags: Sequence[str], numbers: Sequence[int],
           words: Sequence[tuple[int, int]], places: Any) -> TaggedWords:
        """Finds the tokens of words.

        Args:
            tags: of W words.
            numbers: their class numbers; -1 of a tag without.
            words: (first character, one behind the last) of each.
            places: `data.places.Places` of the text.
        """
        tokens = places.tokens_of(words)
        classes = np.full(len(places.spans), NONE, np.int32)
        for token, number in zip(tokens, numbers, strict=True):
            if token >= 0:
                classes[token] = number
        cut = sum(token < 0 and start >= places.end
                  for token, (start, _) in zip(tokens, words, strict=True))
        return cls(tuple(tags), tuple(tokens), classes, cut)

    def __len__(self) -> int:
        """T."""
        return len(self.classes)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        """The class numbers."""
        return np.array(self.classes, dtype)


def remarks(name: str, targets: Sequence[TaggedWords], truncated: int) -> list[str]:
    """Sentences on words that have no token.

    Args:
        name: of the split.
        targets: of its texts.
        truncated: how many texts were cut.
    """
    words = sum(len(target.tags) for target in targets)
    cut = sum(target.cut for target in targets) if truncated else 0
    without = sum(target.tokens.count(NONE) for target in targets) - cut
    said = []
    for count, why in ((cut, "are cut off with their tags"),
                       (without, "have no token, such as a control character alone")):
        if count:
            said.append(f"{count:,} of {name}'s {words:,} words {why}: they are not "
                        "learned from, and count as answered by O.")
    return said


@dataclasses.dataclass(frozen=True)
class Counts:
    """How many answers are right.

    Attributes:
        entities: type -> how many are <int>[3]: right; answered; wanted.
        right: words whose tag is right.
        words: all.
    """

    entities: dict[str, np.ndarray]
    right: int
    words: int

    @classmethod
    def of(cls, texts: Iterable[tuple[Sequence[str], Sequence[str]]]) -> Counts:
        """Counts.

        Args:
            texts: the tags answered, and those wanted, of the words of each.
        """
        found: dict[str, np.ndarray] = collections.defaultdict(
            lambda: np.zeros(3, np.int64))
        right = words = 0
        for given, wanted in texts:
            right += sum(map(str.__eq__, given, wanted))
            words += len(wanted)
            answered, known = set(entities.spans(given)), set(entities.spans(wanted))
            for place, some in enumerate((answered & known, answered, known)):
                for type_, _, _ in some:
                    found[type_][place] += 1
        return cls(dict(found), right, words)


def check(corpus: Any) -> None:
    """Checks that words have tags, of the form that these must have.

    Raises:
        ValueError: they have not; names file and line.
    """
    if corpus.word_spans is None:
        raise ValueError(f"{corpus.path}: a token classification needs words with tags:"
                         " a .conll, or a .jsonl of tokens and tags. Received: texts "
                         "with a label each")
    for example, tags in enumerate(corpus.labels):
        for word, tag in enumerate(tags):
            try:
                entities.parse(tag)
            except ValueError as error:
                raise ValueError(f"{corpus.path}:{corpus.line_of(example, word)}: "
                                 f"{error}") from error
