"""What a whole run can be told beside its fine-tuning: directory, recipe, baseline."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tfopt.pipeline import recipes
from tfopt.pipeline.option import Options, option
from tfopt.types import PathLike

if TYPE_CHECKING:
    from tfopt import compress


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
