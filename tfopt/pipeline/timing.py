"""Artifacts -> times of requests, and what to say of them. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfopt import data, report
from tfopt.measure import latency

_WIDE = 0.2  # spread of medians above which the report speaks of it
SMOKE: dict[str, Any] = {"rounds": 1, "texts": 8}  # of what is timed, in a trial


def times(artifacts: Mapping[str, Path], encoded: data.Encoded, *, num_threads: int,
          max_tokens: int, smoke: bool) -> dict[str, dict[str, float]]:
    """Times artifacts in turn; a trial takes a few texts."""
    return latency.measure(artifacts, encoded.ids, encoded.first_lengths,
                           num_threads=num_threads, max_tokens=max_tokens,
                           **(SMOKE if smoke else {}))


def on_the_spread(rows: Sequence[report.Row]) -> list[str]:
    """What a reader of the times must know where they were not steady."""
    wide = {row.artifact: row.value for row in rows
            if row.metric == "latency_spread" and row.value > _WIDE}
    if not wide:
        return []
    worst = max(wide, key=lambda name: wide[name])
    return ["The machine had other work, or changed its pace, while artifacts were "
            f"timed: medians of single rounds differ by up to {wide[worst]:.0%} "
            f"({worst}). Times are as far off, ratios of them less: all were timed in "
            "turn."]
