"""Texts -> more texts, to widen a small train set for a student.

After Tang et al. 2019, arXiv:1903.12136, section 3.2: words are dropped or replaced,
and parts of texts are taken. A changed text may mean something else, and so has no
label: the teacher tells what it makes of it. Without a tagger of parts of speech, a
word is replaced by any other of the texts, the more often the more frequent it is; or
by what a masked language model puts in its place (`Fill`).

Where a label hangs on one word, as an intent does, a text without it says nothing, and
one with another label's is of no intent: the words that tell labels apart stay where
they are (`label_words`).
"""

from __future__ import annotations

import collections
import dataclasses
import math
import random
import string
from collections.abc import Callable, Mapping, Sequence

from tfopt.data.unlabelled import Texts
from tfopt.types import check_fields

TELLS = 0.3  # of the labels' entropy, from which on a word tells them apart
_SMOOTHING = 3.0  # texts of any label that each word is taken to be in, too


@dataclasses.dataclass(frozen=True)
class Draft:
    """A changed text, of which some words are still to be replaced.

    Attributes:
        words: what stands between its spaces.
        gaps: numbers of the words to be replaced, in order.
    """

    words: tuple[str, ...]
    gaps: tuple[int, ...] = ()

    def filled(self, words: Sequence[str]) -> str:
        """The text with a word for each gap."""
        found = list(self.words)
        for gap, word in zip(self.gaps, words, strict=True):
            found[gap] = word
        return " ".join(found)


# Drafts, and the words that no copy gains -> of each draft a word for each gap.
Fill = Callable[[Sequence[Draft], frozenset[str]], Sequence[Sequence[str]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How texts are changed; words are what stands between spaces.

    Attributes:
        drop: chance of each word to be left out, [0, 1].
        replace: chance of each to become another word, [0, 1 - drop].
        ngram: chance of a text to be cut to a few words in a row, [0, 1].
        longest: most words of such a part, >= 1.
        seed: of all chance.
        keep: words, as `bare` has them, that no copy loses or gains; a part of a text
            goes from the first of them to the last, at least.
    """

    drop: float = 0.1
    replace: float = 0.1
    ngram: float = 0.25
    longest: int = 5
    seed: int = 0
    keep: frozenset[str] = frozenset()

    def __post_init__(self):
        """Checks the values.

        Raises:
            ValueError: one is out of its range.
        """
        check_fields(self, {
            "drop": (0 <= self.drop <= 1, "a chance in [0, 1]"),
            "replace": (0 <= self.replace <= 1 - self.drop,
                        f"a chance from 0 to 1 - drop, {1 - self.drop:g}"),
            "ngram": (0 <= self.ngram <= 1, "a chance in [0, 1]"),
            "longest": (self.longest >= 1, "at least 1"),
        })

    def __call__(self, source: Texts, copies: int, fill: Fill | None = None) -> Texts:
        """Makes changed copies.

        Args:
            source: N texts, or pairs of texts.
            copies: of each, >= 1.
            fill: what finds the words that replace others; None takes any of the
                texts' own.

        Returns:
            `copies` * N texts or pairs, one copy of all after the other; of a pair,
            each text is changed by itself. At least one word of a text is left.

        Raises:
            ValueError: there are no copies to make.
        """
        if copies < 1:
            raise ValueError("`copies` must be at least 1. Received: "
                             f"copies={copies}")
        chance = random.Random(self.seed)
        words = [word for text in [*source.texts, *(source.pairs or [])]
                 for word in text.split() if bare(word) not in self.keep]

        def change(texts: Sequence[str] | None):
            return None if texts is None else [
                text for _ in range(copies) for text in copy(texts)]

        def copy(texts: Sequence[str]) -> list[str]:
            drafts = [self._draft(text, words, chance, fill is not None)
                      for text in texts]
            found = fill(drafts, self.keep) if fill else [()] * len(drafts)
            return [draft.filled(own) for draft, own in zip(drafts, found, strict=True)]

        return Texts(texts=change(source.texts), pairs=change(source.pairs))

    def _draft(self, text: str, words: Sequence[str], chance: random.Random,
               gaps: bool) -> Draft:
        """A changed text; where there are gaps, without the words that replace."""
        old = text.split()
        new: list[tuple[str, bool]] = []  # a word, and whether it is to be replaced
        for word in old:
            draw = chance.random()
            if bare(word) in self.keep:
                new.append((word, False))
            elif self.drop <= draw < self.drop + self.replace:
                new.append((word, True) if gaps else (chance.choice(words), False))
            elif draw >= self.drop:
                new.append((word, False))
        if not old:
            return Draft((text,))
        new = new or [(chance.choice(old), False)]
        if chance.random() < self.ngram:
            start, length = self._part([word for word, _ in new], chance)
            new = new[start:start + length]
        return Draft(tuple(word for word, _ in new),
                     tuple(place for place, (_, gap) in enumerate(new) if gap))

    def _part(self, words: list[str], chance: random.Random) -> tuple[int, int]:
        """Start and length of a few words in a row, with all of those that are kept."""
        length = min(len(words), chance.randint(1, self.longest))
        first, last = 0, len(words) - length
        kept = [place for place, word in enumerate(words) if bare(word) in self.keep]
        if kept:
            length = max(length, kept[-1] + 1 - kept[0])
            first, last = max(0, kept[-1] + 1 - length), min(
                len(words) - length, kept[0])
        return chance.randint(first, last), length


def bare(word: str) -> str:
    """A word in lower case, without the signs round it."""
    return word.lower().strip(string.punctuation) or word


def label_words(texts: Sequence[str], labels: Sequence[Sequence[str]]
                ) -> frozenset[str]:
    """The words that tell labels apart, by the counts of a train set.

    How much a word says is the divergence between the labels of the texts that have it
    and those of all, KL(p(label | word) || p(label)), its counts smoothed by those of
    all; in parts of the labels' entropy, so that it is 1 for a word that settles the
    label where labels are equally frequent.

    Args:
        texts: N texts.
        labels: of each its label words.

    Returns:
        The words that say at least `TELLS` of it, as `bare` has them.
    """
    of_all = collections.Counter(label for own in labels for label in own)
    total = sum(of_all.values())
    part = {label: count / total for label, count in of_all.items()}
    entropy = -sum(p * math.log(p) for p in part.values())
    if not entropy:
        return frozenset()
    counts: dict[str, collections.Counter] = collections.defaultdict(
        collections.Counter)
    for text, own in zip(texts, labels, strict=True):
        for word in {bare(word) for word in text.split()}:
            counts[word].update(own)
    return frozenset(word for word, own in counts.items()
                     if _divergence(own, part) >= TELLS * entropy)


def _divergence(own: collections.Counter, part: Mapping[str, float]) -> float:
    """KL(p(label | word) || p(label)) of smoothed counts, in nats."""
    among = sum(own.values()) + _SMOOTHING
    ratios = {label: (count / part[label] + _SMOOTHING) / among
              for label, count in own.items()}
    # All labels that the word is not seen with have the same ratio.
    rest = 1 - sum(part[label] for label in own)
    least = _SMOOTHING / among
    return sum(part[label] * ratio * math.log(ratio)
               for label, ratio in ratios.items()) + rest * least * math.log(least)
