"""What a task may say beside what it must; each has the answer that fits most tasks.

`Task` has all of it. What is asked here is asked by few: which files are read how, what
a baseline is for, and answers that are vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from tfopt.report import Metric

if TYPE_CHECKING:
    from pathlib import Path


class TaskDefaults:
    """Questions with an answer of their own.

    Class attributes:
        needs_labels: whether a file must have labels; else a teacher's outputs can be
            all that is learned, and the score of a pair is the one label that there is.
        apart: whether the texts of a pair are read each by itself, as two examples next
            to each other.
        compared: what `agreement` gives.
        client_scores: what makes a client's scores of outputs: "softmax" or "sigmoid"
            of labels, "" of a vector, which stays as it is; None where MediaPipe has no
            client for the task.
    """

    needs_labels: ClassVar[bool] = True
    apart: ClassVar[bool] = False
    client_scores: ClassVar[str | None] = None
    compared: ClassVar[tuple[Metric, ...]] = ()

    @property
    def learns_from_labels(self) -> bool:
        """Whether the train set has something to learn from without a teacher."""
        return True

    def of(self, dev: Any, checkpoint: Path | None = None) -> Self:
        """The task as dev and a checkpoint have it.

        Args:
            dev: a `data.Corpus`, by which it will be judged.
            checkpoint: directory of the model to start from; None for none.
        """
        return self

    def giving(self, outputs: int) -> Self:
        """The task of a model that gives so many numbers."""
        return self

    def agreement(self, outputs: np.ndarray, reference: np.ndarray
                  ) -> dict[str, float]:
        """How near outputs are to the baseline's.

        Args:
            outputs: <float>[N, outputs].
            reference: of the baseline, for the same examples.

        Returns:
            Name -> value, of all `compared`.
        """
        return {}

    def vectors(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs as vectors of texts, <float32>[N, D].

        Raises:
            ValueError: the task gives none.
        """
        raise ValueError("Vectors of texts are given by a model of the task embedding. "
                         f"Received: one of {type(self).__name__}")

    def decode_pairs(self, outputs: np.ndarray, others: np.ndarray
                     ) -> list[dict[str, Any]]:
        """Answers to pairs of texts that are read `apart`.

        Args:
            outputs: of the first texts, <float>[N, outputs].
            others: of the second ones.

        Returns:
            A JSON object for each of N pairs.

        Raises:
            ValueError: the task reads a pair as one example.
        """
        raise ValueError("A task that reads the texts of a pair together has no answer "
                         f"to both apart. Received: one of {type(self).__name__}")
