"""Several labels a text: a text, or a pair -> each of C labels, or none of them.

A sigmoid and a binary cross-entropy for each label; judged by F1, over all labels
together and as their mean. A label is answered from one threshold on, the same for all,
by which F1 over all is best on dev: for that measure no threshold for each label is
needed (Lipton et al. 2014, arXiv:1402.1892). From a teacher each label learns by itself
(Yang et al. 2023, "Multi-label knowledge distillation", arXiv:2308.06453).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfopt.report import Metric
from tfopt.tasks import figures
from tfopt.tasks.base import Task, check_same_number
from tfopt.tasks.judged import Signals
from tfopt.types import check_fields, check_types

if TYPE_CHECKING:
    from tfopt.train.objective import Objective

_FOLDS = 5
_TRIED = tuple(percent / 100 for percent in range(1, 100))  # thresholds
_SEED = 0  # of the folds


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLabel(Task):
    """Any number of C labels for each example.

    A target is <int>[C + 1]: 1 or 0 of each label, and how many labels more the example
    has that the task does not: they cannot be answered, and count as missed.

    Attributes:
        labels: C label words by their number; may be left out where only losses are
            asked for.
        threshold: the least probability, in (0, 1), with which a label is answered;
            chosen by `fitted`.
    """

    threshold: float = 0.5

    monitor = ("micro_f1", "higher")
    label_form = "set"
    problem_type = "multi_label_classification"
    no_target = -1
    target_rank = 1
    metrics = (Metric("micro_f1", "fraction", "higher"),
               Metric("macro_f1", "fraction", "higher"),
               Metric("exact_match", "fraction", "higher"))
    fitted_fields = ("threshold",)
    client_scores = "sigmoid"
    pipeline_tag = "text-classification"
    no_cascade = ("of several labels, each with a probability of its own, no one "
                  "number tells whether an answer is sure")

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: a label is empty, of several lines, or named twice, or the
                threshold is no probability.
        """
        check_types(self)
        figures.check_labels(self.labels, "A multi_label task")
        check_fields(self, {"threshold": (0 < self.threshold < 1, "in (0, 1)")})

    @classmethod
    def from_corpus(cls, corpus: Any, known_labels: Sequence[str] | None = None
                    ) -> MultiLabel:
        """The labels of a train set; in the checkpoint's own order where it has them.

        Args:
            corpus: a `data.Corpus`.
            known_labels: of the checkpoint, in the order of its outputs; or None.

        Raises:
            ValueError: no example has a label.
        """
        found = corpus.label_list()
        if not found:
            raise ValueError(
                f"{corpus.path}: a multi_label task needs an example that has a label. "
                f"Received: {len(corpus)} examples, each of an empty set")
        return cls(labels=figures.in_known_order(found, known_labels))

    @property
    def outputs(self) -> int:
        """C."""
        return len(self.labels)

    def targets(self, corpus: Any) -> list[list[int]]:
        """The row of every example.

        Raises:
            ValueError: a label is not among the task's; names file and line.
        """
        corpus.check_known(self.labels)
        return self.evaluation_targets(corpus)

    def evaluation_targets(self, corpus: Any) -> list[list[int]]:
        """The row of every example; its last number counts what the task lacks."""
        numbers = figures.numbered(self.labels)
        rows = []
        for words in corpus.words():
            row = [0] * (len(self.labels) + 1)
            for word in words:
                row[numbers.get(word, -1)] += 1
            rows.append(row)
        return rows

    def objective(self) -> Objective:
        """The mean of the labels' binary cross-entropies, and micro F1.

        The metric is what `fitted` would give on the same examples.
        """
        from tfopt.train import binary

        return binary.objective(tuple(map(_logit, _TRIED)))

    def guess(self, outputs: Any) -> Any:
        """The labels from the threshold on, <int32>[B, C + 1]."""
        from tfopt.backend import tf

        return tf.pad(tf.cast(outputs >= self.cut, tf.int32), [[0, 0], [0, 1]])

    @property
    def cut(self) -> float:
        """The threshold as a logit."""
        return _logit(self.threshold)

    def quality(self, outputs: np.ndarray, targets: Sequence) -> dict[str, float]:
        """F1, and how many sets are exactly right.

        Args:
            outputs: logits <float>[N, C].
            targets: <int>[N, C + 1].

        Returns:
            {micro_f1, macro_f1, exact_match}, fractions in [0, 1]. Micro F1 is of the
            labels of all examples together, 2 TP / (2 TP + FP + FN); macro F1 the mean
            over the task's labels that occur among targets or answers; both 0 where
            there is no label at all.

        Raises:
            ValueError: the numbers of examples differ, or there are none.
        """
        answered, wanted, more = self._compared(outputs, targets)
        hits = (answered & wanted).sum(axis=0)  # <int>[C]
        all_of = (answered.sum(axis=0), wanted.sum(axis=0))
        micro = figures.of_counts(hits.sum(), all_of[0].sum(),
                                  all_of[1].sum() + more.sum())
        occur = all_of[0] + all_of[1] > 0
        each = 2 * hits[occur] / (all_of[0] + all_of[1])[occur]
        return {"micro_f1": micro["f1"],
                "macro_f1": float(each.mean()) if len(each) else 0.0,
                "exact_match": float(np.mean(
                    np.all(answered == wanted, axis=1) & (more == 0)))}

    def by_class(self, outputs: np.ndarray, targets: Sequence
                 ) -> dict[str, dict[str, float]]:
        """Label -> precision, recall, f1 and support (`figures.of_counts`)."""
        answered, wanted, _ = self._compared(outputs, targets)
        return {label: figures.of_counts(
            np.sum(answered[:, i] & wanted[:, i]), answered[:, i].sum(),
            wanted[:, i].sum()) for i, label in enumerate(self.labels)}

    def fitted(self, outputs: np.ndarray, targets: Sequence) -> MultiLabel:
        """The task with the threshold, of 0.01 to 0.99, by which micro F1 is best.

        Of several the one nearest to a half.

        Args:
            outputs: a trained model's logits <float>[N, C].
            targets: <int>[N, C + 1].
        """
        _, wanted, more = self._compared(outputs, targets)
        bins = np.searchsorted(list(map(_logit, _TRIED)), np.ravel(outputs), "right")
        answered, hits = (np.bincount(bins, each, len(_TRIED) + 1)[:0:-1].cumsum()[::-1]
                          for each in (None, np.ravel(wanted)))  # <float>[99]
        f1 = 2 * hits / np.maximum(answered + wanted.sum() + more.sum(), 1)
        best = min(np.flatnonzero(f1 >= f1.max() - 1e-12),
                   key=lambda place: abs(_TRIED[place] - 0.5))
        return dataclasses.replace(self, threshold=_TRIED[best])

    def fitted_quality(self, outputs: np.ndarray, targets: Sequence
                       ) -> dict[str, float]:
        """`quality`, each example by the threshold that the four other folds choose."""
        outputs, rows = np.asarray(outputs, np.float64), np.asarray(targets)
        check_same_number(outputs, rows)
        folds = np.random.default_rng(_SEED).permutation(len(rows)) % _FOLDS
        moved = outputs.copy()
        for fold in range(_FOLDS):
            own = folds == fold
            if own.any() and not own.all():
                chosen = self.fitted(outputs[~own], rows[~own])
                moved[own] += self.cut - chosen.cut  # as if by the task's own
        return self.quality(moved, targets)

    def signals(self, outputs: np.ndarray) -> list[Signals]:
        """What is watched of each answer.

        Args:
            outputs: logits <float>[N, C].

        Returns:
            N times the probability of what is answered of the least sure label, the
            mean of the labels' entropies, and the labels.
        """
        outputs = np.asarray(outputs, np.float64)
        answered = outputs >= self.cut
        probabilities = _sigmoid(outputs)
        sure = np.where(answered, probabilities, 1 - probabilities).min(axis=1)
        # H = log(1 + e^-|x|) + |x| / (1 + e^|x|)
        size = np.minimum(np.abs(outputs), 700.0)
        entropies = (np.log1p(np.exp(-size)) + size / (1 + np.exp(size))).mean(axis=1)
        return [Signals(float(one), float(entropy), tuple(
            self.labels[i] for i in np.flatnonzero(row)))
            for one, entropy, row in zip(sure, entropies, answered, strict=True)]

    def decode(self, outputs: np.ndarray, encoded: Any = None) -> list[dict[str, Any]]:
        """The labels from the threshold on, and the probability of each, highest first.

        Args:
            outputs: logits <float>[N, C].
            encoded: not looked at.

        Returns:
            {"labels": list of words, "scores": label -> probability} of each.

        Raises:
            ValueError: there are not C outputs.
        """
        outputs = np.asarray(outputs, np.float64)
        figures.check_width(outputs, self.labels, "labels")
        return [{"labels": [self.labels[i] for i in row.argsort()[::-1]
                            if row[i] >= self.cut],
                 "scores": {self.labels[i]: float(scores[i])
                            for i in row.argsort()[::-1]}}
                for row, scores in zip(outputs, _sigmoid(outputs), strict=True)]

    def _compared(self, outputs: np.ndarray, targets: Sequence
                  ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Answered and wanted <bool>[N, C], and labels that the task lacks <int>[N]."""
        outputs, rows = np.asarray(outputs), np.asarray(targets)
        check_same_number(outputs, rows)
        return outputs >= self.cut, rows[:, :-1] > 0, np.maximum(rows[:, -1], 0)


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))
