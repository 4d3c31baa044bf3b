"""How right a model is: predictions against labels."""

from __future__ import annotations

import numpy as np


def measure(logits: np.ndarray, class_ids: np.ndarray) -> dict[str, float]:
    """Accuracy and macro-averaged F1.

    Args:
        logits: <float>[N, C].
        class_ids: <int>[N].

    Returns:
        {accuracy, macro_f1}, fractions in [0, 1]. Macro F1 is the mean over the classes
        that occur among labels or predictions; F1 = 2 TP / (2 TP + FP + FN).

    Raises:
        ValueError: the numbers of examples differ, or there are none.
    """
    logits, class_ids = np.asarray(logits), np.asarray(class_ids)
    if len(logits) != len(class_ids) or not len(class_ids):
        raise ValueError("Logits and labels must be of the same examples. Received: "
                         f"{len(logits)} logits, {len(class_ids)} labels")
    predicted = logits.argmax(axis=-1)
    scores = []
    for label in np.union1d(class_ids, predicted):
        hits = np.sum((predicted == label) & (class_ids == label))
        scores.append(2 * hits / (np.sum(predicted == label)
                                  + np.sum(class_ids == label)))
    return {"accuracy": float(np.mean(predicted == class_ids)),
            "macro_f1": float(np.mean(scores))}
