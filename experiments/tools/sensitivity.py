r"""What each operation of a quantized export loses: a table and a plot.

    python experiments/tools/sensitivity.py --model_dir=DIR --train_file=F \
        --dev_file=F --export=static_wi8_ai8 --out_dir=DIR

Source: `tfopt.measure.sensitivity`. The model is fine-tuned already, and its labels
those of the train file. Cost: a few seconds an operation and thousand texts; each is
written when it is done. Result: sensitivity.{json,md,png} in --out_dir. With
--holdout_fraction, the value is that of the part held out of train.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from absl import flags, logging

from tfopt import model
from tfopt.cli import script as shared
from tfopt.export import tflite
from tfopt.files import write_whole
from tfopt.measure import sensitivity
from tfopt.pipeline import judging
from tfopt.pipeline.checks import check_trained_for

FLAGS = flags.FLAGS


def short(name: str) -> str:
    """Of a tensor's name, the part that a person looks for."""
    parts = [part for part in name.split(";") if part]
    return parts[0].removeprefix("bert/") if parts else name


def table(task, reference: float, found: list[sensitivity.Loss]) -> str:
    """The losses as Markdown, the greatest first."""
    rows = sorted(found, key=lambda loss: (-task.drop(reference, loss.value),
                                        loss.logits_sqnr_db))
    lines = [f"In float, {task.monitor[0]}: {reference:.4f}. Export: {FLAGS.export}, "
             f"each operation {FLAGS.mode.replace('_', ' ')}.", "",
             f"| operation | kind | {task.drop_unit} lost | SQNR of its output, dB | "
             "of logits |",
             "|---|---|---:|---:|---:|"]
    lines += [f"| {short(loss.name)} | {loss.kind} | "
              f"{task.drop(reference, loss.value):.2f} | {loss.output_sqnr_db:.1f} | "
              f"{loss.logits_sqnr_db:.1f} |" for loss in rows]
    return "\n".join(lines) + "\n"


def plot(found: list[sensitivity.Loss], path: Path) -> None:
    """Bars of the logits' SQNR, in the graph's order; nothing without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        logging.info("No plot: matplotlib is missing; install tfopt[plot].")
        return
    figure = Figure(figsize=(8, 0.22 * len(found) + 1.2), layout="constrained")
    axes = figure.subplots()
    finite = [loss for loss in found if math.isfinite(loss.logits_sqnr_db)]
    axes.barh([short(loss.name) for loss in finite],
              [loss.logits_sqnr_db for loss in finite])
    axes.invert_yaxis()
    axes.set_xlabel(f"SQNR of the logits, dB ({FLAGS.export}, {FLAGS.mode}); "
                    "short bars harm")
    axes.tick_params(axis="y", labelsize=6)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Judges each operation."""
    tflite.check_scheme(FLAGS.export)
    out = Path(FLAGS.out_dir)
    dataset = shared.fine_tuning().dataset()
    fine_tuned = model.load(FLAGS.model_dir)
    check_trained_for(dataset.task, FLAGS.model_dir, "--model_dir")
    graph = tflite.float_graph(fine_tuned)
    judge = judging.judge_on(dataset.task, dataset.guard)
    reference = judge(graph.contents)
    found: list[sensitivity.Loss] = []
    for loss in sensitivity.losses(graph, FLAGS.export, dataset.calibration, judge,
                                   mode=FLAGS.mode, method=FLAGS.ranges):
        found.append(loss)
        logging.info("%s: %.2f %s lost, %.1f dB", short(loss.name),
                     dataset.task.drop(reference, loss.value), dataset.task.drop_unit,
                     loss.logits_sqnr_db)
        shared.write_figures(str(out / "sensitivity.json"), {
            "float32": reference,
            "operations": [dataclasses.asdict(one) for one in found]})
    write_whole(out / "sensitivity.md", table(dataset.task, reference, found))
    plot(found, out / "sensitivity.png")
    print(table(dataset.task, reference, found))


def define_flags() -> None:
    """Defines the flags of this script."""
    shared.define_model()
    shared.define_data()
    shared.define_training()
    flags.DEFINE_string("out_dir", None, "Directory for all results.", required=True)
    shared.define_measuring()
    flags.DEFINE_string("export", "static_wi8_ai8", "A quantized export.")
    flags.DEFINE_enum("mode", "alone", sensitivity.MODES, "Quantize one operation at a "
                      "time, or all but one.")


if __name__ == "__main__":
    define_flags()
    shared.run(main)
