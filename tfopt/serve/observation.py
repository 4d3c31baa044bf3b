"""An answer -> the numbers that are watched of it: never its text.

`Reference` keeps those of dev, `Monitor` and the request log those of service; both are
made by `observe`, so that they mean the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfopt.tasks import Task

NO_LABEL = "(none)"


@dataclasses.dataclass(frozen=True, slots=True)
class Observation:
    """What is watched of an answer.

    Attributes:
        confidence: the probability of what is answered, in (0, 1], as the task has it
            (`Task.signals`); None for a task without classes.
        entropy: of the probabilities, in nats; None likewise.
        tokens: of the text, special ones included.
        unknown: how many of these the vocabulary cannot spell.
        truncated: whether the text was cut.
        label: the answer's; of a task whose answers have several, or none, a tuple;
            None for a task without classes.
    """

    confidence: float | None
    entropy: float | None
    tokens: int
    unknown: int
    truncated: bool = False
    label: str | tuple[str, ...] | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """The labels to count the answer by; `NO_LABEL` where it has none of several.

        Nothing for a task without classes.
        """
        if self.label is None or isinstance(self.label, str):
            return () if self.label is None else (self.label,)
        return self.label or (NO_LABEL,)


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
    return [Observation(seen.confidence, seen.entropy, tokens, unknown, bool(was_cut),
                        seen.label)
            for seen, (tokens, unknown), was_cut in zip(
                task.signals(outputs), sizes, cut, strict=True)]
