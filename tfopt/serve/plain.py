"""`POST /predict`: texts in, answers out, for people with curl.

    {"texts": ["where is my parcel?"]}
    {"answers": [{"label": "track_order", "score": 0.98, "scores": {...},
                  "variant": "1x"}], "model": "demo", "milliseconds": 1.9}

`pairs`, `model`, `variant` and `deadline_ms` may stand beside `texts`.
"""

from __future__ import annotations

from typing import Any

from tfopt.files import to_json
from tfopt.serve import calls
from tfopt.serve.calls import Call
from tfopt.serve.request import Request

KEYS = ("texts", "pairs", "model", "variant", "deadline_ms")


def parse(fields: dict[str, Any]) -> tuple[str | None, Call]:
    """Reads a body.

    Args:
        fields: of its JSON object.

    Returns:
        The model's name, None for the only one; and the call.

    Raises:
        Refusal: 400, a field is not as it should be.
    """
    calls.check_keys(fields, KEYS, "A request")
    texts = calls.texts_of(fields.get("texts"), "texts")
    pairs = None
    if fields.get("pairs") is not None:
        pairs = calls.texts_of(fields["pairs"], "pairs")
        calls.same_number(texts, pairs)
    return calls.word_of(fields, "model"), Call(
        texts=texts, pairs=pairs, deadline_ms=calls.deadline_of(fields),
        variant=calls.word_of(fields, "variant"), render=render)


def render(request: Request, seconds: float) -> str:
    """The body of the answer."""
    return to_json({
        "answers": [{**answer.fields, "variant": answer.variant.name}
                    for answer in request.given()],
        "model": request.model.name, "milliseconds": round(1e3 * seconds, 3)},
        ensure_ascii=False)
