"""What a service answers instead of an answer: a status and one sentence.

Refusals of a request are raised where the fault is found, and turned to HTTP here.
"""

from __future__ import annotations

from absl import logging

from tfopt.files import to_json


class Refusal(ValueError):
    """A request that gets no answer.

    Args:
        status: HTTP status, such as 400.
        sentence: says the rule, then what was received.
        reason: by which refusals are counted: one word.
        retry_after_s: seconds after which asking again may help; None where it does
            not.
    """

    def __init__(self, status: int, sentence: str, reason: str = "malformed",
                 retry_after_s: int | None = None):
        super().__init__(sentence)
        self.status, self.reason = status, reason
        self.retry_after_s = retry_after_s


def of(error: Exception) -> Refusal:
    """What a client is told of an error; what is no fault of its own is logged."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, ValueError):  # of a text, or ids, that the model refuses
        return Refusal(400, str(error))
    logging.error("A request failed", exc_info=error)
    return Refusal(500, "The service must answer each request. Received: "
                   f"{type(error).__name__}, which its log has in full", "failed")


def body(refusal: Refusal) -> bytes:
    """The answer's body, as JSON."""
    return to_json({"error": str(refusal)}).encode()


def headers(refusal: Refusal) -> list[tuple[bytes, bytes]]:
    """The answer's headers beside those of its body."""
    return ([] if refusal.retry_after_s is None
            else [(b"retry-after", b"%d" % refusal.retry_after_s)])
