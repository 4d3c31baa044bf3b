"""What several tasks have in common: figures of counts, labels, probabilities.

NumPy alone.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfopt.types import is_one_line, shown


def of_counts(hits: float, answered: float, wanted: float) -> dict[str, float]:
    """The figures of a class, or of all together.

    Args:
        hits: answers that are right.
        answered: answers.
        wanted: that should have been.

    Returns:
        {precision, recall, f1: fractions in [0, 1], support}: how many of the answers
        are right, how many of the wanted are found, their harmonic mean 2 hits /
        (answered + wanted), and how many are wanted; 0 where there is nothing to
        divide by.
    """
    precision, recall, f1 = (
        float(part / whole) if whole else 0.0 for part, whole in (
            (hits, answered), (hits, wanted), (2 * hits, answered + wanted)))
    return {"precision": precision, "recall": recall, "f1": f1,
            "support": float(wanted)}


def check_labels(labels: Sequence[str], what: str) -> None:
    """Checks that a label list can hold labels, before they are trained on.

    Args:
        labels: of a task.
        what: how an error calls it, such as "A classification".

    Raises:
        ValueError: one is empty, of several lines, or named twice.
    """
    wrong = [label for label in labels if not is_one_line(label)]
    wrong += [label for label, count in collections.Counter(labels).items()
              if count > 1]
    if wrong:
        raise ValueError(f"{what}'s labels must be words of one line, each once. "
                         f"Received: {shown(wrong[0])} among {len(labels)} labels")


def check_width(outputs: np.ndarray, labels: Sequence[str], what: str = "classes"
                ) -> None:
    """Checks that there is a label for each output of a model.

    Args:
        outputs: <float>[..., C].
        labels: of a task.
        what: how an error calls what they are of.

    Raises:
        ValueError: there are not C labels.
    """
    if outputs.shape[-1] != len(labels):
        raise ValueError(f"The label list must have the model's {outputs.shape[-1]} "
                         f"{what}. Received: {len(labels)} labels")


def in_known_order(found: Sequence[str], known: Sequence[str] | None
                   ) -> tuple[str, ...]:
    """Labels of a train set, or a checkpoint's own, where these hold all of them.

    Args:
        found: labels of the train set, in the order that they have by themselves.
        known: of the checkpoint, in the order of its outputs; or None.
    """
    return tuple(known if known and set(found) <= set(known) else found)


def numbered(labels: Sequence[str]) -> dict[str, int]:
    """Label -> its number."""
    return {label: number for number, label in enumerate(labels)}


def numbers_of(corpus: Any, what: str) -> list[float]:
    """The labels of a corpus as numbers.

    Args:
        corpus: a `data.Corpus`.
        what: how an error calls one, such as "a score".

    Raises:
        ValueError: one is no finite number; names file and line.
    """
    found = []
    for label, line in zip(corpus.labels, corpus.lines, strict=True):
        try:
            found.append(float(label))
        except ValueError:
            found.append(math.nan)
        if not math.isfinite(found[-1]):
            raise ValueError(f"{corpus.path}:{line}: {what} must be a finite number. "
                             f"Received: {shown(label)}")
    return found


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits <float>[..., C], over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)
