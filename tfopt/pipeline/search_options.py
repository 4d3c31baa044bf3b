"""What a search can be told beside its job: goals, space, budgets, sampler."""

from __future__ import annotations

import dataclasses

from tfopt.pipeline.option import Options, option
from tfopt.types import PathLike

SAMPLERS = ("tpe", "nsga2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchOptions(Options):
    """What is searched for, among what, and for how long."""

    goals: tuple[str, ...] = option(
        (), "Metrics of the report that are to be good at once, such as "
        "accuracy,latency_p50_ms,file_bytes (each has its direction). Left out: the "
        "task's own metric, latency_p50_ms and file_bytes.")
    space: PathLike | None = option(
        None, "A JSON file that says what trials differ in (docs/search.md). Left out: "
        "recipes with and without a teacher at speedups from 1.25 to 4, with their "
        "epochs, rates and weights.")
    trials: int = option(
        12, "Trials in all, those of a killed search and of other processes on the "
        "same --out_dir counted in.", at_least=1)
    minutes: float | None = option(
        None, "After so many minutes of this process no trial is begun.", at_least=0.0)
    sampler: str = option(
        "tpe", "What chooses the next trial: tpe (multivariate, for few trials), or "
        "nsga2 (for hundreds).", choices=SAMPLERS)
