"""Files -> rows: TSV, CSV and JSONL, every mistake with its file and line.

TSV is read unquoted, as GLUE's files are; CSV by the rules of RFC 4180; JSONL has one
object a line.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfopt.files import parse_json
from tfopt.types import few, shown

EMPTY = "A data file must hold at least one example."
_SHOWN = 80  # letters of a line


def decode(path: Path) -> str:
    """Reads a text file in UTF-8.

    Raises:
        ValueError: it is missing, or in another encoding; names file and line.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ValueError(f"A data file cannot be read: {error.strerror}. "
                         f"Received: {path}") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raw = error.object  # without the byte order mark, as `start` counts
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line}: the text must be UTF-8. Received: byte "
                         f"0x{raw[error.start]:02x}") from error


_NO_FORMS: Mapping[str, str] = {}


def _tsv(path: Path, text: str, wanted: Sequence[str],
         _: Mapping[str, str] = _NO_FORMS):
    # Not splitlines(): a text may hold U+2028 and its like.
    lines = enumerate(text.split("\n"), start=1)
    return _table(path, ((n, line.rstrip("\r").split("\t")) for n, line in lines
                         if line.rstrip("\r")), wanted)


def _csv(path: Path, text: str, wanted: Sequence[str],
         _: Mapping[str, str] = _NO_FORMS):
    def rows():
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        while True:
            line = reader.line_num + 1  # a quoted field may span lines
            limit = csv.field_size_limit(sys.maxsize)  # of all of this process
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise ValueError(f"{path}:{line}: the row is no CSV: {error}. "
                                 f"Received: {_line(text, line)!r}") from error
            finally:
                csv.field_size_limit(limit)
            if row:
                yield line, row

    return _table(path, rows(), wanted)


def _table(path: Path, rows: Iterator, wanted: Sequence[str],
           ) -> Iterator[tuple[int, Mapping[str, str]]]:
    line, header = next(rows, (1, None))
    if header is None:
        raise ValueError(f"{EMPTY} Received: {path}")
    for name in wanted:
        if header.count(name) != 1:
            has = "two columns" if name in header else "no column"
            raise ValueError(f"{path}:{line}: the header has {has} {name!r}. "
                             f"Received: {few(header)}")
    for line, row in rows:
        if row == header and len(header) > 1:  # files were put together
            raise ValueError(f"{path}:{line}: the header must stand once, in the first "
                             f"line. Received: {few(row)}")
        if len(row) != len(header):
            raise ValueError(f"{path}:{line}: a row must have {len(header)} fields, as "
                             f"the header has. Received: {len(row)}: {few(row)}")
        yield line, dict(zip(header, row, strict=True))


def _jsonl(path: Path, text: str, wanted: Sequence[str],
           forms: Mapping[str, str] = _NO_FORMS):
    for line, source in enumerate(text.split("\n"), start=1):
        if not source.strip():
            continue
        row = parse_json(source, repr(source[:_SHOWN]),
                         f"{path}:{line}: a line must be a JSON object", finite=False)
        found = {}
        for name in wanted:
            value, form = row.get(name), forms.get(name, "word")
            fits, rule = _FORMS.get(form, (_is_word, "a text or a whole number"))
            if not fits(value):
                raise ValueError(
                    f"{path}:{line}: the key {name!r} must hold {rule}. "
                    f"Received: {shown(value)} among {few(row)}")
            found[name] = [*map(str, value)] if isinstance(value, list) else str(value)
        yield line, found


def _is_word(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


# Form of a JSON value (`Columns.form`) -> whether one has it, and in words.
_FORMS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "number": (lambda value: _is_word(value) or isinstance(value, float),
               "a text or a number"),
    "set": (lambda value: isinstance(value, list) and all(map(_is_word, value)),
            "a list of texts or whole numbers, which may be empty")}


def _line(text: str, number: int) -> str:
    return text.split("\n")[number - 1][:_SHOWN]


# By a file's ending: (path, its text, wanted columns, forms of those that are no words)
# -> line and fields of each row.
READERS = {".tsv": _tsv, ".csv": _csv, ".jsonl": _jsonl}
