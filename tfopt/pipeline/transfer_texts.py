"""Train, and options of a teacher -> the texts that a student learns from."""

from __future__ import annotations

from tfopt import data as readers
from tfopt import tasks
from tfopt.data.augment import Fill
from tfopt.pipeline import plain_files
from tfopt.pipeline.options import SMOKE_EXAMPLES, Data, Files
from tfopt.pipeline.teacher_options import Teacher

_BY_MODEL = "; a masked language model found the words that replace others"


def read(corpus: readers.Corpus, files: Files, teacher: Teacher, data: Data, seed: int,
         smoke: bool, notes: list[str], fill: Fill | None = None
         ) -> tuple[readers.Texts, readers.Texts | None]:
    """The texts of train, and those without labels that are asked for; None for none.

    Both as the task reads them; where it reads those of pairs apart, there is an even
    number of the latter.

    Args:
        corpus: train.
        files: names the task.
        teacher: which texts without labels, and how many copies.
        data: the columns.
        seed: of copies.
        smoke: takes a few.
        notes: gets sentences on them.
        fill: finds the words that replace others in copies; None takes any.

    Raises:
        ValueError: the file of texts is missing or wrong; names file and line.
    """
    parts, kind = [], tasks.named(files.task)
    own = readers.Texts(texts=corpus.texts, pairs=corpus.pairs)
    paired = kind.apart and own.pairs is not None
    if kind.apart:
        own = plain_files.in_turn(own)
    # Without a train file, those of a task that needs no labels are the train set.
    path = teacher.unlabelled if kind.needs_labels or files.train else None
    if path is not None:
        found = (plain_files.texts if kind.apart else readers.read_texts)(
            path, data.columns())
        if smoke:
            found = found.part(0, SMOKE_EXAMPLES["train"])
        parts.append(found)
        notes.append(f"{len(found)} texts without labels, judged by the teacher.")
    if teacher.copies:
        parts.append(readers.Augmentation(seed=seed, keep=_kept_words(corpus, kind))(
            own, teacher.copies, fill))
        notes.append(f"{len(parts[-1])} changed copies of train's texts, judged by the "
                     f"teacher{_BY_MODEL if fill else ''}.")
    if not parts:
        return own, None
    more = parts[0].with_more(parts[1:])
    if paired and len(more) % 2:
        more = more.with_more([more.part(len(more) - 1, len(more))])
    return own, more


def _kept_words(corpus: readers.Corpus, kind: type[tasks.Task]) -> frozenset[str]:
    """The words that tell labels apart; none where labels are no words of a text."""
    if not kind.needs_labels or kind.label_form not in ("word", "set"):
        return frozenset()
    texts = corpus.texts if corpus.pairs is None else [
        " ".join(row) for row in zip(corpus.texts, corpus.pairs, strict=True)]
    return readers.label_words(texts, corpus.words())
