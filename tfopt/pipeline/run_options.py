"""What a whole run can be told beside its fine-tuning: directory, recipe, baseline."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tfopt.pipeline import recipes
from tfopt.pipeline.option import Options, option
from tfopt.types import PathLike

if TYPE_CHECKING:
    from tfopt import compress

_MOST_SPEED = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions(Options):
    """Where a run leaves its results, by which recipe, from which model."""

    out_dir: PathLike = option(
        "runs/compress", "Directory for all results. A run that was killed goes on "
        "with the same command.")
    recipe: PathLike | compress.Recipe = option(
        "int8", "A recipe's file, or the name of one that comes along: "
        f"{', '.join(recipes.names())}.")
    baseline: PathLike | None = option(
        None, "A fine-tuned model, as `finetune` leaves it. Left out: it is fine-tuned "
        "first.", flag="baseline_dir")
    ladder: tuple[float | str, ...] = option(
        (), "Speedups, such as 1,2,3,5: makes a bundle for each from one baseline, "
        "below --out_dir, and ladder.json of those that no other one beats. 1 is the "
        "recipe without its pass structured.")
    cascade_max_drop: float = option(
        0.003, "How much of the task's metric, in its own unit, a cascade of a "
        "ladder's rungs may lose against the best one alone; which rung answers first, "
        "and its threshold, are chosen on dev.", at_least=0.0)

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: a value is out of its range, or a ladder is of no speedups.
        """
        super().__post_init__()
        self.speeds  # noqa: B018

    @property
    def speeds(self) -> tuple[float, ...]:
        """The speedups of the ladder, ascending; none without one.

        Raises:
            ValueError: one is no number from 1, or they are not two or more.
        """
        try:
            found = sorted({float(speed) for speed in self.ladder})
        except ValueError:
            found = []
        if self.ladder and (len(found) < max(2, len(self.ladder)) or not all(
                1 <= speed < _MOST_SPEED for speed in found)):
            raise ValueError(
                "--ladder must be two speedups or more, each once and from 1, such as "
                f"1,2,3,5. Received: --ladder={','.join(map(str, self.ladder))[:200]}")
        return tuple(found)
