r"""What exports of vectors of texts lose, without any training: pairs with scores.

    python experiments/studies/sentence_vectors.py --model_dir=minilm \
        --dev_file=dev.tsv --text_pair_column=text_pair --label_column=score \
        --schemes=float32,dynamic_wi8_afp32 --report=sentence_vectors.json

The model is taken as it is published; its vectors are judged by Spearman's correlation
of their cosines and the scores, and by the mean cosine with the float Keras model's.
Nothing is timed. Cost: a minute for each export and 1,500 pairs.
"""

from __future__ import annotations

import dataclasses

from absl import flags, logging

from tfopt import model
from tfopt.cli import script as shared
from tfopt.export import tflite
from tfopt.pipeline import judging

FLAGS = flags.FLAGS


def main() -> None:
    """Judges the Keras model and each export."""
    for scheme in FLAGS.schemes:
        tflite.check_scheme(scheme)
    tuning = dataclasses.replace(shared.fine_tuning(), task="embedding")
    dataset = tuning.dataset()
    dataset.log_notes()
    task, part = dataset.task, dataset.report["dev"]
    if not part.paired:
        raise ValueError("--text_pair_column must name the second texts of --dev_file. "
                         "Received: none")
    published = model.load(tuning.model, head=task.head())
    graph = tflite.float_graph(published)
    outputs = {"keras_float32": judging.outputs_of(published, part)}
    figures: dict[str, dict[str, float]] = {}
    for name in ("keras_float32", *FLAGS.schemes):
        if name not in outputs:
            outputs[name] = judging.outputs_of(
                tflite.quantize(graph, name, calibration=dataset.calibration)
                if tflite.is_quantized(name) else tflite.convert(published, name), part)
        first = outputs["keras_float32"]
        figures[name] = (task.quality(outputs[name], part.targets)
                         | task.agreement(outputs[name], first))
        lost = task.drop(figures["keras_float32"]["spearman"],
                         figures[name]["spearman"])
        figures[name]["spearman_points_lost"] = lost
        logging.info("%s: Spearman %.4f, %.2f points lost, cosine %.4f", name,
                     figures[name]["spearman"], lost,
                     figures[name]["cosine_to_baseline"])
        if FLAGS.report:
            shared.write_figures(FLAGS.report, {
                "pairs": len(part.targets) // 2, "of": figures})


def define_flags() -> None:
    """Defines the flags of this script."""
    shared.define_model()
    shared.define_data()
    shared.define_training()
    shared.define_measuring()
    flags.DEFINE_list("schemes", ["float32", "float16", "dynamic_wi8_afp32"],
                      "Exports to judge.")
    flags.DEFINE_string("report", None, "JSON file for the figures.")


if __name__ == "__main__":
    define_flags()
    shared.run(main)
