r"""Fine-tunes with several seeds: mean and spread of the task's metric, float and int8.

    python experiments/studies/seeds.py --train_file=F --dev_file=F --seeds=0,1,2 \
        --epochs=3 --report=FILE.json

Source: one run says little; Dodge et al. 2020, arXiv:2002.06305, find several points
between seeds on small sets. Cost: as many fine-tunings as seeds; each is reported when
it is done, and the same command after a kill goes on with the next seed. With
--holdout_fraction, the value on the held-out part is reported too: what settings are
chosen by.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from absl import flags, logging

from tfopt import model, report, tasks
from tfopt.cli import script as shared
from tfopt.export import tflite
from tfopt.files import write_whole
from tfopt.measure import runners
from tfopt.pipeline.dataset import Dataset

FLAGS = flags.FLAGS


def one_seed(seed: int) -> dict[str, dict[str, float]]:
    """Fine-tunes once: artifact -> {split: value of the task's metric}."""
    FLAGS.seed = seed
    dataset = shared.fine_tuning().dataset()
    keras_model, history = shared.fine_tuning().train_model(dataset)
    found = values(keras_model, dataset)
    if dataset.choose is not None and FLAGS.holdout_fraction:
        metric, better = dataset.task.monitor
        best = max if better == "higher" else min
        found[report.BASELINE]["holdout"] = best(
            epoch[f"val_{metric}"] for epoch in history)
    logging.info("Seed %d: %s", seed, found)
    return found


def values(keras_model, dataset: Dataset) -> dict[str, dict[str, float]]:
    """The metric of a model and its exports: artifact -> {split: value}."""
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        model.save(keras_model, directory)
        artifacts = {report.BASELINE: Path(directory)}
        for scheme in FLAGS.exports:
            artifacts[scheme] = Path(directory, f"{scheme}.tflite")
            write_whole(artifacts[scheme], tflite.convert(keras_model, scheme))
        for name, path in artifacts.items():
            runner = runners.open_artifact(path, FLAGS.num_threads,
                                           dataset.tokenizer.pad_id)
            for split, part in dataset.report.items():
                logits = runner.logits(part.encoded.ids, part.encoded.first_lengths)
                found.setdefault(name, {})[split] = dataset.task.value(
                    dataset.task.fitted_quality(logits, part.targets))
    return found


def summary(runs: dict[int, dict[str, dict[str, float]]], metric: str) -> dict:
    """Each seed's value, mean and spread, by the metric's name, as reported."""
    lines = []
    first = next(iter(runs.values()))
    for name, splits in first.items():
        for split in splits:
            each = [run[name][split] for run in runs.values()]
            lines.append({"artifact": name, "split": split, metric: each,
                          "mean": statistics.fmean(each),
                          "spread": max(each) - min(each)})
    return {"seeds": list(runs), metric: lines}


def reported(metric: str) -> dict[int, dict[str, dict[str, float]]]:
    """The seeds that a killed run of the same command has reported."""
    found = shared.reported_figures(FLAGS.report)
    runs: dict[int, dict[str, dict[str, float]]] = {}
    for line in found[metric] if found else []:
        for seed, value in zip(found["seeds"], line[metric], strict=True):
            runs.setdefault(seed, {}).setdefault(
                line["artifact"], {})[line["split"]] = value
    return runs


def main() -> None:
    """Runs every seed; reports each, mean and spread."""
    seeds = [int(seed) for seed in FLAGS.seeds]
    for scheme in FLAGS.exports:
        tflite.check_scheme(scheme)
    metric = tasks.named(FLAGS.task).monitor[0]
    runs = reported(metric)
    for seed in seeds:
        if seed not in runs:
            runs[seed] = one_seed(seed)
            shared.write_figures(FLAGS.report, summary(runs, metric))
    for line in summary(runs, metric)[metric]:
        print(f"{line['artifact']:20} {line['split']:8} mean {line['mean']:.4f} "
              f"spread {line['spread']:.4f} {line[metric]}")


def define_flags() -> None:
    """Defines the flags of this script."""
    shared.define_model()
    shared.define_data()
    shared.define_training()
    shared.define_measuring()
    flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds to run, separated by commas.")
    flags.DEFINE_list("exports", ["dynamic_wi8_afp32"], "Exports to measure beside the "
                      "Keras model.")
    flags.DEFINE_string("report", None, "JSON file for the figures.", required=True)


if __name__ == "__main__":
    define_flags()
    shared.run(main)
