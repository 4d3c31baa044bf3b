r"""Fine-tunes with several seeds: mean and spread of the accuracy, float and int8.

    python experiments/seeds.py --train_file=F --dev_file=F --seeds=0,1,2 \
        --epochs=3 --report=FILE.json

Source: one run says little; Dodge et al. 2020, arXiv:2002.06305, find several points
between seeds on small sets. Cost: as many fine-tunings as seeds. With
--holdout_fraction, the accuracy on the held-out part is reported too: what settings
are chosen by.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import flags as shared
import task as tasks
from absl import flags, logging

from tfopt import model, report, train
from tfopt.export import tflite
from tfopt.files import write_whole
from tfopt.measure import quality, runners
from tfopt.train import strategy

FLAGS = flags.FLAGS


def one_seed(seed: int) -> dict[str, dict[str, float]]:
    """Fine-tunes once: artifact -> {split: accuracy}."""
    FLAGS.seed = seed
    task = tasks.load()
    with strategy.make(FLAGS.strategy).scope():
        keras_model = model.load(FLAGS.model_dir, num_labels=len(task.labels),
                                 seed=seed)
    tasks.check_length(keras_model)
    history = train.fit(keras_model, task.train, task.choose, tasks.settings())
    found: dict[str, dict[str, float]] = {}
    if task.choose is not None and FLAGS.holdout_fraction:
        found[report.BASELINE] = {
            "holdout": max(epoch["val_accuracy"] for epoch in history)}
    with tempfile.TemporaryDirectory() as directory:
        model.save(keras_model, directory)
        artifacts = {report.BASELINE: Path(directory)}
        for scheme in FLAGS.exports:
            artifacts[scheme] = Path(directory, f"{scheme}.tflite")
            write_whole(artifacts[scheme], tflite.convert(keras_model, scheme))
        for name, path in artifacts.items():
            runner = runners.open_artifact(path, FLAGS.num_threads)
            for split, part in task.report.items():
                logits = runner.logits(part.encoded.ids, part.encoded.first_lengths)
                found.setdefault(name, {})[split] = quality.measure(
                    logits, part.class_ids)["accuracy"]
    logging.info("Seed %d: %s", seed, found)
    return found


def main() -> None:
    """Runs every seed; reports each, mean and spread."""
    seeds = [int(seed) for seed in FLAGS.seeds]
    runs = {seed: one_seed(seed) for seed in seeds}
    lines = []
    for name in runs[seeds[0]]:
        for split in runs[seeds[0]][name]:
            values = [runs[seed][name][split] for seed in seeds]
            lines.append({"artifact": name, "split": split, "accuracy": values,
                          "mean": statistics.fmean(values),
                          "spread": max(values) - min(values)})
            print(f"{name:20} {split:8} mean {lines[-1]['mean']:.4f} "
                  f"spread {lines[-1]['spread']:.4f} {values}")
    shared.write_figures(FLAGS.report, {"seeds": seeds, "accuracy": lines})


def define_flags() -> None:
    """Defines the flags of this script."""
    shared.define_model()
    shared.define_data()
    shared.define_training(out_dir=False)
    shared.define_measuring()
    flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds to run, separated by commas.")
    flags.DEFINE_list("exports", ["dynamic_wi8_afp32"], "Exports to measure beside the "
                      "Keras model.")
    flags.DEFINE_string("report", None, "JSON file for the figures.", required=True)


if __name__ == "__main__":
    define_flags()
    shared.run(main)
