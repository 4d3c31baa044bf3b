"""A target of speed from flags, and the latency tables that the search for it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from absl import flags

from tfopt import compress, model, report
from tfopt.compress.costs import Costs
from tfopt.export.interpreter import thread_counts
from tfopt.measure import table_file
from tfopt.measure.latency_table import TOKENS, LatencyTable

FLAGS = flags.FLAGS
# The flags count as those of the script that asks for them: --help lists them.
flags.disclaim_key_flags()

# How far a measured time may be above its target: the search's prediction is as good.
_TOLERANCE = 1.1
_TARGETS = ("target_speedup", "target_latency_ms")


def define_flags() -> None:
    """What the recipe's pass `structured` is to reach."""
    flags.DEFINE_float("target_speedup", None, "How many times faster than the int8 "
                       "file of the unpruned model; in place of the target of the "
                       "recipe's pass structured.", lower_bound=1.0)
    flags.DEFINE_float("target_latency_ms", None, "The same in milliseconds of a "
                       "request at its natural length.", lower_bound=0.0)
    define_table_flags()


def define_table_flags() -> None:
    """Which latency tables the search looks things up in."""
    flags.DEFINE_list("latency_tables", [], "Files of the times that the search looks "
                      "up, one for each number of threads that is tried: 1, 2, 4 ... "
                      "--num_threads; timed first, in minutes each, if they are not "
                      "there. Left out: files under ~/.cache/tfopt.")
    flags.DEFINE_bool("latency_tables_as_is", False, "Takes the files of "
                      "--latency_tables as they are, though they were timed on another "
                      "machine: the one that will serve. The target is then that "
                      "machine's.")


def aimed(recipe: compress.Recipe) -> compress.Recipe:
    """The recipe with the target that the flags name.

    Raises:
        ValueError: both are named, or not one pass of the recipe has such a target.
    """
    return recipe.overriding({name: getattr(FLAGS, name) for name in _TARGETS
                              if getattr(FLAGS, name) is not None})


def costs(lengths: Sequence[int]) -> Callable[[model.EncoderConfig], Costs]:
    """What the blocks of a BERT take at texts of such lengths, in the int8 runtime.

    With as many threads, up to --num_threads, as are the fastest for each.

    Args:
        lengths: token counts.

    Returns:
        Config -> its costs; the first one's sizes are the largest that it knows.

    Raises:
        ValueError: there are more or fewer tables than numbers of threads, or one is to
            be taken as it is, and is not there.
    """
    as_is, paths = FLAGS.latency_tables_as_is, FLAGS.latency_tables
    counts = thread_counts(FLAGS.num_threads)
    if paths and len(paths) != len(counts):
        raise ValueError(f"--latency_tables must be a file each for {counts} threads. "
                         f"Received: --latency_tables={','.join(paths)}")
    if as_is and not (paths and all(Path(path).is_file() for path in paths)):
        raise ValueError("--latency_tables_as_is needs the files of --latency_tables. "
                         f"Received: --latency_tables={','.join(paths)}")
    tokens = TOKENS
    tokens += tuple(range(tokens[-1] + 64, max(lengths) + 64, 64))
    if as_is:  # texts of these lengths are all that it must know
        tokens = tuple(sorted({min(lengths), max(lengths)}))

    tables: list[LatencyTable] = []

    def of(config: model.EncoderConfig) -> Costs:
        if not tables:
            tables.extend(
                table_file.load(config, path=path, tokens=tokens, num_threads=count,
                                as_is=as_is)
                for count, path in zip(counts, paths or [None] * len(counts),
                                       strict=True))
        places = ["inner"] * (config.num_layers - 1) + ["last"]

        def blocks(times, sizes):
            return tuple(
                np.min([times(table, place, lengths) for table in tables],
                       axis=0)[:size + 1]
                for place, size in zip(places, sizes, strict=True))

        return Costs(
            heads=blocks(LatencyTable.attention_ms, config.num_heads),
            neurons=blocks(LatencyTable.ffn_ms, config.intermediate_sizes),
            whole=lambda own: min(table.predict(own, lengths) for table in tables),
            unit="ms")

    return of


def verdict(recipe: compress.Recipe, rows: Sequence[report.Row], whole: Sequence[str],
            export: str) -> tuple[list[str], bool]:
    """Holds the measured time against the target.

    Args:
        recipe: what was run.
        rows: of the report.
        whole: the name of the unpruned model's export, if there is one.
        export: the name of the compressed model's.

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
    if FLAGS.latency_tables_as_is:
        return [f"{said}, on this machine; the target is of the one that "
                f"{', '.join(FLAGS.latency_tables)} were timed on."], True
    for step in recipe.passes:
        target = step.target_ms(before)
        if target:
            met = after <= _TOLERANCE * target
            return [f"{said}; the target of {target:.3g} ms was "
                    f"{'met' if met else 'not met'}."], met
    return [f"{said}."], True
