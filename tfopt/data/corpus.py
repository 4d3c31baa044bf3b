"""Files -> examples: TSV, CSV and JSONL with a text, or a pair, and a label.

`readers` has the formats, and `tagged` those of texts whose words have tags; every
mistake is reported with its file and line.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfopt.data import tagged
from tfopt.data.readers import EMPTY, READERS, decode
from tfopt.types import PathLike, check_fields, check_lists, few, is_one_line, shown

LABELS_FILE = "labels.txt"
FORMS = ("word", "number", "set", "tags")
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
        form: of a label, as the task has it (`Task.label_form`): "word"; "number",
            that is to be learned, so that a JSON number with a fraction is one; "set",
            of any number of words, none too; "tags", one for each word of the text.
        separator: between the words of a set in .tsv and .csv; .jsonl has lists.
    """

    text: str = "text"
    pair: str | None = None
    label: str = "label"
    form: str = "word"
    separator: str = ";"

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: a name is empty, or stands for two columns; or there is no such
                form, or nothing separates labels.
        """
        check_fields(self, {
            "form": (self.form in FORMS, f"one of {FORMS}"),
            "separator": (len(self.separator.strip("\n\r")) > 0,
                          "a sign or some, and no line break")})
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
        labels: of each of N examples its label word, or several words, or none.
        lines: N line numbers in the file, from 1.
        word_spans: of N texts (first character, one behind the last) of each word that
            has a tag, which is its label; None where labels are of whole texts.
    """

    path: str
    texts: list[str]
    pairs: list[str] | None
    labels: list[str] | list[tuple[str, ...]]
    lines: list[int]
    word_spans: list[list[tuple[int, int]]] | None = None

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

        return dataclasses.replace(self, **{
            field.name: pick(getattr(self, field.name))
            for field in dataclasses.fields(self) if field.name != "path"})

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

    def line_of(self, example: int, word: int = 0) -> int:
        """The line of an example's word: in a .conll each has its own."""
        return self.lines[example] + (word if tagged.is_conll(self.path) else 0)

    def words(self) -> list[tuple[str, ...]]:
        """The label words of each of N examples."""
        return [(label,) if isinstance(label, str) else tuple(label)
                for label in self.labels]

    def label_list(self) -> list[str]:
        """The distinct labels, by number if all are whole numbers, else by letter."""
        distinct = {word for words in self.words() for word in words}
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
        self.check_known(label_list)
        return [numbers[word] for word, in self.words()]

    def check_known(self, label_list: Sequence[str]) -> None:
        """Checks that all labels are in a list.

        Raises:
            ValueError: one is not; names file and line.
        """
        known = set(label_list)
        for example, words in enumerate(self.words()):
            for place, label in enumerate(words):
                if label not in known:
                    raise ValueError(
                        f"{self.path}:{self.line_of(example, place)}: a label must be "
                        f"one that the train file has: {few(label_list)}. Received: "
                        f"{shown(label)}")


def read(path: PathLike, columns: Columns = Columns()) -> Corpus:  # noqa: B008
    """Reads a file of examples.

    Args:
        path: ends in .tsv, .csv or .jsonl; where labels are tags, in .conll or .jsonl.
        columns: where the texts and labels are.

    Returns:
        The examples; entirely blank lines are passed over.

    Raises:
        ValueError: the file is missing, empty, of another kind, not UTF-8, or a row
            lacks a field; the message names file and line.
    """
    path, tags = Path(path), columns.form == "tags"
    known = tagged.TAGGED if tags else tuple(READERS)
    if path.suffix.lower() not in known:
        raise ValueError(f"A data file{' of words with tags' if tags else ''} must end "
                         f"in {', '.join(known)}. Received: {path}")
    if tags:
        return _read_tagged(path, columns)
    wanted = [name for name in (columns.text, columns.pair, columns.label) if name]
    texts, pairs, labels, lines = [], [], [], []
    for line, row in READERS[path.suffix.lower()](path, decode(path), wanted,
                                                  {columns.label: columns.form}):
        label = _label(row[columns.label], columns, f"{path}:{line}")
        texts.append(row[columns.text])
        if columns.pair:
            pairs.append(row[columns.pair])
        labels.append(label)
        lines.append(line)
    if not texts:
        raise ValueError(f"{EMPTY} Received: {path}")
    return Corpus(path=str(path), texts=texts, pairs=pairs if columns.pair else None,
                  labels=labels, lines=lines)


def _read_tagged(path: Path, columns: Columns) -> Corpus:
    if columns.pair is not None:
        raise ValueError("Words with tags are of one text, and there is no column of a "
                         "second one (--text_pair_column). Received: "
                         f"pair={columns.pair!r}")
    rows = list(tagged.rows(path, decode(path), columns.text, columns.label))
    if not rows:
        raise ValueError(f"{EMPTY} Received: {path}")
    return Corpus(path=str(path), texts=[row.text for row in rows], pairs=None,
                  labels=[tuple(row.tags) for row in rows],
                  lines=[row.line for row in rows],
                  word_spans=[row.words for row in rows])


def _label(value: Any, columns: Columns, place: str) -> Any:
    """A label, or the set of them, as it is kept."""
    if columns.form == "set":
        parts = value if isinstance(value, list) else (
            value.split(columns.separator) if value.strip() else [])
        return tuple(dict.fromkeys(_word(part, value, columns, place)
                                   for part in parts))
    return _word(value, value, columns, place)


def _word(label: str, value: Any, columns: Columns, place: str) -> str:
    word = label.strip()
    if not is_one_line(word):
        each = "each label of a set" if columns.form == "set" else "a label"
        raise ValueError(f"{place}: {each} must be one line, not empty. Received: "
                         f"{columns.label}={shown(value)}")
    return word


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
