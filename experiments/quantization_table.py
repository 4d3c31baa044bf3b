r"""What quantization costs in accuracy: exports by seeds, post-training and trained.

    python experiments/quantization_table.py --train_file=F --dev_file=F \
        --seeds=0,1,2 --report=FILE.json

Source: `tfopt.export.tflite`, and the pass `quantization_aware`. For each seed a model
is fine-tuned as seeds.py does it. Each export is made of that model after training
("ptq"), and of one that trained on with quantization ("qat"), from there. Each cell is
reported when it is done, and the same command after a kill goes on with the next. Cost:
a fine-tuning for each seed, and half as much again to twice of --quantized_epochs for
each trained cell; with --baselines_dir other tables may share the fine-tuned models.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from pathlib import Path

import flags as shared
import numpy as np
import pruning_table
import seeds
import task as tasks
from absl import flags, logging

from tfopt import compress, model
from tfopt.export import tflite
from tfopt.measure import cost, quality, runners

FLAGS = flags.FLAGS
FLOAT = "float32"


def cells() -> list[tuple[str, str]]:
    """(export, "ptq" or "qat"), in the order of the flags."""
    trained = compress.all_passes()["quantization_aware"]
    return [(scheme, how) for scheme in FLAGS.exports for how in FLAGS.ways
            if how == "ptq" or scheme in trained.schemes()]


def quantized(task, baseline, scheme: str):
    """The fine-tuned model, trained on with quantization."""
    own = {"epochs": FLAGS.quantized_epochs,
           "learning_rate": FLAGS.quantized_learning_rate}
    settings = dataclasses.replace(tasks.settings(), **({} if FLAGS.smoke else own))
    step = compress.from_fields({"pass": "quantization_aware", "scheme": scheme,
                                 "freeze_fraction": FLAGS.freeze_fraction})
    context = compress.Context(train=task.train, dev=task.choose, settings=settings)
    outcome, = compress.run(baseline, compress.Recipe(passes=(step,)), context)
    return outcome.model


def logits_of(artifact, part) -> np.ndarray:
    """Logits <float32>[N, C] of a Keras model, or of a `.tflite`'s bytes."""
    with tempfile.TemporaryDirectory() as directory:
        if isinstance(artifact, bytes):
            path = Path(directory) / "model.tflite"
            path.write_bytes(artifact)
        else:
            path = Path(directory)
            model.save(artifact, path)
        runner = runners.open_artifact(path, FLAGS.num_threads)
        return runner.logits(part.encoded.ids, part.encoded.first_lengths)


def run_cell(task, baseline, graphs, scheme: str, how: str) -> dict[str, float]:
    """Quantizes, exports and judges.

    Args:
        task: the data.
        baseline: fine-tuned.
        graphs: its float graph and the logits of it, made once.
        scheme: the export.
        how: "ptq" or "qat".

    Returns:
        accuracy of the file; agreement of its classes, and mean difference of its
        logits over their deviation, with the Keras model that it was made of; bytes.
    """
    part = task.report["dev"]
    if how == "ptq":
        graph, expected = graphs
    else:
        trained = quantized(task, baseline, scheme)
        graph, expected = tflite.float_graph(trained), logits_of(trained, part)
    # Of a trained model the ranges are trained, but for what is within LayerNorm.
    contents = tflite.quantize(graph, scheme, calibration=task.calibration,
                               method=FLAGS.ranges)
    found = logits_of(contents, part)
    if FLAGS.files_dir is not None:
        place = Path(FLAGS.files_dir) / f"{scheme}_{how}_{FLAGS.seed}.tflite"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(contents)
    return {
        "accuracy": quality.measure(found, part.class_ids)["accuracy"],
        "keras_accuracy": quality.measure(expected, part.class_ids)["accuracy"],
        "agreement": float(np.mean(found.argmax(1) == expected.argmax(1))),
        "logit_difference": float(np.abs(found - expected).mean() / expected.std()),
        "file_bytes": float(len(contents)),
    }


def summary(runs: dict[str, dict[str, dict[str, float]]]) -> dict:
    """Seed -> cell -> figures; their means, and points lost against float."""
    means, lost = {}, {}
    for cell in dict.fromkeys(cell for found in runs.values() for cell in found):
        found = [run[cell] for run in runs.values() if cell in run]
        means[cell] = {figure: statistics.fmean(one[figure] for one in found)
                       for figure in found[0]}
        lost[cell] = 100 * statistics.fmean(
            run[FLOAT]["accuracy"] - run[cell]["accuracy"]
            for run in runs.values() if cell in run)
    return {"runs": runs, "means": means, "points_lost": lost}


def main() -> None:
    """Fills the table."""
    runs = (shared.reported_figures(FLAGS.report) or {"runs": {}})["runs"]
    for seed in FLAGS.seeds:
        FLAGS.seed = int(seed)
        done = runs.setdefault(seed, {})
        wanted = {f"{scheme} {how}": (scheme, how) for scheme, how in cells()}
        if set(done) == {FLOAT, *wanted}:
            continue
        task = tasks.load()
        baseline = pruning_table.fine_tuned(task)
        part = task.report["dev"]
        graphs = tflite.float_graph(baseline), logits_of(baseline, part)
        done[FLOAT] = {"accuracy": quality.measure(graphs[1], part.class_ids)[
            "accuracy"], "parameters": cost.of_model(baseline)["parameters"]}
        for name, (scheme, how) in wanted.items():
            if name not in done:
                done[name] = run_cell(task, baseline, graphs, scheme, how)
                logging.info("Seed %s, %s: %s", seed, name, done[name])
                shared.write_figures(FLAGS.report, summary(runs))
    show(summary(runs))


def show(found: dict) -> None:
    """Prints a summary: each cell's mean accuracy, and what it lost."""
    for cell, figures in found["means"].items():
        print(f"{cell:32} accuracy {figures['accuracy']:.4f}, points lost "
              f"{found['points_lost'][cell]:.2f}")


def define_flags() -> None:
    """Defines the flags of this script."""
    seeds.define_flags()
    flags.DEFINE_string("baselines_dir", None, "Where the fine-tuned models are kept "
                        "and looked for, by seed alone.")
    flags.DEFINE_string("files_dir", None, "Where the exported files are kept.")
    flags.DEFINE_list("ways", ["ptq", "qat"], "ptq: after training; qat: trained.")
    flags.DEFINE_integer("quantized_epochs", 1, "Epochs of each trained cell.",
                         lower_bound=1)
    flags.DEFINE_float("quantized_learning_rate", 5e-5, "Its peak learning rate.",
                       lower_bound=1e-12)
    flags.DEFINE_float("freeze_fraction", 0.8, "Part of its run after which ranges "
                       "stay.", lower_bound=0.0, upper_bound=1.0)
    flags.FLAGS.set_default("exports", [
        "dynamic_wi8_afp32", "static_wi8_ai8", "integer_wi8_ai8",
        "dynamic_wi4b32_afp32"])


if __name__ == "__main__":
    define_flags()
    shared.run(main)
