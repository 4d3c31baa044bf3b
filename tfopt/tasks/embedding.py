"""Embedding: a text -> a vector, whose cosine with another's says how alike they are.

The mean over visible tokens of the last states, or the first token's state; no
classifier. The texts of a pair are read each by itself. Judged by Spearman's
correlation of cosines and scores, or, without scores, by the cosine of each vector with
the baseline's. Nothing need be labelled: a student learns a teacher's vectors.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfopt.report import Metric
from tfopt.sentence_files import Pooling, pooling_of
from tfopt.tasks import figures, registry
from tfopt.tasks.base import Task, check_same_number
from tfopt.tasks.regression import correlation, ranks
from tfopt.types import check_fields

if TYPE_CHECKING:
    from pathlib import Path

    from tfopt.model.heads import Head
    from tfopt.train.objective import Objective

_READS = ("mean", "first")
_DIGITS = 7  # of an answer's numbers, which are below 1: those that float32 has
_NO_LENGTH = 1e-12
_COSINE = Metric("cosine_to_baseline", "", "higher")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embedding(Task):
    """A vector for each text.

    Attributes:
        reads: "mean" over the visible tokens, or "first": the token that is read.
        normalize: whether the vectors of answers have length 1. The model's own output
            has not: in eight bits a length is better taken from outside.
        width: D, numbers of a vector; 0 where no model has said it yet.
        low: score of pairs that are not alike at all, whose cosine is to be 0.
        high: score of pairs that are alike, whose cosine is to be 1.
        learns_scores: whether there are scores to learn from.
        judged_by_scores: whether there are scores to judge by; else vectors are
            compared with those of the baseline.
    """

    reads: str = "mean"
    normalize: bool = True
    width: int = dataclasses.field(default=0, compare=False)
    low: float = dataclasses.field(default=0.0, compare=False)
    high: float = dataclasses.field(default=1.0, compare=False)
    learns_scores: bool = dataclasses.field(default=True, compare=False)
    judged_by_scores: bool = dataclasses.field(default=True, compare=False)

    label_form = "number"
    no_target = math.nan
    needs_labels = False
    apart = True
    client_scores = ""
    pipeline_tag = "sentence-similarity"
    compared = (_COSINE,)

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: one is out of its range.
        """
        super().__post_init__()
        check_fields(self, {
            "reads": (self.reads in _READS, f"one of {_READS}"),
            "width": (self.width >= 0, "at least 0"),
            "high": (self.low < self.high, f"above low, {self.low}")})

    @property
    def monitor(self) -> tuple[str, str]:  # type: ignore[override]
        """Spearman's correlation, or the cosine with the baseline."""
        return self.metrics[0].name, "higher"

    @property
    def metrics(self) -> tuple[Metric, ...]:  # type: ignore[override]
        """What `quality` gives."""
        if not self.judged_by_scores:
            return (_COSINE,)
        return (Metric("spearman", "fraction", "higher"),
                Metric("pearson", "", "higher"))

    @classmethod
    def from_corpus(cls, corpus: Any, known_labels: Sequence[str] | None = None
                    ) -> Embedding:
        """The task; the least and the highest score of pairs are cosines of 0 and 1.

        Raises:
            ValueError: a score is no number; names file and line.
        """
        if corpus.pairs is None:
            return cls(learns_scores=False, judged_by_scores=False)
        scores = cls().targets(corpus)
        if min(scores) == max(scores):
            raise ValueError(f"{corpus.path}: scores to learn from must differ. "
                             f"Received: {len(corpus)} pairs of {scores[0]}")
        return cls(low=min(scores), high=max(scores))

    def of(self, dev: Any, checkpoint: Path | None = None) -> Embedding:
        """The task, judged by scores where dev has such; it reads as a checkpoint says.

        What a model of tfopt's was made for counts, then what sentence-transformers'
        files say of pooling; else it is the mean, and vectors of length 1.

        Raises:
            ValueError: the files say what is not honoured.
        """
        own = None if checkpoint is None else (
            registry.read(checkpoint) or pooling_of(checkpoint))
        known: dict[str, Any] = {} if not isinstance(own, Embedding | Pooling) else {
            "reads": own.reads, "normalize": own.normalize}
        if not self.learns_scores and dev.pairs:  # no train set has told the scale
            scores = Embedding().targets(dev)
            if min(scores) < max(scores):
                known |= {"low": min(scores), "high": max(scores)}
        return dataclasses.replace(self, judged_by_scores=bool(dev.pairs), **known)

    def giving(self, outputs: int) -> Embedding:
        """The task of a model, which tells the width."""
        return self if self.width else dataclasses.replace(self, width=outputs)

    @property
    def learns_from_labels(self) -> bool:
        """Whether there are scores to learn from."""
        return self.learns_scores

    @property
    def outputs(self) -> int:
        """D; 0 where no model has said it yet."""
        return self.width

    def head(self) -> Head:
        """No pooler and no classifier."""
        from tfopt.model.heads import Head

        return Head(outputs=None, reads=self.reads, pooler=None, dropout=0.0)

    def check_outputs(self, shape: Sequence[int | None]) -> None:
        """Checks that a model gives vectors, of this width if it is known.

        Raises:
            ValueError: it does not.
        """
        if len(shape) != 2 or self.width and shape[-1] != self.width:
            raise ValueError(
                f"A model of the task {self.name()!r} must give a vector for each text,"
                f" of {self.width or 'D'} numbers. Received: a model that gives "
                f"{tuple(shape)}")

    def targets(self, corpus: Any) -> list[float]:
        """A number for each text: of a pair two, from its score; NaN without pairs.

        Args:
            corpus: of N pairs, whose scores are scaled from `low` and `high` to 0 and
                1; or of N texts.

        Raises:
            ValueError: a score is no finite number; names file and line.
        """
        if corpus.pairs is None:
            return [math.nan] * len(corpus)
        scores = figures.numbers_of(corpus, "a score")
        return [(score - self.low) / (self.high - self.low)
                for score in scores for _ in range(2)]

    def objective(self) -> Objective:
        """Squared error of a pair's cosine; from a teacher, 1 - cosine of vectors."""
        from tfopt.train import sentence_vectors
        from tfopt.train.objective import ExampleLoss, Objective

        return Objective(
            loss=lambda: ExampleLoss(sentence_vectors.pair_loss), monitor=self.monitor,
            metrics=lambda: ([sentence_vectors.Spearman()] if self.judged_by_scores
                             else []),
            hard_loss=sentence_vectors.pair_loss,
            soft_loss=lambda outputs, teacher, temperature: (
                sentence_vectors.direction_loss(outputs, teacher)))

    def guess(self, outputs: Any) -> Any:
        """The cosine of each text with its pair's other one <float32>[B]."""
        from tfopt.train import sentence_vectors

        return sentence_vectors.cosines(outputs)

    def with_guesses(self, outputs: Any, targets: Any, visible: Any = None) -> Any:
        """Targets; where there are no scores to learn from, the vectors themselves.

        Args:
            outputs: <float>[B, D].
            targets: <float>[B].
            visible: not looked at.

        Returns:
            <float32>[B], or <float>[B, D].
        """
        from tfopt.backend import tf

        return (super().with_guesses(outputs, targets) if self.learns_scores
                else tf.stop_gradient(outputs))

    def example_loss(self, outputs: Any, targets: Any, visible: Any = None) -> Any:
        """The loss of each example <float32>[B].

        Args:
            outputs: <float>[B, D].
            targets: scores <float>[B]; where one is missing, the loss has the squared
                change of the vector for its mean squared gradient
                (`train.sentence_vectors.probe`). Or vectors <float>[B, D], of which it
                is 1 - cosine.
            visible: not looked at.
        """
        from tfopt.backend import tf
        from tfopt.train import sentence_vectors
        from tfopt.types import is_labelled

        if targets.shape.rank == 2:
            return sentence_vectors.direction_loss(outputs, targets)
        return tf.where(is_labelled(targets),
                        sentence_vectors.pair_loss(outputs, targets),
                        sentence_vectors.probe(outputs))

    def quality(self, outputs: np.ndarray, targets: Sequence) -> dict[str, float]:
        """How well cosines rank pairs, or how near vectors are to the baseline's.

        Args:
            outputs: vectors <float>[N, D]; of pairs, row by row next to each other.
            targets: N scores, the same for both rows of a pair; or the baseline's
                vectors <float>[N, D].

        Returns:
            {spearman, pearson} in [-1, 1], 0 where one side has but one value; or
            {cosine_to_baseline}, the mean.

        Raises:
            ValueError: the numbers of examples differ, or there are none, or no pairs.
        """
        check_same_number(outputs, targets)
        if not self.judged_by_scores:
            return self.agreement(outputs, np.asarray(targets))
        if len(outputs) % 2:
            raise ValueError("The vectors of pairs must come two and two. Received: "
                             f"{len(outputs)} outputs")
        rows = unit(outputs)
        found = np.sum(rows[::2] * rows[1::2], axis=1)
        scores = np.asarray(targets, np.float64)[::2]
        return {"spearman": correlation(ranks(found), ranks(scores)),
                "pearson": correlation(found, scores)}

    def agreement(self, outputs: np.ndarray, reference: np.ndarray
                  ) -> dict[str, float]:
        """{cosine_to_baseline: mean cosine of <float>[N, D] with <float>[N, D]}.

        Raises:
            ValueError: the vectors are of another shape.
        """
        if np.shape(outputs) != np.shape(reference):
            raise ValueError(
                "Vectors are compared with those of the baseline, of as many numbers. "
                f"Received: {np.shape(outputs)}, the baseline's {np.shape(reference)}")
        cosines = np.sum(unit(outputs) * unit(reference), axis=1)
        return {_COSINE.name: float(np.mean(cosines))}

    def vectors(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs as a client gets them: <float>[N, D] -> <float32>[N, D]."""
        return np.asarray(unit(outputs) if self.normalize else outputs, np.float32)

    def decode(self, outputs: np.ndarray, encoded: Any = None) -> list[dict[str, Any]]:
        """{"embedding": [D numbers]} of each of <float>[N, D]."""
        return [{"embedding": np.round(row.astype(np.float64), _DIGITS).tolist()}
                for row in self.vectors(outputs)]

    def decode_pairs(self, outputs: np.ndarray, others: np.ndarray
                     ) -> list[dict[str, Any]]:
        """{"score": cosine} of each pair, of <float>[N, D] and <float>[N, D]."""
        return [{"score": float(cosine)}
                for cosine in np.sum(unit(outputs) * unit(others), axis=1)]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1, <float>[N, D] -> <float64>[N, D]; of 0 stays 0."""
    rows = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.maximum(lengths, _NO_LENGTH)
