"""Files -> rows: TSV, CSV and JSONL, every mistake with its file and line.

TSV is read unquoted, as GLUE's files are; CSV by the rules of RFC 4180; JSONL has one
object a line.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

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


def _tsv(path: Path, text: str, wanted: Sequence[str], _: Sequence[str] = ()):
    # Not splitlines(): a text may hold U+2028 and its like.
    lines = enumerate(text.split("\n"), start=1)
    return _table(path, ((n, line.rstrip("\r").split("\t")) for n, line in lines
                         if line.rstrip("\r")), wanted)


def _csv(path: Path, text: str, wanted: Sequence[str], _: Sequence[str] = ()):
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
           fractions: Sequence[str] = ()):
    for line, source in enumerate(text.split("\n"), start=1):
        if not source.strip():
            continue
        row = parse_json(source, repr(source[:_SHOWN]),
                         f"{path}:{line}: a line must be a JSON object", finite=False)
        for name in wanted:
            value = row.get(name)
            fits = isinstance(value, str | int) and not isinstance(value, bool)
            if not fits and not (name in fractions and isinstance(value, float)):
                raise ValueError(
                    f"{path}:{line}: the key {name!r} must hold a text or a whole "
                    f"number. Received: {shown(value)} among {few(row)}")
        yield line, {name: str(row[name]) for name in wanted}


def _line(text: str, number: int) -> str:
    return text.split("\n")[number - 1][:_SHOWN]


# By a file's ending: (path, its text, wanted columns, those that may hold fractions) ->
# line and fields of each row.
READERS = {".tsv": _tsv, ".csv": _csv, ".jsonl": _jsonl}
