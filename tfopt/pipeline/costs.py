"""Latency tables -> what blocks cost in time; targets of speed, and whether they hold.

    context = compress.Context(...,
        resources={"costs": costs(lengths, timer=StructureTimer(lengths))})

The tables are timed on this machine when a search first asks, or read from files; with
a timer, what a search found is held against it (`compress.structure.closed_loop`).
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from tfopt import compress, model, report
from tfopt.compress.costs import Costs, Measure
from tfopt.export.interpreter import thread_counts
from tfopt.files import write_whole
from tfopt.measure import table_file
from tfopt.measure.latency_table import TOKENS, LatencyTable
from tfopt.pipeline.options import Tables, Targets
from tfopt.types import PathLike

# How far a measured time may be above its target: the search's prediction is as good.
_TOLERANCE = 1.1
# By which factor a predicted speedup may be wrong without a word.
_OFF = 1.15
_TARGETS = ("target_speedup", "target_latency_ms")


def aimed(recipe: compress.Recipe, targets: Targets) -> compress.Recipe:
    """The recipe with a target of speed in the place of its own.

    Args:
        recipe: with one pass `structured`, where a target is given.
        targets: those of speed count.

    Raises:
        ValueError: both are named, or not one pass of the recipe has such a target.
    """
    return recipe.overriding({name: getattr(targets, name) for name in _TARGETS
                              if getattr(targets, name) is not None})


def costs(lengths: Sequence[int], *, num_threads: int = 2,
          tables: Sequence[PathLike] = (), as_is: bool = False,
          retimed: Path | None = None, timer: Measure | None = None,
          note: Callable[[str], object] | None = None,
          head: model.Head = model.Head()  # noqa: B008
          ) -> Callable[[model.EncoderConfig], Costs]:
    """What the blocks of an encoder take at texts of such lengths, in the int8 runtime.

    Each with the number of threads that is the fastest for it.

    Args:
        lengths: token counts.
        num_threads: most threads of a request.
        tables: files of latency tables, one for each number of threads that is tried,
            timed first if they are not there; none for files under ~/.cache/tfopt.
        as_is: takes the files as they are, whatever machine they were timed on.
        retimed: a file; until it is there, tables are timed anew, and then it is
            written. None takes the tables that there are.
        timer: what measures structures on this machine, such as a
            `measure.structures.StructureTimer`; None leaves it at predictions.
        note: is given sentences on the tables: their spread, another environment, how
            far they are off.
        head: of the models; which tokens it reads, and by which layers, counts, and not
            how many outputs it has, which take next to no time.

    Returns:
        Config -> its costs; the first one's sizes are the largest that it knows.

    Raises:
        ValueError: there are more or fewer tables than numbers of threads, one is to be
            taken as it is, and is not there, or a file is no table.
    """
    counts, paths = thread_counts(num_threads), [os.fspath(path) for path in tables]
    if paths and len(paths) != len(counts):
        raise ValueError(f"--latency_tables must be a file each for {counts} threads. "
                         f"Received: --latency_tables={','.join(paths)}")
    if as_is and not (paths and all(Path(path).is_file() for path in paths)):
        raise ValueError("--latency_tables_as_is needs the files of --latency_tables. "
                         f"Received: --latency_tables={','.join(paths)}")
    if retimed is None:
        for path in filter(Path.is_file, map(Path, paths)):
            table_file.read(path)  # a damaged one is found before any work
    files: dict[int, PathLike | None] = dict.fromkeys(counts)
    files.update(zip(counts, paths, strict=False))
    tables_of = _Tables(lengths=lengths, files=files, as_is=as_is, retimed=retimed,
                        note=note, head=head.with_outputs(
                            head.outputs and model.Head().outputs))
    measure = timer and _telling(timer, tables_of.predict, note)

    def of(config: model.EncoderConfig) -> Costs:
        tables_of.load(config)
        places = ["inner"] * (config.num_layers - 1) + ["last"]
        return Costs(
            heads=tables_of.blocks(LatencyTable.attention_ms, places, config.num_heads),
            neurons=tables_of.blocks(LatencyTable.ffn_ms, places,
                                     config.intermediate_sizes),
            whole=tables_of.predict, unit="ms", measure=measure)

    return of


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Tables:
    """The latency tables of a model, one for each number of threads."""

    lengths: Sequence[int]
    files: Mapping[int, PathLike | None]
    as_is: bool
    retimed: Path | None
    note: Callable[[str], object] | None
    head: model.Head
    loaded: list[LatencyTable] = dataclasses.field(default_factory=list)

    @property
    def tokens(self) -> tuple[int, ...]:
        """Token counts that a table must have."""
        if self.as_is:  # texts of these lengths are all that it must know
            return tuple(sorted({min(self.lengths), max(self.lengths)}))
        return TOKENS + tuple(range(TOKENS[-1] + 64, max(self.lengths) + 64, 64))

    def load(self, config: model.EncoderConfig) -> None:
        """Reads or times all of them; once."""
        if self.loaded:
            return
        retime = self.retimed is not None and not self.retimed.exists()
        with tempfile.TemporaryDirectory() as exports:
            for number, (count, path) in enumerate(self.files.items(), start=1):
                self.loaded.append(table_file.load(
                    config, path=path, tokens=self.tokens, num_threads=count,
                    as_is=self.as_is, note=self.note, retime=retime, exports=exports,
                    head=self.head,
                    title=f"Latency table {number} of {len(self.files)}"))
        if self.retimed is not None and retime:
            write_whole(self.retimed, "")

    def predict(self, config: model.EncoderConfig) -> float:
        """The median ms of a request, with the best number of threads."""
        return min(table.predict(config, self.lengths) for table in self.loaded)

    def blocks(self, times: Callable[[LatencyTable, str, Sequence[int]], np.ndarray],
               places: Sequence[str], sizes: Sequence[int]) -> tuple[np.ndarray, ...]:
        """Of each layer the ms of a block by its size, likewise."""
        return tuple(
            np.min([times(table, place, self.lengths) for table in self.loaded],
                   axis=0)[:size + 1]
            for place, size in zip(places, sizes, strict=True))


def _telling(timer: Measure, predicted: Callable[[model.EncoderConfig], float],
             note: Callable[[str], object] | None) -> Measure:
    """A timer that tells how far the tables are off, the first time they are."""
    told: list[str] = []

    def measure(whole: model.EncoderConfig, small: model.EncoderConfig
                ) -> tuple[float, float]:
        before, after = timer(whole, small)
        expected, found = predicted(whole) / predicted(small), before / after
        if not told and not 1 / _OFF < found / expected < _OFF:
            told.append(f"The latency tables predicted {expected:.2f}x where "
                        f"{found:.2f}x was measured, and the search corrected for it; "
                        "--retime times them anew.")
            logging.warning("%s", told[0])
            if note is not None:
                note(told[0])
        return before, after

    return measure


def verdict(recipe: compress.Recipe, rows: Sequence[report.Row], whole: Sequence[str],
            export: str, tables: Tables = Tables()  # noqa: B008
            ) -> tuple[list[str], bool]:
    """Holds the measured time against the target.

    Args:
        recipe: what was run.
        rows: of the report.
        whole: the name of the unpruned model's export, if there is one.
        export: the name of the compressed model's.
        tables: by which the target was searched for.

    Returns:
        A sentence for the report, if there is something to say; and whether the target
        was met, or there is none for this machine.
    """
    if not whole:
        return [], True
    p50 = {row.artifact: row.value for row in rows if row.metric == "latency_p50_ms"}
    before, after = p50[whole[0]], p50[export]
    said = (f"{export}: p50 {after:.3g} ms, of the unpruned model {before:.3g} ms "
            f"({before / after:.2f}x)")
    if tables.latency_tables_as_is:
        return [f"{said}, on this machine; the target is of the one that "
                f"{', '.join(tables.latency_tables)} were timed on."], True
    for step in recipe.passes:
        target = step.target_ms(before)
        if target:
            met = after <= _TOLERANCE * target
            return [f"{said}; the target of {target:.3g} ms was "
                    f"{'met' if met else 'not met'}."], met
    return [f"{said}."], True
