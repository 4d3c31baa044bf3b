"""A target of speed from flags, and the latency table that the search for it needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags

from tfopt import compress, model, report
from tfopt.compress.search import Costs
from tfopt.measure import table_file
from tfopt.measure.latency_table import TOKENS

FLAGS = flags.FLAGS
# The flags count as those of the script that asks for them: --help lists them.
flags.disclaim_key_flags()

# How far a measured time may be above its target: the search's prediction is as good.
_TOLERANCE = 1.1
_TARGETS = ("keep", "target_speedup", "target_latency_ms")


def define_flags() -> None:
    """What the recipe's pass `structured` is to reach."""
    flags.DEFINE_float("target_speedup", None, "How many times faster than the int8 "
                       "file of the unpruned model; in place of the target of the "
                       "recipe's pass structured.", lower_bound=1.0)
    flags.DEFINE_float("target_latency_ms", None, "The same in milliseconds of a "
                       "request at its natural length.", lower_bound=0.0)
    define_table_flags()


def define_table_flags() -> None:
    """Which latency table the search looks things up in."""
    flags.DEFINE_string("latency_table", None, "File of the times that the search looks"
                        " up; timed first, in minutes, if it is not there. Left out: "
                        "one under ~/.cache/tfopt.")
    flags.DEFINE_bool("latency_table_as_is", False, "Takes the file of --latency_table "
                      "as it is, though it was timed on another machine: the one that "
                      "will serve. The target is then that machine's.")


def aimed(recipe: compress.Recipe) -> compress.Recipe:
    """The recipe with the target that the flags name.

    Raises:
        ValueError: both are named, or the recipe has not one pass `structured`.
    """
    given = {name: getattr(FLAGS, name) for name in _TARGETS[1:]
             if getattr(FLAGS, name) is not None}
    if not given:
        return recipe
    places = [number for number, step in enumerate(recipe.passes)
              if step.name() == "structured"]
    if len(given) > 1 or len(places) != 1:
        raise ValueError("One target, for a recipe with one pass 'structured', can be "
                         f"set by flags. Received: {given}, passes "
                         f"{[step.name() for step in recipe.passes]}")
    passes = list(recipe.passes)
    passes[places[0]] = dataclasses.replace(
        passes[places[0]], **dict.fromkeys(_TARGETS) | given)
    return dataclasses.replace(recipe, passes=tuple(passes))


def costs(lengths: Sequence[int]) -> Callable[[model.BertConfig], Costs]:
    """What the blocks of a BERT take at texts of such lengths, in the int8 runtime.

    Args:
        lengths: token counts.

    Returns:
        Config -> its costs; the first one's sizes are the largest that it knows.

    Raises:
        ValueError: a table is to be taken as it is, and is not there.
    """
    as_is = FLAGS.latency_table_as_is
    if as_is and not (FLAGS.latency_table and Path(FLAGS.latency_table).is_file()):
        raise ValueError("--latency_table_as_is needs the file of --latency_table. "
                         f"Received: --latency_table={FLAGS.latency_table}")
    tokens = TOKENS
    tokens += tuple(range(tokens[-1] + 64, max(lengths) + 64, 64))
    if as_is:  # texts of these lengths are all that it must know
        tokens = tuple(sorted({min(lengths), max(lengths)}))

    found = None

    def of(config: model.BertConfig) -> Costs:
        nonlocal found
        if found is None:
            found = table_file.load(config, path=FLAGS.latency_table, tokens=tokens,
                                    num_threads=FLAGS.num_threads, as_is=as_is)
        places = ["inner"] * (config.num_layers - 1) + ["last"]
        return Costs(
            heads=tuple(found.attention_ms(place, lengths)[:count + 1] for place, count
                        in zip(places, config.num_heads, strict=True)),
            neurons=tuple(found.ffn_ms(place, lengths)[:count + 1] for place, count
                          in zip(places, config.intermediate_sizes, strict=True)),
            whole=lambda own: found.predict(own, lengths), unit="ms")

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
    if FLAGS.latency_table_as_is:
        return [f"{said}, on this machine; the target is of the one that "
                f"{FLAGS.latency_table} was timed on."], True
    for step in recipe.passes:
        speedup = getattr(step, "target_speedup", None)
        target = before / speedup if speedup else getattr(step, "target_latency_ms",
                                                          None)
        if target:
            met = after <= _TOLERANCE * target
            return [f"{said}; the target of {target:.3g} ms was "
                    f"{'met' if met else 'not met'}."], met
    return [f"{said}."], True
