"""Classification: a text, or a pair, -> one of C classes.

Cross-entropy of the softmax of C outputs; accuracy, and F1 averaged over classes.
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
from tfopt.types import few, shown

if TYPE_CHECKING:
    from tfopt.train.objective import Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """One class of C for each example.

    Attributes:
        labels: C label words by class number; may be left out where only losses are
            asked for.
    """

    monitor = ("accuracy", "higher")
    no_target = -1
    metrics = (Metric("accuracy", "fraction", "higher"),
               Metric("macro_f1", "fraction", "higher"))
    no_cascade = ""
    client_scores = "softmax"
    pipeline_tag = "text-classification"

    def __post_init__(self):
        """Checks that a label list can hold the labels, before they are trained on.

        Raises:
            ValueError: one is empty, of several lines, or named twice.
        """
        figures.check_labels(self.labels, "A classification")

    @classmethod
    def from_corpus(cls, corpus: Any, known_labels: Sequence[str] | None = None
                    ) -> Classification:
        """The labels of a train set; in the checkpoint's own order where it has them.

        Args:
            corpus: a `data.Corpus`.
            known_labels: of the checkpoint, in the order of its classes; or None.

        Raises:
            ValueError: there are not two labels, or they are numbers with fractions,
                which are no classes.
        """
        found = corpus.label_list()
        if len(found) < 2:
            raise ValueError(
                f"{corpus.path}: a classification needs examples of two labels or more."
                f" Received: {len(corpus)} examples of {shown(found[0])}")
        if any(_fraction(label) for label in found) and all(
                _fraction(label) is not None for label in found):
            raise ValueError(
                f"{corpus.path}: labels that are numbers with fractions are learned by "
                "the task regression; as names of classes they need a letter, as in "
                f"v3.8. Received: {few(found)}")
        return cls(labels=figures.in_known_order(found, known_labels))

    @property
    def outputs(self) -> int:
        """C."""
        return len(self.labels)

    def targets(self, corpus: Any) -> list[int]:
        """The class number of every example.

        Raises:
            ValueError: a label is not among the task's; names file and line.
        """
        return corpus.class_ids(self.labels)

    def evaluation_targets(self, corpus: Any) -> list[int]:
        """The class number of every example, -1 of a label that the task lacks."""
        numbers = figures.numbered(self.labels)
        return [numbers.get(label, self.no_target) for label in corpus.labels]

    def objective(self) -> Objective:
        """Cross-entropy with accuracy."""
        from tfopt.train import objective

        return objective.cross_entropy()

    def guess(self, outputs: Any) -> Any:
        """The likeliest class <int32>[B]."""
        from tfopt.backend import tf

        return tf.argmax(outputs, 1, tf.int32)

    def quality(self, outputs: np.ndarray, targets: Sequence[int]) -> dict[str, float]:
        """Accuracy and macro-averaged F1.

        Args:
            outputs: logits <float>[N, C].
            targets: class numbers <int>[N]; below 0, a label that is not among the
                task's: whatever is answered is wrong.

        Returns:
            {accuracy, macro_f1}, fractions in [0, 1]. Macro F1 is the mean over the
            task's classes that occur among targets or predictions; F1 = 2 TP / (2 TP +
            FP + FN).

        Raises:
            ValueError: the numbers of examples differ, or there are none.
        """
        outputs, classes = np.asarray(outputs), np.asarray(targets)
        check_same_number(outputs, classes)
        predicted = outputs.argmax(axis=-1)
        scores = []
        for label in np.union1d(classes[classes >= 0], predicted):
            hits = np.sum((predicted == label) & (classes == label))
            scores.append(2 * hits / (np.sum(predicted == label)
                                      + np.sum(classes == label)))
        return {"accuracy": float(np.mean(predicted == classes)),
                "macro_f1": float(np.mean(scores))}

    def by_class(self, outputs: np.ndarray, targets: Sequence[int]
                 ) -> dict[str, dict[str, float]]:
        """How right the answers are of each class.

        Args:
            outputs: logits <float>[N, C].
            targets: class numbers <int>[N].

        Returns:
            Label -> {precision, recall, f1: fractions in [0, 1], support}: how many of
            the answers that name the class are right, how many of its examples are
            found, their harmonic mean, and how many examples it has; 0 where there is
            nothing to divide by.

        Raises:
            ValueError: the numbers of examples differ, or there are none.
        """
        outputs, classes = np.asarray(outputs), np.asarray(targets)
        check_same_number(outputs, classes)
        predicted, found = outputs.argmax(axis=-1), {}
        for number, label in enumerate(self.labels):
            answered, support = predicted == number, classes == number
            found[label] = figures.of_counts(
                np.sum(answered & support), answered.sum(), support.sum())
        return found

    def signals(self, outputs: np.ndarray) -> list[Signals]:
        """The highest probability, the entropy of all, and the label of each answer.

        Args:
            outputs: logits <float>[N, C].
        """
        outputs = np.asarray(outputs, np.float64)
        shifted = outputs - outputs.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))  # [N, C]
        entropies = -(np.exp(logs) * logs).sum(axis=1)
        return [Signals(float(np.exp(row.max())), max(0.0, float(entropy)),
                        self.labels[int(row.argmax())])
                for row, entropy in zip(logs, entropies, strict=True)]

    def decode(self, outputs: np.ndarray, encoded: Any = None) -> list[dict[str, Any]]:
        """The likeliest label, and the probability of each, the highest first.

        Args:
            outputs: logits <float>[N, C].
            encoded: not looked at.

        Returns:
            {"label", "score", "scores": label -> probability} of each.

        Raises:
            ValueError: there are not C outputs.
        """
        outputs = np.asarray(outputs)
        figures.check_width(outputs, self.labels)
        answers = []
        for row in figures.softmax(outputs):
            scores = {self.labels[i]: float(row[i]) for i in row.argsort()[::-1]}
            label, score = next(iter(scores.items()))
            answers.append({"label": label, "score": score, "scores": scores})
        return answers


def _fraction(label: str) -> float | None:
    """What a number has behind its point; None for a word."""
    try:
        value = float(label)
    except ValueError:
        return None
    return value % 1 if math.isfinite(value) else None
