"""Files -> examples: TSV, CSV and JSONL with a text, or a pair, and a label.

TSV is read unquoted, as GLUE's files are; CSV by the rules of RFC 4180; JSONL has
one object a line. Every mistake is reported with its file and line.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tfopt.files import parse_json
from tfopt.types import PathLike

LABELS_FILE = "labels.txt"
_EMPTY = "A data file must hold at least one example."
_DEMO = Path(__file__).parent / "support_intents"
DEMO_TRAIN_FILE = _DEMO / "train.tsv"
DEMO_DEV_FILE = _DEMO / "dev.tsv"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns (or JSON keys) hold what.

    Attributes:
        text: the text, or the first of a pair.
        pair: the second text, or None.
        label: the label.
        numbers: whether labels are numbers to be learned (`Task.number_labels`), and a
            JSON number with a fraction is one; else it is refused, being no class.
    """

    text: str = "text"
    pair: str | None = None
    label: str = "label"
    numbers: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """The examples of one file, in its order.

    Attributes:
        path: the file.
        texts: N texts.
        pairs: N second texts, or None.
        labels: N label words.
        lines: N line numbers in the file, from 1.
    """

    path: str
    texts: list[str]
    pairs: list[str] | None
    labels: list[str]
    lines: list[int]

    def __len__(self) -> int:
        """N."""
        return len(self.texts)

    def take(self, indices: Sequence[int]) -> Corpus:
        """The examples at these places, in this order."""
        def pick(items):
            return None if items is None else [items[i] for i in indices]

        return dataclasses.replace(self, texts=pick(self.texts), pairs=pick(self.pairs),
                                   labels=pick(self.labels), lines=pick(self.lines))

    def split(self, fraction: float, seed: int) -> tuple[Corpus, Corpus]:
        """Holds examples out, by chance.

        Args:
            fraction: of the examples to hold out, in (0, 1).
            seed: of the choice.

        Returns:
            The rest, and the held-out examples; both in the file's order.

        Raises:
            ValueError: the fraction is out of range, or a part would be empty.
        """
        count = round(len(self) * fraction)
        if not 0 < fraction < 1 or not 0 < count < len(self):
            raise ValueError(
                f"The held-out fraction must be in (0, 1) and leave examples on both "
                f"sides. Received: fraction={fraction} of {len(self)} examples")
        held = set(random.Random(seed).sample(range(len(self)), count))
        return (self.take([i for i in range(len(self)) if i not in held]),
                self.take(sorted(held)))

    def label_list(self) -> list[str]:
        """The distinct labels, by number if all are whole numbers, else by letter."""
        distinct = set(self.labels)
        if all(label.removeprefix("-").isdecimal() for label in distinct):
            return sorted(distinct, key=lambda label: (int(label), label))
        return sorted(distinct)

    def class_ids(self, label_list: Sequence[str]) -> list[int]:
        """The class number of every example.

        Args:
            label_list: C words; the position of a word is its class number.

        Returns:
            N numbers.

        Raises:
            ValueError: a label is not in the list; names file and line.
        """
        numbers = {label: i for i, label in enumerate(label_list)}
        for label, line in zip(self.labels, self.lines, strict=True):
            if label not in numbers:
                raise ValueError(
                    f"{self.path}:{line}: a label must be one that the train file has: "
                    f"{_few(label_list)}. Received: {label!r}")
        return [numbers[label] for label in self.labels]


