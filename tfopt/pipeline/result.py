"""What a job has left: its directory, figures, and sentences on its targets."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

from tfopt import report
from tfopt.pipeline import publishing
from tfopt.serve.bundle import Bundle
from tfopt.serve.ladder import Ladder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a job has left.

    Attributes:
        out_dir: its directory: a bundle, or that of a ladder.
        rows: all figures of the report.
        notes: what a reader of them must know.
        missed: a sentence for each target that was missed.
        reached: a sentence for each that was met, and on the speed gained.
        scheme: the export that `model.tflite` is of.
        ladder: the bundles, where the job was to make several.
    """

    out_dir: Path
    rows: list[report.Row]
    notes: list[str]
    missed: list[str]
    reached: list[str]
    scheme: str
    ladder: Ladder | None = None

    @property
    def met(self) -> bool:
        """Whether every target was met, or there was none."""
        return not self.missed

    @property
    def report(self) -> str:
        """The report, as Markdown."""
        return (self.out_dir / publishing.REPORT).read_text(encoding="utf-8")

    @functools.cached_property
    def bundle(self) -> Bundle:
        """The model with its tokenizer and labels, opened when it is asked for.

        Of a ladder it is the most accurate rung's.
        """
        if self.ladder is not None:
            return Bundle.open(self.ladder.path(self.ladder.best))
        return Bundle.open(self.out_dir)
