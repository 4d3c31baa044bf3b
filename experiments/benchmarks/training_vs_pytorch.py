r"""Training speed of tfopt against PyTorch and transformers, on the same batches.

    python experiments/benchmarks/training_vs_pytorch.py --train_file=F \
        --reference_python=refs/bin/python --report=FILE.json

Source: the fine-tuning of Devlin et al. 2018, arXiv:1810.04805. The same weights, the
same batches in the same order, dropout, clipping, AdamW, warm-up and decay; float32.
Both references are PyTorch's: AdamW as it is constructed by default, and fused. Cost:
about five minutes for MiniLM on two cores. Expected: a step as fast as PyTorch's; a
ratio is tfopt / reference, below 1 where tfopt is faster.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from pathlib import Path

import common
import hugging_face
import numpy as np
from absl import flags, logging

from tfopt import data, model, tasks, train
from tfopt.cli import script as shared
from tfopt.files import to_json
from tfopt.pipeline.options import Data
from tfopt.pipeline.splits import encode
from tfopt.types import INPUT_NAMES

FLAGS = flags.FLAGS
OURS = "tfopt"
# Logits of both programs before training; float32 sums in another order.
_TOLERANCE = 1e-4


def write_batches(path: Path) -> dict[str, float]:
    """Writes the first batches of the train file to an .npz; returns figures on them.

    Raises:
        ValueError: the file has too few examples.
    """
    corpus = data.read(FLAGS.train_file, shared.read(Data).columns())
    kind = tasks.named("classification").from_corpus(corpus)
    part = encode(corpus, data.tokenizer_from(model.directory(FLAGS.model_dir)), kind,
                  shared.read(Data).tokens)
    batches = data.Batches(part.encoded, part.targets, batch_size=FLAGS.batch_size,
                           shuffle_seed=0, drop_remainder=True)
    count = 4 if FLAGS.smoke else FLAGS.batches
    if batches.steps_per_epoch < count:
        raise ValueError(f"--train_file must fill {count} batches. Received: "
                         f"{len(corpus)} examples")
    arrays, tokens, visible = {"count": np.array(count)}, [], 0
    for i, (inputs, label) in enumerate(batches.dataset().take(count)):
        arrays[f"label_{i}"] = label.numpy()
        for name in INPUT_NAMES:
            arrays[f"{name}_{i}"] = inputs[name].numpy()
        tokens.append(arrays[f"input_ids_{i}"].shape[1])
        visible += int(arrays[f"attention_mask_{i}"].sum())
    np.savez(path, **arrays)
    return {"batches": count, "batch_size": FLAGS.batch_size, "labels": kind.outputs,
            "tokens_min": min(tokens), "tokens_median": float(np.median(tokens)),
            "tokens_max": max(tokens),
            "padding": 1 - visible / (sum(tokens) * FLAGS.batch_size)}


def compare(seconds: dict[str, np.ndarray]) -> dict:
    """Figures of the steps.

    Args:
        seconds: name -> <float>[rounds, steps], of the same batches.

    Returns:
        The figures; ratios are paired by batch.
    """
    references = [name for name in seconds if name != OURS]
    ms = {name: 1e3 * value for name, value in seconds.items()}
    return {
        "step_ms": {name: float(np.median(value)) for name, value in ms.items()},
        "examples_per_s": {name: FLAGS.batch_size * value.size / float(value.sum())
                           for name, value in seconds.items()},
        "ratio": {name: float(np.median(ms[OURS] / ms[name])) for name in references},
        "ratio_of_sums": {name: float(ms[OURS].sum() / ms[name].sum())
                          for name in references},
        "rounds": [
            {"step_ms": {name: float(np.median(ms[name][i])) for name in ms},
             "ratio": {name: float(np.median(ms[OURS][i] / ms[name][i]))
                       for name in references}}
            for i in range(len(ms[OURS]))],
    }


def main() -> None:
    """Trains both in turn, and reports."""
    rounds, steps = (2, 2) if FLAGS.smoke else (FLAGS.rounds, FLAGS.segment_steps)
    with tempfile.TemporaryDirectory() as directory:
        batches = Path(directory) / "batches.npz"
        about = write_batches(batches)
        passes = 1 + -(-rounds * steps // about["batches"])
        settings = train.Settings(epochs=passes + 1)  # no run ends within a segment
        text = to_json(dataclasses.asdict(settings))
        published = hugging_face.write(
            model.load(FLAGS.model_dir, num_labels=about["labels"], seed=settings.seed),
            Path(directory) / "hugging_face")
        reference = [FLAGS.reference_python, common.HERE / "pytorch_worker.py",
                     published, batches, text, str(FLAGS.num_threads)]
        with common.Turns({
            OURS: [sys.executable, common.HERE / "tfopt_worker.py", FLAGS.model_dir,
                   batches, text, str(about["labels"])],
            "pytorch": reference,
            "pytorch_fused": [*reference, "--fused"],
        }, FLAGS.num_threads) as turns:
            workers = turns.workers
            difference = common.check_agreement(
                workers[OURS].ready["logits"], workers["pytorch"].ready["logits"],
                _TOLERANCE, "The logits of tfopt and PyTorch")
            # Every length once, since each is compiled or planned anew.
            turns.round(-1, lambda worker: worker.ask(steps=about["batches"]))
            answers = []
            for number in range(rounds):
                answers.append(turns.round(
                    number, lambda worker: worker.ask(steps=steps)))
                logging.info("Round %d of %d: %s", number + 1, rounds, ", ".join(
                    f"{name} {1e3 * np.median(answer['seconds']):.0f} ms"
                    for name, answer in answers[-1].items()))
            figures = compare({
                name: np.array([answer[name]["seconds"] for answer in answers])
                for name in workers})
            figures |= {
                "data": about,
                "epoch_loss": {name: answers[-1][name]["epoch_loss"]
                               for name in workers},
                "logits_difference": difference,
                "idle_cpu": turns.idle_cpu(),
            }
            ready = workers["pytorch"].ready
    common.write_report(figures, num_threads=FLAGS.num_threads,
                        reference={key: ready[key] for key in
                                   ("versions", "attention")})


if __name__ == "__main__":
    shared.define_model()
    shared.define_columns()
    shared.define_measuring()
    common.define_reference()
    common.define_report()
    flags.DEFINE_string("train_file", os.fspath(data.DEMO_TRAIN_FILE), "Labelled "
                        "examples: .tsv, .csv or .jsonl.")
    flags.DEFINE_integer("batches", 40, "Batches, gone over again and again.",
                         lower_bound=1)
    flags.DEFINE_integer("batch_size", 32, "Examples a step.", lower_bound=1)
    flags.DEFINE_integer("rounds", 12, "Turns of each program.", lower_bound=1)
    flags.DEFINE_integer("segment_steps", 10, "Steps of a turn.", lower_bound=1)
    shared.run(main)
