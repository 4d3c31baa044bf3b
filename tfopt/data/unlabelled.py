"""Files -> texts without labels, from which a student learns by its teacher alone.

One text a line, a column of a .tsv, .csv or .jsonl, or the words of a .conll. Every
mistake is reported with its file and line.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfopt.data import tagged
from tfopt.data.corpus import Columns, Corpus
from tfopt.data.readers import READERS, decode
from tfopt.data.tokenizer import Tokenizer
from tfopt.data.tokenizer_json import Encoded
from tfopt.files import parse_json
from tfopt.types import PathLike, check_fields, shown

# By a file's ending, as `readers.READERS`.
TEXT_READERS: dict[str, Any] = {**READERS, tagged.CONLL: tagged.texts}
# Keys of what a service keeps (`tfopt serve --keep_uncertain`).
_KEPT = ("text", "pair")
_PART = 8192  # texts encoded at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class Texts:
    """Texts, or pairs of texts.

    Attributes:
        texts: N texts.
        pairs: N second texts, or None.
    """

    texts: list[str]
    pairs: list[str] | None = None

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: one text stands where a list of texts must.
        """
        check_fields(self, {})

    def __len__(self) -> int:
        """N."""
        return len(self.texts)

    def part(self, start: int, end: int) -> Texts:
        """Those from `start` to before `end`."""
        return Texts(texts=self.texts[start:end],
                     pairs=None if self.pairs is None else self.pairs[start:end])

    def take(self, rows: Sequence[int]) -> Texts:
        """Those at these places, in this order."""
        return Texts(texts=[self.texts[row] for row in rows],
                     pairs=None if self.pairs is None else [
                         self.pairs[row] for row in rows])

    def with_more(self, others: Sequence[Texts]) -> Texts:
        """These, and others behind them; all of them texts, or all of them pairs."""
        every = [self, *others]
        return Texts(texts=[text for one in every for text in one.texts],
                     pairs=None if self.pairs is None else [
                         text for one in every for text in one.pairs or []])


def read_texts(path: PathLike, columns: Columns = Columns()) -> Texts:  # noqa: B008
    """Reads a file of texts.

    Args:
        path: ends in .txt (one text a line), .tsv, .csv, .jsonl or .conll (whose tags
            are passed over).
        columns: where the texts are; its label is not asked for. A .jsonl without them
            may have the keys `text` and `pair`, as `tfopt serve --keep_uncertain`
            writes them whatever the train file calls its columns.

    Returns:
        The texts; blank lines are passed over.

    Raises:
        ValueError: the file is missing, empty, of another kind, not UTF-8, or a row
            lacks a text; the message names file and line.
    """
    path = Path(path)
    readers: dict[str, Any] = {".txt": _lines, **TEXT_READERS}
    if path.suffix.lower() not in readers:
        raise ValueError("A file of unlabelled texts must end in "
                         f"{', '.join(readers)}. Received: {path}")
    contents, rows = decode(path), []
    if path.suffix.lower() == ".jsonl":
        columns = _in_first_row(contents, columns)
    wanted = [name for name in (columns.text, columns.pair) if name]
    for line, row in readers[path.suffix.lower()](path, contents, wanted):
        for name in wanted:
            if not row[name].strip():
                raise ValueError(f"{path}:{line}: a text must not be empty. Received: "
                                 f"{name}={shown(row[name])}")
        rows.append(row)
    if not rows:
        raise ValueError("A file of unlabelled texts must hold at least one. Received: "
                         f"{path}")
    return Texts(texts=[row[columns.text] for row in rows],
                 pairs=[row[columns.pair] for row in rows] if columns.pair else None)


def read_each(path: PathLike, columns: Columns = Columns()) -> Corpus:  # noqa: B008
    """Reads a file of texts that stand each for itself.

    Args:
        path: as of `read_texts`.
        columns: where the texts are; that of second texts may be missing from a file.
            Its label is not asked for.

    Returns:
        The texts as a corpus without pairs, its labels empty: those of both columns,
        row by row.

    Raises:
        ValueError: as `read_texts`.
    """
    path = Path(path)
    alone = dataclasses.replace(columns, pair=None)
    found = read_texts(path, columns if _has_pairs(path, columns) else alone)
    rows = zip(*(part for part in (found.texts, found.pairs) if part), strict=True)
    texts = [text for row in rows for text in row]
    return Corpus(path=str(path), texts=texts, pairs=None, labels=[""] * len(texts),
                  lines=[0] * len(texts))


def _has_pairs(path: Path, columns: Columns) -> bool:
    """Whether the first row of a file has second texts."""
    if columns.pair is None or path.suffix.lower() not in READERS:
        return False
    first = next((line for line in decode(path).split("\n") if line.strip()), "")
    if path.suffix.lower() == ".jsonl":
        try:
            row = parse_json(first, "", finite=False)
        except ValueError:  # which the reader says with its line
            return False
        return columns.pair in row or _KEPT[1] in row
    names = next(csv.reader([first], delimiter="," if path.suffix.lower() == ".csv"
                            else "\t"))
    return columns.pair in names


def _in_first_row(contents: str, columns: Columns) -> Columns:
    """The columns, or a service's own keys in the place of those that are not there."""
    first = next((line for line in contents.split("\n") if line.strip()), "")
    try:
        row = parse_json(first, "", finite=False)
    except ValueError:  # which the reader says with its line
        return columns

    def there(name: str, own: str) -> str:
        return own if name not in row and own in row else name

    return dataclasses.replace(columns, text=there(columns.text, _KEPT[0]),
                               pair=columns.pair and there(columns.pair, _KEPT[1]))


def encode(texts: Texts, tokenizer: Tokenizer, max_length: int) -> Encoded:
    """Encodes many texts: an example's ids are an array, a tenth of a list's memory.

    Args:
        texts: N texts, or pairs.
        tokenizer: of the model that reads them.
        max_length: tokens to which they are cut.
    """
    parts = []
    for start in range(0, len(texts), _PART):
        part = texts.part(start, start + _PART)
        found = tokenizer.encode(part.texts, part.pairs, max_length=max_length)
        arrays: list[Any] = [np.asarray(ids, np.int32) for ids in found.ids]
        parts.append(dataclasses.replace(found, ids=arrays))
    return join(parts)


def join(parts: Sequence[Encoded]) -> Encoded:
    """The examples of several parts, by one tokenizer, one after the other."""
    return Encoded(ids=[ids for part in parts for ids in part.ids],
                   first_lengths=[n for part in parts for n in part.first_lengths],
                   truncated=sum(part.truncated for part in parts),
                   pad_id=parts[0].pad_id)


def _lines(path: Path, text: str, wanted: Sequence[str],
           ) -> Iterator[tuple[int, dict[str, str]]]:
    if len(wanted) > 1:
        raise ValueError(f"{path}:1: a line holds one text, no pair; pairs come in "
                         f".tsv, .csv or .jsonl. Received: columns {', '.join(wanted)}")
    # Not splitlines(): a text may hold U+2028 and its like.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, {wanted[0]: line.strip()}
