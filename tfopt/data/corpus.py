"""Files -> examples: TSV, CSV and JSONL with a text, or a pair, and a label.

`readers` has the formats; every mistake is reported with its file and line.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path

from tfopt.data.readers import EMPTY, READERS, decode
from tfopt.types import PathLike, check_fields, check_lists, few, is_one_line, shown

LABELS_FILE = "labels.txt"
_MOST_DIGITS = 100  # of a label that is a number
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

    def __post_init__(self):
        """Checks the names.

        Raises:
            ValueError: one is empty, or stands for two columns.
        """
        names = [self.text, self.label, *([] if self.pair is None else [self.pair])]
        if "" in names or len(set(names)) < len(names):
            raise ValueError("Text, second text and label must be of different columns"
                             f". Received: text={self.text!r}, pair={self.pair!r}, "
                             f"label={self.label!r}")


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

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: one text stands where a list of texts must.
        """
        check_fields(self, {})

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
        if all(label.removeprefix("-").isdecimal() and len(label) < _MOST_DIGITS
               for label in distinct):
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
        check_lists(label_list=label_list)
        numbers = {label: i for i, label in enumerate(label_list)}
        for label, line in zip(self.labels, self.lines, strict=True):
            if label not in numbers:
                raise ValueError(
                    f"{self.path}:{line}: a label must be one that the train file has: "
                    f"{few(label_list)}. Received: {shown(label)}")
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
        if not is_one_line(label):
            raise ValueError(f"{path}:{line}: a label must be one line, not empty. "
                             f"Received: {columns.label}={shown(row[columns.label])}")
        texts.append(row[columns.text])
        if columns.pair:
            pairs.append(row[columns.pair])
        labels.append(label)
        lines.append(line)
    if not texts:
        raise ValueError(f"{EMPTY} Received: {path}")
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
                             f"once. Received: {shown(label)}")
        if label:
            labels.append(label)
    if not labels:
        raise ValueError(f"A label list must name a label. Received: {path}")
    return labels


def labels_text(labels: Sequence[str]) -> str:
    """The contents of a label list file, as `read_labels` takes it."""
    return "".join(f"{label}\n" for label in labels)
