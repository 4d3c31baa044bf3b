r"""Whether targets of speed are reached, by a latency table timed beside other work.

    python experiments/benchmarks/speed_targets.py --report=FILE.json
    python experiments/benchmarks/speed_targets.py --neighbours=0 --report=FILE.json

Source: `compress/structure/closed_loop.py`. Random weights, since time depends on
shapes alone. The tables are timed while --neighbours processes keep a core busy each,
which end with the tables; then the pass `structured` cuts to each target by magnitude,
and the structure is timed in turn with the whole model, anew and longer than the pass
itself does. "open_loop" is the structure that the tables alone would have given.
Cost: ten minutes for MiniLM on two cores, twice as long beside a neighbour; nothing
else must run. Expected: measured speedups within 10 % of the targets, however busy the
tables' hour was.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import common
import numpy as np
from absl import flags, logging

from tfopt import compress, data, model
from tfopt.cli import script as shared
from tfopt.export.interpreter import thread_counts
from tfopt.measure.latency_table import LatencyTable
from tfopt.measure.structures import StructureTimer
from tfopt.pipeline import costs

FLAGS = flags.FLAGS
_SMOKE = {"rounds": 1, "texts": 8}


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Keeps so many cores busy until the block ends."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"])
               for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def texts(config: model.EncoderConfig) -> data.Encoded:
    """The embedded support intents at their lengths, of ids that the model has."""
    found = data.read(data.DEMO_DEV_FILE).take(range(200))
    encoded = data.tokenizer_from("minilm").encode(
        found.texts, max_length=min(128, config.max_positions))
    return data.Encoded(
        ids=[(np.array(ids) % config.vocab_size).tolist() for ids in encoded.ids],
        first_lengths=encoded.first_lengths, truncated=encoded.truncated,
        pad_id=encoded.pad_id)


def reached(keras_model, config: model.EncoderConfig, target: float, costs_of,
            encoded: data.Encoded, timer: StructureTimer) -> dict:
    """Cuts to a target, and times what is left.

    Args:
        keras_model: random weights.
        config: its sizes.
        target: speedup.
        costs_of: of the tables, and of a timer.
        encoded: texts.
        timer: another timer, for the last word.

    Returns:
        predicted_speedup and speedup of what was left, of open_loop too; how many
        structures were timed; seconds of the pass.
    """
    step = compress.from_fields({
        "pass": "structured", "target_speedup": target, "score": "magnitude",
        "epochs": 0, "reconstruct": False})
    batches = data.Batches(encoded, [0] * len(encoded.ids), batch_size=8)
    begun = time.monotonic()
    outcome, = compress.run(keras_model, compress.Recipe(passes=(step,)),
                            compress.Context(train=batches,
                                             resources={"costs": costs_of}))
    seconds, before = time.monotonic() - begun, costs_of(config)
    trials = outcome.facts["trials"]
    first = min(trials, key=lambda trial: abs(
        before.whole(config) / trial["predicted"] - target))

    def figures(trial) -> dict:
        small = config.replace(num_heads=trial["num_heads"],
                               intermediate_sizes=trial["intermediate_sizes"]
                               ).without_empty_layers()
        whole_ms, small_ms = timer(config, small)
        return {"num_heads": trial["num_heads"],
                "intermediate_sizes": trial["intermediate_sizes"],
                "predicted_speedup": before.whole(config) / trial["predicted"],
                "whole_ms": whole_ms, "ms": small_ms, "speedup": whole_ms / small_ms,
                "speedup_over_target": whole_ms / small_ms / target}

    found = figures(trials[-1])
    return {**found, "open_loop": found if first is trials[-1] else figures(first),
            "structures_timed": len(trials), "seconds": seconds}


def main() -> None:
    """Times tables, searches, times what was found, and reports."""
    config = model.named(FLAGS.shape)
    encoded = texts(config)
    lengths, notes = [len(ids) for ids in encoded.ids], []
    timing = _SMOKE if FLAGS.smoke else {}
    with tempfile.TemporaryDirectory() as place:
        tables = FLAGS.latency_tables or [
            f"{place}/{count}.json" for count in thread_counts(FLAGS.num_threads)]
        costs_of = costs.costs(
            lengths, num_threads=FLAGS.num_threads, tables=tables, note=notes.append,
            timer=StructureTimer(lengths, num_threads=FLAGS.num_threads, **timing))
        begun = time.monotonic()
        with neighbours(FLAGS.neighbours):
            costs_of(config)
        table_s = time.monotonic() - begun
        spreads = [LatencyTable.from_json(Path(path).read_text(encoding="utf-8"))
                   for path in tables]
        keras_model = model.build(config, seed=0)
        timer = StructureTimer(lengths, num_threads=FLAGS.num_threads,
                               **(timing or {"rounds": 120}))
        targets = {}
        for target in map(float, FLAGS.targets):
            targets[f"{target:g}x"] = found = reached(
                keras_model, config, target, costs_of, encoded, timer)
            logging.info("%gx: %.2fx, by the tables alone %.2fx", target,
                         found["speedup"], found["open_loop"]["speedup"])
    common.write_report(
        {"targets": targets, "neighbours": FLAGS.neighbours, "table_s": table_s,
         "medians_spread": [table.medians_spread for table in spreads],
         "disturbance": [table.disturbance for table in spreads], "notes": notes},
        num_threads=FLAGS.num_threads)


if __name__ == "__main__":
    shared.define_measuring()
    common.define_report()
    flags.DEFINE_string("shape", "minilm_l6", f"One of {model.SHAPE_NAMES}.")
    flags.DEFINE_list("targets", ["2", "3"], "Speedups.")
    flags.DEFINE_integer("neighbours", 1, "Processes at full load while the tables are "
                         "timed.", lower_bound=0)
    flags.DEFINE_list("latency_tables", [], "Tables, one for each number of threads; "
                      "timed first where they are not there. Left out: timed.")
    shared.run(main)
