"""Texts -> more texts, to widen a small train set for a student.

After Tang et al. 2019, arXiv:1903.12136, section 3.2: words are dropped or replaced,
and parts of texts are taken. A changed text may mean something else, and so has no
label: the teacher tells what it makes of it. Without a tagger of parts of speech, a
word is replaced by any other of the texts, the more often the more frequent it is.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from tfopt.data.unlabelled import Texts
from tfopt.types import check_fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How texts are changed; words are what stands between spaces.

    Attributes:
        drop: chance of each word to be left out, [0, 1].
        replace: chance of each to become another word, [0, 1 - drop].
        ngram: chance of a text to be cut to a few words in a row, [0, 1].
        longest: most words of such a part, >= 1.
        seed: of all chance.
    """

    drop: float = 0.1
    replace: float = 0.1
    ngram: float = 0.25
    longest: int = 5
    seed: int = 0

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

    def __call__(self, source: Texts, copies: int) -> Texts:
        """Makes changed copies.

        Args:
            source: N texts, or pairs of texts.
            copies: of each, >= 1.

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
                 for word in text.split()]

        def change(texts: Sequence[str] | None):
            return None if texts is None else [
                self._changed(text, words, chance) for _ in range(copies)
                for text in texts]

        return Texts(texts=change(source.texts), pairs=change(source.pairs))

    def _changed(self, text: str, words: Sequence[str], chance: random.Random) -> str:
        old = text.split()
        if not old:
            return text
        new = []
        for word in old:
            draw = chance.random()
            if self.drop <= draw < self.drop + self.replace:
                new.append(chance.choice(words))
            elif draw >= self.drop:
                new.append(word)
        new = new or [chance.choice(old)]
        if chance.random() < self.ngram:
            length = min(len(new), chance.randint(1, self.longest))
            start = chance.randint(0, len(new) - length)
            new = new[start:start + length]
        return " ".join(new)
