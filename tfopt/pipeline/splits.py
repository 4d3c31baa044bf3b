"""A file's examples -> token ids and targets. Imports no TensorFlow."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tfopt import data as readers
from tfopt import tasks
from tfopt.data import remarks
from tfopt.data.tokenizer import Tokenizer
from tfopt.types import is_labelled


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """One file's examples, encoded.

    Attributes:
        encoded: token ids.
        targets: what the model is to give for each; of a label that train lacks, what
            the task judges as wrong (`Task.evaluation_targets`).
        paired: whether examples are two and two the texts of a pair.
    """

    encoded: readers.Encoded
    targets: Any
    paired: bool = False

    def with_more(self, texts: readers.Encoded) -> Split:
        """The examples, and texts without a target behind them.

        Args:
            texts: encoded by the same tokenizer; where examples are two and two, so
                must these be.
        """
        return dataclasses.replace(
            self, encoded=readers.join([self.encoded, texts]),
            targets=[*self.targets, *[None] * len(texts.ids)])

    def batches(self, **options: Any) -> readers.Batches:
        """The examples as batches, in which pairs stay together.

        Args:
            **options: of `data.Batches`.
        """
        kind = readers.PairedBatches if self.paired else readers.Batches
        return kind(self.encoded, self.targets, **options)

    @property
    def lengths(self) -> list[int]:
        """Token counts of the texts."""
        return [len(ids) for ids in self.encoded.ids]

    @property
    def labelled(self) -> Split:
        """The examples that have a target the model can give; maybe none."""
        rows = [row for row, target in enumerate(self.targets)
                if is_labelled(np.asarray(target)).any()]
        if len(rows) == len(self.targets):
            return self
        encoded = self.encoded
        return dataclasses.replace(
            self, encoded=dataclasses.replace(
                encoded, ids=[encoded.ids[row] for row in rows],
                first_lengths=[encoded.first_lengths[row] for row in rows]),
            targets=[self.targets[row] for row in rows])


def encode(corpus: readers.Corpus, tokenizer: Tokenizer, task: tasks.Task,
           max_length: int) -> Split:
    """Encodes a corpus to learn from or to judge by; `check_labels` is strict.

    The texts of a pair are encoded each by itself where the task says so.
    """
    texts, pairs, apart = corpus.texts, corpus.pairs, task.apart
    if apart and pairs is not None:
        texts = [text for row in zip(texts, pairs, strict=True) for text in row]
    encoded = tokenizer.encode(texts, None if apart else pairs, max_length=max_length,
                               places=task.per_token)
    return Split(encoded=encoded, paired=apart and pairs is not None,
                 targets=task.on_tokens(task.evaluation_targets(corpus), corpus,
                                        encoded))


def check_labels(corpus: readers.Corpus, task: tasks.Task, name: str) -> list[str]:
    """Checks a file to judge by: some of its labels must be the task's.

    Args:
        corpus: the file's examples.
        task: that judges.
        name: of the split.

    Returns:
        A sentence on labels that the task lacks, if there are any.

    Raises:
        ValueError: all examples have such labels; names file and line of the first.
    """
    unknown = task.unknown_labels(corpus)
    if unknown and all(unknown):
        task.targets(corpus)
    return remarks.on_unknown_labels(name, unknown)
