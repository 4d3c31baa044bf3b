"""An answer -> the numbers that are watched of it: never its text.

`Reference` keeps those of dev, `Monitor` and the request log those of service; both are
made by `observe`, so that they mean the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfopt.tasks import Task


@dataclasses.dataclass(frozen=True, slots=True)
class Observation:
    """What is watched of an answer.

    Attributes:
        confidence: the highest probability, in (0, 1]; None for a task without classes.
        entropy: of the probabilities, in nats; None likewise.
        tokens: of the text, special ones included.
        unknown: how many of these the vocabulary cannot spell.
        truncated: whether the text was cut.
        label: the answer's; None likewise.
    """

    confidence: float | None
    entropy: float | None
    tokens: int
    unknown: int
    truncated: bool = False
    label: str | None = None


def observe(task: Task, outputs: np.ndarray, ids: Sequence[Sequence[int]],
            unknown_id: int | None, truncated: Sequence[bool] | None = None
            ) -> list[Observation]:
    """Takes the numbers of N answers.

    Args:
        task: what outputs mean.
        outputs: <float>[N, outputs].
        ids: token ids of the N texts.
        unknown_id: the tokenizer's.
        truncated: of each, whether it was cut; None for none.

    Returns:
        N observations.
    """
    cut = [False] * len(ids) if truncated is None else truncated
    sizes = [(len(each), 0 if unknown_id is None else list(each).count(unknown_id))
             for each in ids]
    outputs = np.asarray(outputs, np.float64)
    if not (task.labels and outputs.ndim == 2 and outputs.shape[1] == len(task.labels)):
        return [Observation(None, None, tokens, unknown, bool(was_cut))
                for (tokens, unknown), was_cut in zip(sizes, cut, strict=True)]
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    sums = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    logs = shifted - sums  # <float>[N, C]
    entropies = -(np.exp(logs) * logs).sum(axis=1)
    return [Observation(float(np.exp(row.max())), max(0.0, float(entropy)), tokens,
                        unknown, bool(was_cut), task.labels[int(row.argmax())])
            for row, entropy, (tokens, unknown), was_cut in zip(
                logs, entropies, sizes, cut, strict=True)]
