r"""What quantization costs in accuracy: exports by seeds, post-training and trained.

    python experiments/studies/quantization_table.py --train_file=F --dev_file=F \
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
from pathlib import Path

import numpy as np
import seeds
import tables
from absl import flags

from tfopt import compress, tasks
from tfopt.cli import script as shared
from tfopt.export import tflite
from tfopt.files import write_whole
from tfopt.measure import cost
from tfopt.pipeline import judging

FLAGS = flags.FLAGS
FLOAT = "float32"


def cells() -> list[tuple[str, str]]:
    """(export, "ptq" or "qat"), in the order of the flags."""
    trained = compress.all_passes()["quantization_aware"]
    return [(scheme, how) for scheme in FLAGS.exports for how in FLAGS.ways
            if how == "ptq" or scheme in trained.schemes()]


def quantized(dataset, baseline, scheme: str):
    """The fine-tuned model, trained on with quantization."""
    own = {"epochs": FLAGS.quantized_epochs,
           "learning_rate": FLAGS.quantized_learning_rate}
    settings = dataclasses.replace(shared.fine_tuning().training_settings(),
                                   **({} if FLAGS.smoke else own))
    step = compress.from_fields({"pass": "quantization_aware", "scheme": scheme,
                                 "freeze_fraction": FLAGS.freeze_fraction})
    context = compress.Context(
            task=dataset.task, train=dataset.train, dev=dataset.choose,
            settings=settings)
    outcome, = compress.run(baseline, compress.Recipe(passes=(step,)), context)
    return outcome.model


def run_cell(dataset, baseline, graphs, scheme: str, how: str) -> dict[str, float]:
    """Quantizes, exports and judges.

    Args:
        dataset: the data.
        baseline: fine-tuned.
        graphs: its float graph and the logits of it, made once.
        scheme: the export.
        how: "ptq" or "qat".

    Returns:
        The metric of the file; agreement of its labels, where there are some, and mean
        difference of its outputs over their deviation, with the Keras model that it was
        made of; bytes.
    """
    part = dataset.report["dev"]
    if how == "ptq":
        graph, expected = graphs
    else:
        trained = quantized(dataset, baseline, scheme)
        graph, expected = tflite.float_graph(trained), judging.outputs_of(trained, part)
    # Of a trained model the ranges are trained, but for what is within LayerNorm.
    contents = tflite.quantize(graph, scheme, calibration=dataset.calibration,
                               method=FLAGS.ranges)
    found = judging.outputs_of(contents, part)
    if FLAGS.files_dir is not None:
        write_whole(Path(FLAGS.files_dir) / f"{scheme}_{how}_{FLAGS.seed}.tflite",
                    contents)

    same = [one.label == other.label for one, other in zip(
        *map(dataset.task.signals, (found, expected)), strict=True)]
    return {
        **tables.values(dataset, {"": found, "keras_": expected}),
        **({"agreement": float(np.mean(same))} if dataset.task.labels else {}),
        "logit_difference": float(np.abs(found - expected).mean() / expected.std()),
        "file_bytes": float(len(contents)),
    }


def summary(runs: tables.Runs, kind: tasks.Task) -> dict:
    """Seed -> cell -> figures; their means, and what is lost against float."""
    return tables.summary(runs, FLOAT, kind)


def main() -> None:
    """Fills the table."""
    show(tables.fill([f"{scheme} {how}" for scheme, how in cells()], FLOAT, begin,
                     summary))


def begin(dataset, baseline):
    """What judges a seed's model in float, and what fills its cells."""
    part = dataset.report["dev"]
    graphs = tflite.float_graph(baseline), judging.outputs_of(baseline, part)

    def judge():
        return {**tables.values(dataset, {"": graphs[1]}),
                "parameters": cost.of_model(baseline)["parameters"]}

    return judge, lambda cell: run_cell(dataset, baseline, graphs, *cell.split())


def show(found: dict) -> None:
    """Prints a summary: each cell's mean, and what it lost."""
    for cell in found["means"]:
        print(tables.said_of(cell, found))


def define_flags() -> None:
    """Defines the flags of this script."""
    seeds.define_flags()
    tables.define_flags()
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
