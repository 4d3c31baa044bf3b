"""What the report says of times that were not steady."""

from __future__ import annotations

from tfopt import report
from tfopt.pipeline import timing


def rows(**spreads):
    return [row for name, spread in spreads.items() for row in report.rows(
        name, {"latency_spread": spread, "latency_p50_ms": 9.0})]


def test_steady_times_need_no_word():
    assert timing.on_the_spread(rows(a=0.05, b=0.1)) == []
    assert timing.on_the_spread([]) == []


def test_a_busy_machine_is_told_of_by_the_worst_artifact():
    said, = timing.on_the_spread(rows(a=0.05, b=0.4, c=0.3))
    assert "other work" in said and "up to 40% (b)" in said
