"""Latency tables -> what blocks cost in time; targets of speed, and whether they hold.

    context = compress.Context(...,
        resources={"costs": costs(lengths)})   # for Structured

The tables are timed on this machine when a search first asks, or read from files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tfopt import compress, model, report
from tfopt.compress.costs import Costs
from tfopt.export.interpreter import thread_counts
from tfopt.measure import table_file
from tfopt.measure.latency_table import TOKENS, LatencyTable
from tfopt.pipeline.options import Tables, Targets
from tfopt.types import PathLike

# How far a measured time may be above its target: the search's prediction is as good.
_TOLERANCE = 1.1
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
          note: Callable[[str], object] | None = None
          ) -> Callable[[model.EncoderConfig], Costs]:
    """What the blocks of an encoder take at texts of such lengths, in the int8 runtime.

    Each with the number of threads that is the fastest for it.

    Args:
        lengths: token counts.
        num_threads: most threads of a request.
        tables: files of latency tables, one for each number of threads that is tried,
            timed first if they are not there; none for files under ~/.cache/tfopt.
        as_is: takes the files as they are, whatever machine they were timed on.
        note: is given a sentence on a table that is of another environment.

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
    for path in filter(Path.is_file, map(Path, paths)):
        table_file.read(path)  # a damaged one is found before any work
    tokens: tuple[int, ...] = TOKENS
    tokens += tuple(range(tokens[-1] + 64, max(lengths) + 64, 64))
    if as_is:  # texts of these lengths are all that it must know
        tokens = tuple(sorted({min(lengths), max(lengths)}))

    files: Sequence[str | None] = paths or [None] * len(counts)
    loaded: list[LatencyTable] = []

    def of(config: model.EncoderConfig) -> Costs:
        if not loaded:
            loaded.extend(
                table_file.load(config, path=path, tokens=tokens, num_threads=count,
                                as_is=as_is, note=note)
                for count, path in zip(counts, files, strict=True))
        places = ["inner"] * (config.num_layers - 1) + ["last"]

        def blocks(times, sizes):
            return tuple(
                np.min([times(table, place, lengths) for table in loaded],
                       axis=0)[:size + 1]
                for place, size in zip(places, sizes, strict=True))

        return Costs(
            heads=blocks(LatencyTable.attention_ms, config.num_heads),
            neurons=blocks(LatencyTable.ffn_ms, config.intermediate_sizes),
            whole=lambda own: min(table.predict(own, lengths) for table in loaded),
            unit="ms")

    return of


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
