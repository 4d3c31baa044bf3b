"""A file's examples -> token ids and targets. Imports no TensorFlow."""

from __future__ import annotations

import dataclasses

from tfopt import data as readers
from tfopt import tasks
from tfopt.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """One file's examples, encoded.

    Attributes:
        encoded: token ids.
        targets: what the model is to give for each.
    """

    encoded: readers.Encoded
    targets: list

    @property
    def lengths(self) -> list[int]:
        """Token counts of the texts."""
        return [len(ids) for ids in self.encoded.ids]


def encode(corpus: readers.Corpus, tokenizer: Tokenizer, task: tasks.Task,
           max_length: int) -> Split:
    """Encodes a corpus."""
    return Split(encoded=tokenizer.encode(corpus.texts, corpus.pairs,
                                          max_length=max_length),
                 targets=task.targets(corpus))
