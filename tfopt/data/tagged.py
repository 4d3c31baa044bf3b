"""Files of texts whose words have tags -> rows: CoNLL, and JSONL of tokens or spans.

    .conll   a word and, last in its line, its tag; empty lines between texts
    .jsonl   {"tokens": ["in", "Bonn"], "tags": ["O", "B-city"]}
             {"text": "in Bonn", "spans": [{"start": 3, "end": 7, "label": "city"}]}

Words that come one by one are joined by spaces. What the tags mean is for a task.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tfopt.files import parse_json
from tfopt.types import PathLike, few, is_unicode, shown

CONLL = ".conll"
TAGGED = (CONLL, ".jsonl")
_DOCUMENT = "-DOCSTART-"
_TOKENS, _TAGS, _SPANS = "tokens", "tags", "spans"
_WORD = re.compile(r"\w+|[^\w\s]")
_SHOWN = 60  # letters of a line


class Row(NamedTuple):
    """A text with words: its line, and places and tags of the words."""

    line: int
    text: str
    words: list[tuple[int, int]]
    tags: list[str]


def is_conll(path: PathLike) -> bool:
    """Whether each word of a file has a line of its own."""
    return Path(path).suffix.lower() == CONLL


def rows(path: Path, contents: str, text: str = "text", label: str = "label"
         ) -> Iterator[Row]:
    """The texts of a file.

    Args:
        path: ends in .conll or .jsonl.
        contents: of it.
        text: key of a JSON object's words or, beside spans, its text; "text" stands for
            `tokens`, too.
        label: key of its tags; "label" stands for `tags`.

    Yields:
        The texts in their order.

    Raises:
        ValueError: a line is not as it should be; names file and line.
    """
    if is_conll(path):
        yield from _conll(path, contents)
        return
    keys = (_TOKENS if text == "text" else text, _TAGS if label == "label" else label)
    for line, source in enumerate(contents.split("\n"), start=1):
        if source.strip():
            row = parse_json(source, shown(source, _SHOWN),
                             f"{path}:{line}: a line must be a JSON object",
                             finite=False)
            yield (_of_spans(path, line, row, text) if _SPANS in row
                   and keys[0] not in row else _of_tokens(path, line, row, *keys))


def texts(path: Path, contents: str, wanted: Sequence[str], _: Sequence[str] = ()
          ) -> Iterator[tuple[int, dict[str, str]]]:
    """The texts of a CoNLL file alone, as a reader of `readers.READERS` gives them.

    Raises:
        ValueError: a line is not as it should be, or pairs are asked for.
    """
    if len(wanted) > 1:
        raise ValueError(f"{path}:1: words with tags are of one text, no pair. "
                         f"Received: columns {', '.join(wanted)}")
    for row in _conll(path, contents):
        yield row.line, {wanted[0]: row.text}


def _conll(path: Path, contents: str) -> Iterator[Row]:
    words: list[str] = []
    tags: list[str] = []
    # Not splitlines(), nor split(): a word may be U+2028 or its like.
    for line, source in enumerate([*contents.split("\n"), ""], start=1):
        fields = _fields(source.rstrip("\r"))
        if not fields or fields[0].startswith(_DOCUMENT):
            if words:
                yield _joined(line - len(words), words, tags)
            words, tags = [], []
            continue
        if len(fields) < 2 or not fields[0]:
            raise ValueError(f"{path}:{line}: a line must have a word and, as its last "
                             f"field, a tag. Received: {shown(source, _SHOWN)}")
        words.append(fields[0])
        tags.append(fields[-1])


def _fields(line: str) -> list[str]:
    if not line.strip(" \t"):
        return []
    return line.rstrip("\t ").split("\t") if "\t" in line.rstrip("\t ") else [
        field for field in line.split(" ") if field]


def _joined(line: int, words: Sequence[str], tags: Sequence[str]) -> Row:
    places, start = [], 0
    for word in words:
        places.append((start, start + len(word)))
        start += len(word) + 1
    return Row(line, " ".join(words), places, list(tags))


def _of_tokens(path: Path, line: int, row: dict[str, Any], tokens: str, tags: str
               ) -> Row:
    for key in (tokens, tags):
        value = row.get(key)
        if not isinstance(value, list) or not value or not all(
                isinstance(word, str) and is_unicode(word) for word in value):
            raise ValueError(f"{path}:{line}: the key {key!r} must hold a list of one "
                             f"word or more. Received: {shown(value, _SHOWN)} among "
                             f"{few(row)}")
    if len(row[tokens]) != len(row[tags]):
        raise ValueError(f"{path}:{line}: there must be a tag for each word. Received: "
                         f"{len(row[tokens])} words, {len(row[tags])} tags")
    return _joined(line, row[tokens], row[tags])


def _of_spans(path: Path, line: int, row: dict[str, Any], key: str) -> Row:
    """Words are runs of letters and digits, and single other characters."""
    text, given = row.get(key), row[_SPANS]
    if not isinstance(text, str) or not isinstance(given, list):
        raise ValueError(f"{path}:{line}: beside a text there must be a list of spans. "
                         f"Received: {key}={shown(text, _SHOWN)}, "
                         f"{_SPANS}={shown(given, _SHOWN)}")
    words = [match.span() for match in _WORD.finditer(text)]
    if not words:
        raise ValueError(f"{path}:{line}: a text must have a word. Received: "
                         f"{shown(text, _SHOWN)}")
    tags = ["O"] * len(words)
    for span in given:
        fields: dict[str, Any] = span if isinstance(span, dict) else {}
        start, end, label = (fields.get(name, -1) for name in ("start", "end", "label"))
        fits = (type(start) is int and type(end) is int and isinstance(label, str)
                and bool(label) and 0 <= start < end <= len(text))
        within = [place for place, (first, last) in enumerate(words)
                  if fits and first < end and start < last]
        if not within or any(tags[place] != "O" for place in within):
            raise ValueError(
                f"{path}:{line}: a span must have a start and an end in its text, round"
                " words that no other one has, and a label. Received: "
                f"{shown(span, _SHOWN)} of {len(text)} characters")
        for place in within:
            tags[place] = f"{'B' if place == within[0] else 'I'}-{label}"
    return Row(line, text, words, tags)
