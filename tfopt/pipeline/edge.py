"""Exports that clients on phones and in browsers open: which may, and which cannot."""

from __future__ import annotations

import dataclasses

from tfopt import tasks
from tfopt.data.bert_alike import why_no_bert
from tfopt.data.tokenizer import Tokenizer
from tfopt.export import mediapipe
from tfopt.pipeline.dataset import Dataset
from tfopt.pipeline.fine_tuning import FineTuning


@dataclasses.dataclass(kw_only=True)
class Clients:
    """Finishes exports for MediaPipe's clients, and says which it could not.

    Attributes:
        task: what the outputs mean.
        tokenizer: of the ids that the model reads.
        pairs: whether it reads two texts.
        wanted: whether exports are to be finished at all.
        reasons: why not -> the exports that are not.
    """

    task: tasks.Task
    tokenizer: Tokenizer
    pairs: bool = False
    wanted: bool = True
    reasons: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, tuning: FineTuning, dataset: Dataset) -> Clients:
        """The clients of a run's exports."""
        return cls(task=dataset.task, tokenizer=dataset.tokenizer,
                   pairs=tuning.data.text_pair_column is not None,
                   wanted=tuning.exports.metadata)

    def finished(self, scheme: str, contents: bytes) -> bytes:
        """An export with what clients need; as it was where it cannot have it.

        Args:
            scheme: of the export, for the notes.
            contents: the `.tflite`.
        """
        if not self.wanted:
            return contents
        reason, scores = self.why_not(), self.task.client_scores
        try:
            if reason is None:
                return mediapipe.add(
                    contents, vocabulary=self.tokenizer.words,
                    labels=self.task.labels if scores else (),
                    scores=scores or "softmax")
        except mediapipe.Unfit as error:
            reason = error.reason
        self.reasons.setdefault(reason, []).append(scheme)
        return contents

    def why_not(self) -> str | None:
        """Why no export of these can have what clients need; None where one can."""
        if self.task.client_scores is None:
            return f"they have none for the task {self.task.name()!r}"
        if self.pairs and not self.task.apart:
            return "they read one text, not two"
        return why_no_bert(self.tokenizer)

    def notes(self) -> list[str]:
        """A sentence for each reason."""
        return [f"{', '.join(schemes)}: without metadata for MediaPipe's clients: "
                f"{reason}." for reason, schemes in self.reasons.items()]
