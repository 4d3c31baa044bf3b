"""How MediaPipe's tokenizer reads a text, after its C++: `BertTokenizer`.

It makes ASCII's letters lower case and no others, splits at ASCII's white space, at
punctuation and Chinese characters, and normalizes nothing. A word of more than 100
bytes is unknown; BERT's own limit is 100 letters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

# White space goes; what may be matched by the second part stands by itself.
_SPACE = " \t\n\f\r"
_ALONE = re.compile(
    r"[!-/:-@\[-`{-~\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\U00020000-\U0002a6df"
    r"\U0002a700-\U0002ceaf\U0002f800-\U0002fa1f]")
_MOST_BYTES = 100


def words(text: str) -> Iterator[str]:
    """The words of a text."""
    text = re.sub("[A-Z]+", lambda found: found[0].lower(), text)
    word = ""
    for letter in text:
        if letter in _SPACE or unicodedata.category(letter).startswith("P") or (
                _ALONE.match(letter)):
            yield from [word] * bool(word)
            yield from [letter] * (letter not in _SPACE)
            word = ""
        else:
            word += letter
    yield from [word] * bool(word)


def pieces(word: str, places: dict[str, int]) -> list[int]:
    """The ids of a word: each time the longest piece that the vocabulary has."""
    found, start = [], 0
    while start < len(word):
        prefix = "##" if start else ""
        end = next((end for end in range(len(word), start, -1)
                    if prefix + word[start:end] in places), None)
        if end is None or len(word.encode()) > _MOST_BYTES:
            return [places["[UNK]"]]
        found.append(places[prefix + word[start:end]])
        start = end
    return found


def ids(text: str, vocabulary: Sequence[str]) -> list[int]:
    """The ids of a text, with [CLS] and [SEP]."""
    places = {word: place for place, word in enumerate(vocabulary)}
    return [places["[CLS]"], *(one for word in words(text)
                               for one in pieces(word, places)), places["[SEP]"]]
