"""Counts of right and wrong answers -> precision, recall and F1, and checks of labels.

What several tasks have in common. NumPy alone.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence

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
