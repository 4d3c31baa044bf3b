"""What each code point is to BERT's normalizer and pre-tokenizer, as flat arrays.

The package `tokenizers` itself is asked, code point by code point: its Unicode is of
another version than Python's, and no rule is told twice. What a text becomes is what
its code points become, one behind the other, but for the order of marks: where accents
are stripped, the text is decomposed before (NFD), which sorts the marks of a run by
their class; then the nonspacing ones are dropped. Source: Unicode Standard Annex 15.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from tokenizers import normalizers, pre_tokenizers

from tfopt.data import portable_wordpiece as portable

_MOST_MAPPED, _MOST_ORDERS = 14, 15  # what their bits have room for
_STANDS_ALONE = 2
_PARTING = "|"  # which no normalizer changes, and no other becomes
_SURROGATES = range(0xD800, 0xE000)
_LEAST, _LARGEST = "\u0334", "\u0345"  # marks of the first class, and of the last


class UnicodeFacts:
    """The arrays.

    Args:
        clean_text: whether control characters are dropped, and white space is a space.
        handle_chinese_chars: whether each Chinese character is a word.
        strip_accents: whether accents are dropped.
        lowercase: whether letters are made lower case.

    Attributes:
        kinds: of each code point: 0 is part of a word, 1 white space, 2 stands alone.
        blocks: of each 128 code points, which block of `facts` has them; one more is of
            the code point that stands for a dropped mark.
        facts: the blocks that differ. Of each code point its kind, plus 16 times the
            place of its class of marks (0: none), plus 256 times one more than how many
            code points it becomes (0: it stays), plus 4096 times where in `mapped`
            these begin.
        mapped: what code points become.
    """

    def __init__(self, *, clean_text: bool, handle_chinese_chars: bool,
                 strip_accents: bool, lowercase: bool):
        self._normalizer = normalizers.BertNormalizer(
            clean_text=clean_text, handle_chinese_chars=handle_chinese_chars,
            strip_accents=strip_accents, lowercase=lowercase)
        self._cleaner = normalizers.BertNormalizer(
            clean_text=clean_text, handle_chinese_chars=False, strip_accents=False,
            lowercase=False)
        self._cutter = pre_tokenizers.BertPreTokenizer()
        self._marks = _Marks(self._normalizer) if strip_accents else None
        self._places: dict[tuple[int, ...], int] = {}
        self.kinds = bytearray()
        self.blocks: list[int] = []
        self.mapped: list[int] = []
        empty = (0,) * portable.BLOCK
        known: dict[tuple[int, ...], int] = {}
        for points in _blocks():
            facts = empty if self._is_plain(points) else tuple(self._facts(points))
            self.kinds += bytes(fact & 15 for fact in facts)
            self.blocks.append(known.setdefault(facts, len(known)))
        self.blocks.append(known.setdefault(empty, len(known)))
        self.facts = [fact for facts in known for fact in facts]
        self.mapped += [0] * _MOST_MAPPED

    def _is_plain(self, points: range) -> bool:
        """Whether all are parts of words that stay as they are: most of Unicode."""
        if points[0] in _SURROGATES:
            return True  # which no text has
        text = "".join(map(chr, points))
        return (self._normalizer.normalize_str(text) == text
                and len(self._cutter.pre_tokenize_str(text)) == 1
                and not (self._marks and self._marks.orders.keys() & points))

    def _facts(self, points: range) -> Iterator[int]:
        cleaned = _each(self._cleaner, points)
        for point, clean, text, kind in zip(
                points, cleaned, _each(self._normalizer, points),
                self._cut_kinds(points), strict=True):
            bare, order = _without_spaces(text), 0
            becomes = tuple(map(ord, bare))
            if self._marks and clean and becomes != (point,):
                becomes = self._marks.with_barriers(clean)
            elif self._marks:
                order = self._marks.orders.get(point, 0)
            yield ((kind if bare == text else _STANDS_ALONE) | order << 4
                   | self._place(point, becomes))

    def _cut_kinds(self, points: range) -> Iterator[int]:
        """What the pre-tokenizer takes each for, between two letters."""
        text = " ".join(f"a{chr(point)}a" for point in points)
        pieces = {start: piece
                  for piece, (start, _) in self._cutter.pre_tokenize_str(text)}
        for number, point in enumerate(points):
            whole = pieces[4 * number] == f"a{chr(point)}a"
            alone = 4 * number + 1 in pieces
            yield 0 if whole else _STANDS_ALONE if alone else portable.SPACE

    def _place(self, point: int, becomes: tuple[int, ...]) -> int:
        if becomes == (point,):
            return 0
        if len(becomes) > _MOST_MAPPED:
            raise ValueError(f"A code point must become at most {_MOST_MAPPED} others. "
                             f"Received: {point}, which becomes {len(becomes)}")
        if becomes not in self._places:
            self._places[becomes] = len(self.mapped)
            self.mapped += becomes
        return (len(becomes) + 1) << 8 | self._places[becomes] << 12


class _Marks:
    """Marks that have a class, so that NFD may have them change places.

    Args:
        normalizer: BERT's, which strips accents.

    Attributes:
        orders: of those that it does not drop, the place of their class, from 1.
    """

    def __init__(self, normalizer: normalizers.Normalizer):
        self._normalizer, self._decompose = normalizer, normalizers.NFD().normalize_str
        self._all = {mark for points in _blocks() for mark in self._found(points)}
        kept = sorted((mark for mark in self._all
                       if normalizer.normalize_str(mark) == mark),
                      key=functools.cmp_to_key(self._compare))
        self.orders: dict[int, int] = {}
        order = 0
        for place, mark in enumerate(kept):
            order += place == 0 or self._compare(kept[place - 1], mark) < 0
            self.orders[ord(mark)] = order
        if order > _MOST_ORDERS:
            raise ValueError(f"There must be at most {_MOST_ORDERS} classes of marks "
                             f"that are not dropped. Received: {order}")

    def with_barriers(self, text: str) -> tuple[int, ...]:
        """What a code point becomes, with what dropped marks leave to the order.

        Args:
            text: the code point, or the space that it is cleaned to.
        """
        found: list[int] = []
        for part in self._decompose(text):
            bare = _without_spaces(self._normalizer.normalize_str(part))
            found += map(ord, bare)
            if not bare and part not in self._all:
                found.append(portable.BARRIER)
        return tuple(found)

    def _found(self, points: range) -> list[str]:
        """The marks among some code points."""
        if points[0] in _SURROGATES:
            return []
        marks = list(map(chr, points))
        if all(self._decompose(text) == text for text in (
                _LARGEST.join(["", *marks]), _LEAST.join([*marks, ""]))):
            return []
        return [mark for mark in marks
                if self._above(mark, _LEAST) or self._above(_LARGEST, mark)]

    def _compare(self, one: str, other: str) -> int:
        return self._above(one, other) - self._above(other, one)

    def _above(self, one: str, other: str) -> bool:
        """Whether two marks, in this order, change places."""
        return self._decompose(one + other) == other + one


def _blocks() -> Iterator[range]:
    for first in range(0, portable.BARRIER, portable.BLOCK):
        yield range(first, first + portable.BLOCK)


def _each(normalizer: normalizers.Normalizer, points: range) -> list[str]:
    """What each of some code points becomes."""
    texts = [chr(point) for point in points]
    if _PARTING not in texts:
        return normalizer.normalize_str(_PARTING.join(texts)).split(_PARTING)
    return [normalizer.normalize_str(text) for text in texts]


def _without_spaces(text: str) -> str:
    """Without the spaces that are put round a Chinese character."""
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] == " " else text


@functools.lru_cache(maxsize=4)
def of(clean_text: bool, handle_chinese_chars: bool, strip_accents: bool,
       lowercase: bool) -> UnicodeFacts:
    """The facts of some settings; they take seconds, so that the last are kept."""
    return UnicodeFacts(
        clean_text=clean_text, handle_chinese_chars=handle_chinese_chars,
        strip_accents=strip_accents, lowercase=lowercase)