def read(path: PathLike, columns: Columns = Columns()) -> Corpus:  # noqa: B008
    """Reads a file of examples.

    Args:
        path: ends in .tsv, .csv or .jsonl.
        columns: where the texts and labels are.

    Returns:
        The examples; entirely blank lines are passed over.

    Raises:
        ValueError: the file is missing, empty, of another kind, not UTF-8, or a row
            lacks a field; the message names file and line.
    """
    path = Path(path)
    if path.suffix.lower() not in READERS:
        raise ValueError(f"A data file must end in {', '.join(READERS)}. "
                         f"Received: {path}")
    wanted = [name for name in (columns.text, columns.pair, columns.label) if name]
    texts, pairs, labels, lines = [], [], [], []
    fractions = [columns.label] if columns.numbers else []
    for line, row in READERS[path.suffix.lower()](path, decode(path), wanted,
                                                  fractions):
        label = row[columns.label].strip()
        if not label or "\n" in label or "\r" in label:  # label lists have lines
            raise ValueError(f"{path}:{line}: a label must be one line, not empty. "
                             f"Received: {columns.label}={row[columns.label]!r}")
        texts.append(row[columns.text])
        if columns.pair:
            pairs.append(row[columns.pair])
        labels.append(label)
        lines.append(line)
    if not texts:
        raise ValueError(f"{_EMPTY} Received: {path}")
    return Corpus(path=str(path), texts=texts, pairs=pairs if columns.pair else None,
                  labels=labels, lines=lines)


def read_labels(path: PathLike) -> list[str]:
    """Reads a label list: one word a line, in the order of the classes.

    Raises:
        ValueError: the file is missing, empty, or names a label twice.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"A label list is needed. Received: {path}")
    labels = []
    # Not splitlines(): a label may hold U+2028 and its like.
    for number, line in enumerate(decode(path).split("\n"), start=1):
        label = line.rstrip("\r")
        if label in labels:
            raise ValueError(f"{path}:{number}: a label list must name each label "
                             f"once. Received: {label!r}")
        if label:
            labels.append(label)
    if not labels:
        raise ValueError(f"A label list must name a label. Received: {path}")
    return labels


def labels_text(labels: Sequence[str]) -> str:
    """The contents of a label list file, as `read_labels` takes it."""
    return "".join(f"{label}\n" for label in labels)


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
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise ValueError(f"{path}:{line}: the row is no CSV: {error}. "
                                 f"Received: {_line(text, line)!r}") from error
            if row:
                yield line, row

    return _table(path, rows(), wanted)


def _table(path: Path, rows: Iterator, wanted: Sequence[str],
           ) -> Iterator[tuple[int, Mapping[str, str]]]:
    line, header = next(rows, (1, None))
    if header is None:
        raise ValueError(f"{_EMPTY} Received: {path}")
    for name in wanted:
        if name not in header:
            raise ValueError(f"{path}:{line}: the header has no column {name!r}. "
                             f"Received: {_few(header)}")
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(f"{path}:{line}: a row must have {len(header)} fields, as "
                             f"the header has. Received: {len(row)}: {_few(row)}")
        yield line, dict(zip(header, row, strict=True))


def _jsonl(path: Path, text: str, wanted: Sequence[str],
           fractions: Sequence[str] = ()):
    for line, source in enumerate(text.split("\n"), start=1):
        if not source.strip():
            continue
        row = parse_json(source, repr(source[:80]),
                         f"{path}:{line}: a line must be a JSON object", finite=False)
        for name in wanted:
            value = row.get(name)
            fits = isinstance(value, str | int) and not isinstance(value, bool)
            if not fits and not (name in fractions and isinstance(value, float)):
                raise ValueError(
                    f"{path}:{line}: the key {name!r} must hold a text or a whole "
                    f"number. Received: {value!r} among {_few(row)}")
        yield line, {name: str(row[name]) for name in wanted}


def _line(text: str, number: int) -> str:
    return text.split("\n")[number - 1][:80]


def _few(items) -> str:
    items = [str(item)[:40] for item in items]
    more = f", ... ({len(items)} in all)" if len(items) > 8 else ""
    return ", ".join(items[:8]) + more


# By a file's ending: (path, its text, wanted columns, those that may hold fractions) ->
# line and fields of each row.
READERS = {".tsv": _tsv, ".csv": _csv, ".jsonl": _jsonl}
