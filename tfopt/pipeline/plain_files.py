"""Files of a task that needs no labels -> its corpora: pairs with scores, or texts."""

from __future__ import annotations

from tfopt import data as readers
from tfopt.pipeline.options import Files
from tfopt.pipeline.teacher_options import Teacher
from tfopt.types import PathLike

_MOST_DEV = 1000  # texts that are held out to compare vectors by


def read(files: Files, columns: readers.Columns, teacher: Teacher
         ) -> tuple[dict[str, readers.Corpus], list[str]]:
    """What the files hold; dev may be missing.

    With a column of second texts, the labelled files hold pairs with scores; without
    it, texts. The texts without labels stand for a train file that is missing, and the
    embedded ones where there are neither.

    Args:
        files: train, dev and test, or some of them.
        columns: of the files.
        teacher: may name texts without labels.

    Returns:
        Name of a split -> its examples, and notes.

    Raises:
        ValueError: a file is missing or wrong; names file and line.
    """
    def given(path: PathLike) -> readers.Corpus:
        return (readers.read_each if columns.pair is None else readers.read)(
            path, columns)

    corpora, notes = {}, []
    if files.train is not None:
        corpora["train"] = given(files.train)
    elif teacher.unlabelled is not None:
        corpora["train"] = readers.read_each(teacher.unlabelled, columns)
        notes.append(f"{len(corpora['train']):,} texts without labels.")
    else:
        corpora["train"] = readers.read_each(readers.DEMO_TRAIN_FILE)
        corpora["dev"] = readers.read_each(readers.DEMO_DEV_FILE)
        notes.append("Data: the texts of the embedded support intents.")
    for split, path in (("dev", files.dev), ("test", files.test)):
        if path is not None:
            corpora[split] = given(path)
    return corpora, notes


def held_out(train: readers.Corpus) -> float:
    """Part of a train set that is held out for dev: a tenth, 1,000 texts at most."""
    return min(0.1, _MOST_DEV / max(1, len(train)))


def texts(path: PathLike, columns: readers.Columns) -> readers.Texts:
    """The texts of a file without labels, those of pairs each for itself.

    Raises:
        ValueError: as `data.read_each`.
    """
    return readers.Texts(texts=readers.read_each(path, columns).texts)


def in_turn(found: readers.Texts) -> readers.Texts:
    """Texts, or those of pairs one after the other, each for itself."""
    return found if found.pairs is None else readers.Texts(
        texts=[text for row in zip(found.texts, found.pairs, strict=True)
               for text in row])
