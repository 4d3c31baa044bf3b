"""What is asked of a model at once, and what each of its texts got."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfopt.serve.estimates import bucket_of, guessed_tokens
from tfopt.serve.models import Model, Variant


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What one text got.

    Attributes:
        variant: that answered.
        outputs: <float32>[outputs], or [T, outputs] of a task of tokens.
        fields: the task's answer.
        ids: that were read.
        truncated: whether the text was cut.
        queue_s: seconds until a worker took it.
        computed_s: seconds that its variant took, and in a cascade the first one.
    """

    variant: Variant
    outputs: np.ndarray
    fields: dict[str, Any]
    ids: list[int]
    truncated: bool
    queue_s: float
    computed_s: float


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class Request:
    """Texts that are to be answered together.

    Attributes:
        model: answers; held until all is done.
        texts: N texts; empty where there are ids.
        pairs: N second texts, or None.
        ids: N texts as (ids, ids of the first segment), instead of `texts`.
        variant: that must answer; None leaves it to the scheduler.
        deadline_s: seconds from its arrival.
        done: is called once, by whichever thread is the last.
        arrived: when it did.
        answers: N, each there once `done` was called, unless `error` is.
        error: why there is no answer.
    """

    model: Model
    done: Callable[[], None]
    deadline_s: float
    texts: Sequence[str] = ()
    pairs: Sequence[str] | None = None
    ids: Sequence[tuple[list[int], int]] = ()
    variant: Variant | None = None
    arrived: float = dataclasses.field(default_factory=time.perf_counter)
    answers: list[Answer | None] = dataclasses.field(default_factory=list)
    error: Exception | None = None
    left: int = 0

    def __len__(self) -> int:
        """N."""
        return len(self.texts) or len(self.ids)

    @property
    def first_variant(self) -> Variant:
        """The variant as which its texts are read at first."""
        return self.variant or self.model.variants[0]

    def given(self) -> list[Answer]:
        """The answers of a request that is done, and has no error."""
        return [answer for answer in self.answers if answer is not None]

    def expected_s(self, now: float) -> list[float]:
        """Seconds that each text takes, of the fastest variant that may answer it."""
        variant = self.variant or self.model.variants[-1]
        most = variant.bundle.max_length
        if self.ids:
            tokens = [len(ids) for ids, _ in self.ids]
        else:
            tokens = [guessed_tokens(len(text), most) for text in self.texts]
            if self.pairs:
                tokens = [min(most, count + guessed_tokens(len(pair), most))
                          for count, pair in zip(tokens, self.pairs, strict=True)]
        return [variant.times.value(bucket_of(count), now) for count in tokens]
