r"""What a small model gains from a large teacher: speeds by seeds, on one data set.

    python experiments/studies/teachers.py --train_file=F --dev_file=F --seeds=0,1,2 \
        --teacher_dir=DIR --points=1,3,5,8 --augment=auto --holdout_fraction=0.1 \
        --latency_tables=T1,T2 --latency_tables_as_is --work_dir=DIR --report=FILE.json

Source: `passes.retrain`, the chain of the recipe `base_teacher`. For each seed a model
is fine-tuned as seeds.py does it, by cross-entropy: all is held against it, and the
whole student starts from it. That learns the teacher's logits ("whole"), and is then
cut to each speed, from the teacher's logits and its own hidden states, and trained to
be quantized: "1x" without a cut, "3x" and so on, each judged as a file of int8. Speeds
are those that the latency tables predict; benchmarks/shrunk_latency.py measures them.
The teacher reads the texts once for all speeds of a seed (--teacher_logits_dir: of
all). Cost: a fine-tuning, --epochs for the whole student, twice --shrunk_epochs for
each speed: minutes on a GPU, which `seconds` counts. Each cell is reported when it is
done, and the same command after a kill goes on with the next. Expected, points of dev
accuracy against cross-entropy: SST-2 +1.2 (1x), +0.5 (3x), -1.0 (5x), -2.2 (8x).
"""

from __future__ import annotations

import dataclasses
import functools
import time
from pathlib import Path

import seeds
import shrink_table
import tables
from absl import flags

from tfopt import compress, model
from tfopt.cli import script as shared
from tfopt.pipeline import costs, trials
from tfopt.pipeline.options import Tables
from tfopt.pipeline.teacher_options import Teacher

FLAGS = flags.FLAGS
BASELINE = "cross_entropy"
WHOLE = "whole"


def cells() -> list[str]:
    """Names of the cells, such as "3x", in the order of the flags."""
    return [WHOLE, *(f"{float(point):g}x" for point in FLAGS.points)]


def passes(cell: str, config: model.EncoderConfig, costs_of) -> tuple:
    """The passes behind the whole student: a cut, if there is one, and QAT."""
    epochs = 1 if FLAGS.smoke else FLAGS.shrunk_epochs
    found = [compress.from_fields({"pass": "quantization_aware",
                                   "scheme": FLAGS.exports[-1]})]
    if float(cell[:-1]) > 1:
        found.insert(0, compress.from_fields({
            "pass": "structured", "epochs": epochs,
            "target_latency_ms": costs_of(config).whole(config) / float(cell[:-1]),
            "examples": 16 if FLAGS.smoke else FLAGS.examples,
            "search_depth": FLAGS.search_depth}))
    return tuple(found)


class Seed:
    """What the cells of one seed share: the teacher's texts, and the whole student.

    Args:
        dataset: without copies that are to be found.
        baseline: fine-tuned by cross-entropy.
    """

    def __init__(self, dataset, baseline):
        tuning = shared.fine_tuning()
        self._baseline = baseline
        self._place = Path(FLAGS.work_dir) / f"seed_{FLAGS.seed}"
        recipe = compress.Recipe(passes=(compress.from_fields({"pass": "retrain"}),))
        settings = tuning.distillation(states=compress.teaches_states(recipe))
        teacher = tuning.load_teacher(settings, dataset, states=True)
        tuning, settings, self._dataset = trials.chosen(
            tuning, settings, dataset, teacher, self._place)
        self.found = {"augment": tuning.teacher.copies,
                      "hard_weight": settings.hard_weight}
        self._costs_of = costs.costs(
            dataset.report["dev"].lengths, num_threads=FLAGS.num_threads,
            tables=FLAGS.latency_tables, as_is=FLAGS.latency_tables_as_is)
        context = compress.Context(
            task=dataset.task, train=dataset.train, dev=dataset.choose,
            settings=tuning.training_settings(), resources={"costs": self._costs_of})
        self._context = tuning.with_teacher(
            context, self._dataset, settings, self._place, teacher, keep=True)
        self._recipe = recipe

    @functools.cached_property
    def whole(self):
        """The whole student, and the seconds that it took; kept for a killed run."""
        place = self._place / "whole"
        if (place / model.KERAS_FILE).exists():
            with shared.placement().strategy.scope():
                return model.load(place), 0.0
        begun = time.monotonic()
        found = compress.run(self._baseline, self._recipe, self._context)[-1].model
        model.save(found, place)
        return found, time.monotonic() - begun

    def baseline(self) -> dict:
        """Figures of the model by cross-entropy."""
        return shrink_table.measured(self._dataset, self._baseline)

    def cell(self, name: str) -> dict:
        """Figures of a cell, with what was found for copies and labels."""
        whole, seconds = self.whole
        if name == WHOLE:
            return {**shrink_table.measured(self._dataset, whole), **self.found,
                    "seconds": seconds}
        config = model.config_of(whole)
        context = dataclasses.replace(
            self._context, states_teacher=whole, settings=dataclasses.replace(
                self._context.settings, learning_rate=FLAGS.shrunk_learning_rate,
                epochs=1 if FLAGS.smoke else FLAGS.shrunk_epochs))
        begun = time.monotonic()
        small = compress.run(whole, compress.Recipe(
            passes=passes(name, config, self._costs_of)), context)[-1].model
        left, before = model.config_of(small), self._costs_of(config)
        return {**shrink_table.measured(self._dataset, small), **self.found,
                "seconds": time.monotonic() - begun,
                "predicted_ms": before.whole(left),
                "predicted_speedup": before.whole(config) / before.whole(left),
                "num_heads": list(left.num_heads),
                "intermediate_sizes": list(left.intermediate_sizes)}


def begin(dataset, baseline):
    """What judges a seed's model before, and what fills its cells."""
    seed = Seed(dataset, baseline)
    return seed.baseline, seed.cell


def main() -> None:
    """Fills the table."""
    shrink_table.show(tables.fill(
        cells(), BASELINE, begin,
        lambda runs, kind: tables.summary(runs, BASELINE, kind)))


def define_flags() -> None:
    """Defines the flags of this script."""
    seeds.define_flags()
    tables.define_flags()
    shared.define(Teacher)
    shared.define(Tables)
    flags.DEFINE_list("points", ["1", "3", "5", "8"], "Target speedups.")
    flags.DEFINE_integer("examples", 2048, "That score and fit.", lower_bound=1)
    flags.DEFINE_bool("search_depth", False, "Of the pass structured.")
    flags.DEFINE_integer("shrunk_epochs", 3, "Epochs after a cut, and of those that "
                         "train to be quantized.", lower_bound=1)
    flags.DEFINE_float("shrunk_learning_rate", 2e-4, "Their peak learning rate.",
                       lower_bound=1e-12)
    flags.DEFINE_string("work_dir", None, "Where whole students and logits are kept.",
                        required=True)
    flags.FLAGS.set_default("distil_hidden_weight", 1.0)


if __name__ == "__main__":
    define_flags()
    shared.run(main)
