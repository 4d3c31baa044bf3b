r"""What smaller structures cost in quality: target speedups, ways to train, seeds.

    python experiments/studies/shrink_table.py --train_file=F --dev_file=F \
        --seeds=0,1,2 --points=1.5,2,3,5 --ways=post_training,distilled \
        --report=FILE.json

Source: the passes `structured` and `student`. For each seed a model is fine-tuned as
seeds.py does it. It is baseline and teacher of every cell, a target speedup and a way:
"post_training" cuts and fits, without training; "cross_entropy" trains on from there,
"distilled" with the teacher, "distilled_quantized" then trains --epochs more to be
quantized; "student" keeps as many whole layers as the target allows, and learns from
the teacher. Speedups are predicted from the latency table; benchmarks/shrunk_latency.py
measures them. Cost: a fine-tuning for each seed, and --shrunk_epochs for each trained
cell; each is reported when it is done, and the same command after a kill goes on with
the next.
"""

from __future__ import annotations

import dataclasses
import functools
import time

import seeds
import tables
from absl import flags

from tfopt import compress, model, tasks
from tfopt.cli import script as shared
from tfopt.export import tflite
from tfopt.measure import cost
from tfopt.pipeline import costs, judging
from tfopt.pipeline.options import Tables
from tfopt.pipeline.teacher_options import Teacher

FLAGS = flags.FLAGS
BASELINE = "unpruned"
WAYS = ("post_training", "cross_entropy", "distilled", "distilled_quantized", "student")


def cells() -> list[str]:
    """Names of the cells, such as "2x distilled", in the order of the flags."""
    unknown = sorted(set(FLAGS.ways) - set(WAYS))
    if unknown:
        raise ValueError(f"--ways must be of {WAYS}. Received: {unknown}")
    return [f"{point}x {way}" for point in FLAGS.points for way in FLAGS.ways]


def passes(speedup: float, way: str, config: model.EncoderConfig, costs
           ) -> tuple[compress.Pass, ...]:
    """The passes of a cell."""
    epochs = 0 if way == "post_training" else 1 if FLAGS.smoke else FLAGS.shrunk_epochs
    if way == "student":
        return (compress.from_fields({
            "pass": "student", "layers": layers_within(speedup, config, costs),
            "epochs": epochs}),)
    trained = {} if way == "post_training" else {
        "steps": FLAGS.steps, "step_epochs": FLAGS.step_epochs}
    cut = compress.from_fields({
        "pass": "structured", "target_latency_ms": costs.whole(config) / speedup,
        "score": FLAGS.score, "examples": 16 if FLAGS.smoke else FLAGS.examples,
        "epochs": epochs, "empty_blocks": FLAGS.layers is None, **trained})
    found = [cut]
    if FLAGS.layers is not None:
        found.insert(0, compress.from_fields({
            "pass": "student", "layers": FLAGS.layers, "epochs": 0}))
    if way == "distilled_quantized":
        found.append(compress.from_fields({
            "pass": "quantization_aware", "scheme": FLAGS.exports[-1]}))
    return tuple(found)


def layers_within(speedup: float, config: model.EncoderConfig, costs) -> int:
    """The most layers with which a model is as much faster, or 1."""
    def whole(layers):
        return costs.whole(config.replace(
            num_heads=config.num_heads[-layers:],
            intermediate_sizes=config.intermediate_sizes[-layers:]))

    most = whole(config.num_layers) / speedup
    return max((n for n in range(1, config.num_layers) if whole(n) <= most), default=1)


