r"""What a cascade of a ladder's rungs costs, in time and in quality.

    python experiments/benchmarks/cascade.py --ladder=DIR --dev_file=FILE \
        --report=FILE.json

Dev is answered by the best rung alone and by the cascade, fifty texts in turn, one
thread each, encoded before: texts are encoded once in both. Which rungs are asked in
which order, and below which confidence the next is, `ladder.json` says, which was
chosen on dev; with --max_drop all is chosen anew, by times of this machine. Beside it
is the quality by five folds, in which no text is judged by thresholds that it had a
part in (`tfopt.serve.cascade.choose`). Cost: dev some ten times through the
rungs. Expected: at most 0.35 times the mean milliseconds of the best rung, at 0.3
points of accuracy lost.
"""

from __future__ import annotations

import dataclasses
import time

import common
import numpy as np
from absl import flags

from tfopt import data, tasks
from tfopt.cli import script as shared
from tfopt.export.interpreter import Interpreter, softmax
from tfopt.serve import Bundle, cascade
from tfopt.serve.ladder import Ladder
from tfopt.serve.rungs import Cascade

FLAGS = flags.FLAGS
_IN_TURN = 50  # texts: a service does one or the other, with its weights in the caches


def timed(asked: list[Interpreter], encoded: data.Encoded, thresholds: list[float]
          ) -> dict[str, np.ndarray]:
    """Seconds and outputs of each text, by the best rung alone and by the cascade.

    Args:
        asked: the rungs in the order in which the cascade asks them, the best last.
        encoded: N texts.
        thresholds: of all but the last.

    Returns:
        {best_s, cascade_s: <float>[N], best, cascade: <float>[N, C], by: <int>[N]},
        `by` the number of the rung that answered.
    """
    found: dict[str, list] = {name: [] for name in (
        "best_s", "cascade_s", "best", "cascade", "by")}
    texts = list(zip(encoded.ids, encoded.first_lengths, strict=True))
    for start in range(0, len(texts), _IN_TURN):
        part = texts[start:start + _IN_TURN]
        for ids, first in part:
            begun = time.perf_counter()
            found["best"].append(asked[-1].run(ids, first))
            found["best_s"].append(time.perf_counter() - begun)
        for ids, first in part:
            begun, by = time.perf_counter(), 0
            says = asked[0].run(ids, first)
            while by < len(thresholds) and softmax(says).max() < thresholds[by]:
                by += 1
                says = asked[by].run(ids, first)
            found["cascade_s"].append(time.perf_counter() - begun)
            found["cascade"].append(says)
            found["by"].append(by)
    return {name: np.array(values) for name, values in found.items()}


def chosen(ladder: Ladder, models: dict[str, Interpreter], task: tasks.Task,
           encoded: data.Encoded, targets: list, max_drop: float) -> Cascade:
    """The cascade of the least time, by what each rung takes here.

    Raises:
        ValueError: none takes less than the best rung.
    """
    rungs, outputs = [], {}
    for rung in ladder.rungs:
        model = models[rung.name]
        model.logits(encoded.ids, encoded.first_lengths)  # warms up
        begun = time.perf_counter()
        outputs[rung.name] = model.logits(encoded.ids, encoded.first_lengths)
        rungs.append(dataclasses.replace(
            rung, p50_ms=1e3 * (time.perf_counter() - begun) / len(targets)))
    found = cascade.cheapest(task, rungs, outputs, targets, max_drop)
    if found is None:
        raise ValueError("A cascade must take less time than the best rung. Received: "
                         f"{FLAGS.ladder}, with none")
    return found


def main() -> None:
    """Answers dev, and reports.

    Raises:
        ValueError: the ladder has one rung, or no cascade takes less time than it.
    """
    ladder = Ladder.read(FLAGS.ladder)
    bundles = {rung.name: Bundle.open(ladder.path(rung), num_threads=1, copies=1)
               for rung in ladder.rungs}
    models = {rung.name: Interpreter(ladder.path(rung) / "model.tflite", num_threads=1,
                                     copies=1, known=True) for rung in ladder.rungs}
    task = bundles[ladder.best.name].task
    corpus = data.read(FLAGS.dev_file)
    if FLAGS.smoke:
        corpus = corpus.take(range(min(len(corpus), 40)))
    encoded, *others = (bundle.tokenizer.encode(
        corpus.texts, corpus.pairs, max_length=bundle.max_length)
        for bundle in bundles.values())
    if any(encoded.ids != other.ids for other in others):
        raise ValueError("Rungs of a cascade must read texts alike. Received: "
                         f"{FLAGS.ladder}, with two vocabularies")
    targets = task.targets(corpus)
    if FLAGS.max_drop is not None or ladder.cascade is None:
        ladder = dataclasses.replace(ladder, cascade=chosen(
            ladder, models, task, encoded, targets,
            0.003 if FLAGS.max_drop is None else FLAGS.max_drop))
    names = [*(step.name for step in ladder.steps), ladder.best.name]
    thresholds = [step.threshold for step in ladder.steps]
    asked = [models[name] for name in names]
    timed(asked, encoded, thresholds)  # warms up
    rounds = [timed(asked, encoded, thresholds)
              for _ in range(1 if FLAGS.smoke else FLAGS.rounds)]
    found, max_drop = rounds[0], ladder.cascade.max_drop or 0.0
    best_ms, cascade_ms = (1e3 * np.median([one[name] for one in rounds], axis=0).mean()
                           for name in ("best_s", "cascade_s"))
    by_name = {rung.name: rung for rung in ladder.rungs}
    folds = cascade.choose(
        task, [by_name[name] for name in names],
        [models[name].logits(encoded.ids, encoded.first_lengths) for name in names],
        targets, max_drop)
    quality = {name: task.value(task.quality(found[name], targets))
               for name in ("best", "cascade")}
    common.write_report({
        "asked": names, "thresholds": thresholds, "max_drop": max_drop,
        "texts": len(targets), "best_mean_ms": float(best_ms),
        "cascade_mean_ms": float(cascade_ms), "ratio": float(cascade_ms / best_ms),
        "answered_by": {name: float((found["by"] == number).mean())
                        for number, name in enumerate(names)},
        "quality": quality, "lost": quality["best"] - quality["cascade"],
        "by_folds": folds and {"quality": folds[0].quality,
                               "lost": quality["best"] - folds[0].quality,
                               "share_handed_on": folds[0].share_handed_on}},
        num_threads=1)


if __name__ == "__main__":
    shared.define_measuring()
    common.define_report()
    flags.DEFINE_string("ladder", None, "Directory of a ladder.", required=True)
    flags.DEFINE_string("dev_file", None, "Labelled examples.", required=True)
    flags.DEFINE_float("max_drop", None, "Chooses another cascade than the ladder's: "
                       "of the monitor, in its own unit.", lower_bound=0.0)
    flags.DEFINE_integer("rounds", 5, "Times through dev.", lower_bound=1)
    shared.run(main)
