"""An answer -> the line of JSON that `tfopt predict` gives for a text."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from tfopt.files import to_json

_DIGITS = 4  # of a probability


def fields_of(text: str, pair: str | None, answer: Mapping[str, Any], top_k: int
              ) -> dict[str, Any]:
    """What was asked, with its answer.

    Args:
        text: that was asked.
        pair: the second one, or None.
        answer: of the task, or {"error": why there is none}.
        top_k: classes that are named, the likeliest first.
    """
    named = dict(answer)
    if isinstance(named.get("scores"), dict):  # of many classes only these are rounded
        named["scores"] = dict(itertools.islice(named["scores"].items(), top_k))
    return ({"text": text} | ({} if pair is None else {"pair": pair})
            | {name: _rounded(part) for name, part in named.items()})


def line_of(fields: Mapping[str, Any], encoding: str = "utf-8") -> str:
    """One line, its letters as they are where an encoding can hold them."""
    line = to_json(fields, ensure_ascii=False)
    try:
        line.encode(encoding)
    except UnicodeEncodeError:
        return to_json(fields)
    return line


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list):  # a vector's numbers stay as they are
        return [part if isinstance(part, float) else _rounded(part) for part in value]
    return round(value, _DIGITS) if isinstance(value, float) else value