def run_cell(dataset, baseline, cell: str) -> dict:
    """Shrinks, trains, exports and judges.

    Args:
        dataset: the data.
        baseline: fine-tuned.
        cell: its name.

    Returns:
        accuracy of the export; of the Keras model; what the table foretells; sizes;
        seconds that the pass took.
    """
    point, way = cell.split()
    config = model.config_of(baseline)
    costs_of = costs.costs(
        dataset.report["dev"].lengths, num_threads=FLAGS.num_threads,
        tables=FLAGS.latency_tables, as_is=FLAGS.latency_tables_as_is)
    before = costs_of(config)
    context = compress.Context(
        task=dataset.task, train=dataset.train, dev=dataset.choose,
        resources={"costs": costs_of},
        settings=dataclasses.replace(shared.fine_tuning().training_settings(),
                                     learning_rate=FLAGS.shrunk_learning_rate))
    if way not in ("post_training", "cross_entropy"):
        context = dataclasses.replace(
            context, transfer_set=dataset.transfer_set, teacher=baseline,
            distillation=shared.read(Teacher).distillation())
    recipe = compress.Recipe(passes=passes(float(point[:-1]), way, config, before))
    begun = time.monotonic()
    outcome = compress.run(baseline, recipe, context)[-1]
    seconds = time.monotonic() - begun
    left = model.config_of(outcome.model)
    return {**measured(dataset, outcome.model), "seconds": seconds,
            "predicted_ms": before.whole(left),
            "predicted_speedup": before.whole(config) / before.whole(left),
            "num_heads": list(left.num_heads),
            "intermediate_sizes": list(left.intermediate_sizes)}


def measured(dataset, keras_model) -> dict[str, float]:
    """The metric of a model and of its export, and their sizes."""
    contents = tflite.convert(keras_model, FLAGS.exports[-1])
    outputs = {prefix: judging.outputs_of(artifact, dataset.report["dev"])
               for prefix, artifact in (("", contents), ("keras_", keras_model))}
    return {**tables.values(dataset, outputs), "file_bytes": len(contents),
            "parameters": cost.of_model(keras_model)["parameters"]}


def summary(runs: tables.Runs, kind: tasks.Task) -> dict:
    """Seed -> cell -> figures; their means, and what is lost against the baseline."""
    return tables.summary(runs, BASELINE, kind)


def begin(dataset, baseline):
    """What judges a seed's model before, and what fills its cells."""
    return (functools.partial(measured, dataset, baseline),
            functools.partial(run_cell, dataset, baseline))


def main() -> None:
    """Fills the table."""
    show(tables.fill(cells(), BASELINE, begin, summary))


def show(found: dict) -> None:
    """Prints a summary: each cell's mean, what it lost, and its speed."""
    for cell, figures in found["means"].items():
        print(f"{tables.said_of(cell, found)}, predicted "
              f"{figures.get('predicted_speedup', 1.0):.2f}x")


def define_cuts() -> None:
    """How a model is cut and trained."""
    flags.DEFINE_integer("layers", None, "Encoder layers, at even steps, that cells "
                         "are cut from; none of these then loses a whole block. Left "
                         "out: all.", lower_bound=1)
    flags.DEFINE_string("score", "block_fisher", "Of the pass structured.")
    flags.DEFINE_integer("examples", 2048, "That score and fit.", lower_bound=1)
    flags.DEFINE_integer("steps", 1, "Cuts of the trained ways.", lower_bound=1)
    flags.DEFINE_integer("step_epochs", 1, "Epochs after each cut but the last.",
                         lower_bound=0)
    flags.DEFINE_integer("shrunk_epochs", 3, "Epochs after the last.", lower_bound=1)
    flags.DEFINE_float("shrunk_learning_rate", 1e-4, "Their peak learning rate.",
                       lower_bound=1e-12)
    flags.FLAGS.set_default("distil_soft_weight", 1.0)


def define_flags() -> None:
    """Defines the flags of this script."""
    seeds.define_flags()
    tables.define_flags()
    shared.define(Teacher)
    shared.define(Tables)
    flags.DEFINE_list("points", ["1.5", "2", "3", "5"], "Target speedups.")
    flags.DEFINE_list("ways", ["post_training", "distilled"], f"Of {WAYS}.")
    define_cuts()


if __name__ == "__main__":
    define_flags()
    shared.run(main)
