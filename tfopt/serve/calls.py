"""The body of a request -> what is asked, whichever protocol it is in.

Here is what the protocols share: the record of a call, and the checks of its parts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from tfopt.files import parse_json
from tfopt.serve.models import Model
from tfopt.serve.refusal import Refusal
from tfopt.serve.request import Request
from tfopt.types import few, shown

_LONGEST_MS = 3_600_000.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a client asks of a model.

    Attributes:
        texts: N texts; empty where there are ids.
        pairs: N second texts, or None.
        ids: N texts as (ids, ids of the first segment), instead of `texts`.
        deadline_ms: None for the service's.
        variant: name of the one that must answer; None for any.
        render: gives the body of the answer, of the finished request and seconds since
            its arrival.
    """

    texts: Sequence[str] = ()
    pairs: Sequence[str] | None = None
    ids: Sequence[tuple[list[int], int]] = ()
    deadline_ms: float | None = None
    variant: str | None = None
    render: Callable[[Request, float], str]

    def request(self, model: Model, done: Callable[[], None], deadline_ms: float,
                max_letters: int) -> Request:
        """The call as the scheduler takes it.

        Args:
            model: answers.
            done: as of `Request`.
            deadline_ms: where the call has none.
            max_letters: of a text.

        Raises:
            Refusal: 404, the model has no such variant; 413, a text is too long; 400,
                ids are given where variants read different ones.
        """
        for text in (*self.texts, *(self.pairs or ())):
            if len(text) > max_letters:
                raise Refusal(413, f"A text may have {max_letters:,} letters. Received:"
                              f" {len(text):,}", "too_large")
        if self.pairs is not None and model.task.apart:
            raise Refusal(400, "Pairs are of models that read two texts together; of "
                          "vectors, ask for each text. Received: pairs for "
                          f"{model.name}")
        chosen = None
        if self.variant is not None:
            chosen = model.variant(self.variant)
            if chosen is None:
                raise Refusal(404, "A variant must be one of the model's: "
                              f"{few([one.name for one in model.variants])}. Received: "
                              f"{shown(self.variant, 60)}", "unknown")
        if self.ids:
            self._check_ids(model, None if chosen is None else chosen.name)
        return Request(
            model=model, done=done, texts=self.texts, pairs=self.pairs, ids=self.ids,
            variant=chosen, deadline_s=(self.deadline_ms or deadline_ms) / 1e3)

    def _check_ids(self, model: Model, variant: str | None) -> None:
        bundle = (model.variant(variant) or model.variants[0] if variant
                  else model.variants[0]).bundle
        if variant is None and any(one.bundle.tokenizer is not bundle.tokenizer
                                   for one in model.variants):
            raise Refusal(400, "Ids need the name of a variant where variants read "
                          f"different ones. Received: none for {model.name}")
        if bundle.task.per_token:
            raise Refusal(400, "Answers that name places need the text itself. "
                          f"Received: ids for {model.name}, of the task "
                          f"{bundle.task.name()}")
        most, words = bundle.max_length, bundle.tokenizer.vocab_size
        for ids, _ in self.ids:
            if len(ids) > most:
                raise Refusal(400, f"The model reads {most} ids of a text. Received: "
                              f"{len(ids)}")
            if not (0 <= min(ids) and max(ids) < words):
                raise Refusal(400, f"Ids must be in [0, {words}). Received: "
                              f"{min(ids)} to {max(ids)}")


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a body.

    Raises:
        Refusal: 400, it is none.
    """
    try:
        return parse_json(body, "the body", "A request must be a JSON object in UTF-8")
    except ValueError as error:
        raise Refusal(400, str(error)) from error


def check_keys(fields: dict[str, Any], known: Sequence[str], what: str) -> None:
    """Refuses, by 400, names that are not known: they may be typing errors."""
    unknown = set(fields) - {*known}
    if unknown:
        raise Refusal(400, f"{what} may have {', '.join(known)}. Received: "
                      f"{shown(min(unknown), 60)}")


def texts_of(value: Any, name: str) -> list[str]:
    """A list of one text or more.

    Raises:
        Refusal: 400, it is another thing.
    """
    if (not isinstance(value, list) or not value
            or not all(isinstance(text, str) for text in value)):
        raise Refusal(400, f"`{name}` must be a list of one text or more. Received: "
                      f"{name}={shown(value)}")
    return value


def same_number(texts: Sequence[Any], pairs: Sequence[Any] | None) -> None:
    """Refuses, by 400, pairs that are more or fewer than the texts."""
    if pairs is not None and len(pairs) != len(texts):
        raise Refusal(400, "There must be as many pairs as texts. Received: "
                      f"{len(texts)} texts, {len(pairs)} pairs")


def deadline_of(fields: dict[str, Any]) -> float | None:
    """`deadline_ms` of an object; None where it has none.

    Raises:
        Refusal: 400, it is no number of milliseconds above 0.
    """
    value = fields.get("deadline_ms")
    if value is None:
        return None
    if (isinstance(value, bool) or not isinstance(value, int | float)
            or not 0 < value <= _LONGEST_MS):  # no NaN is, nor a number of 400 digits
        raise Refusal(400, "`deadline_ms` must be a number above 0, and at most "
                      f"{_LONGEST_MS:,.0f}. Received: deadline_ms={shown(value)}")
    return float(value)


def word_of(fields: dict[str, Any], name: str) -> str | None:
    """A text of an object; None where it has none.

    Raises:
        Refusal: 400, it is another thing.
    """
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise Refusal(400, f"`{name}` must be a text. Received: {name}={shown(value)}")
    return value
