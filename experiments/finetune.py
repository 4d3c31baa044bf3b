r"""Fine-tunes a BERT on a text task.

    python experiments/finetune.py --model_dir=DIR --train_file=F --dev_file=F \
        --out_dir=DIR

Source: Devlin et al. 2018, arXiv:1810.04805, section 4. Cost: on two cores, an epoch
of 67,000 short sentences takes MiniLM about ten minutes. Result: a directory that
`--model_dir` and `--baseline_dir` of the other scripts take. With --teacher_dir, a
small checkpoint learns from a large one that was fine-tuned before.
"""

from __future__ import annotations

from pathlib import Path

import flags as shared
import run_dir
import task as tasks
from absl import flags, logging

from tfopt import compress, model, report
from tfopt.files import write_whole
from tfopt.measure import runners

FLAGS = flags.FLAGS


def finetune(task: tasks.Task, path: Path, state: Path, logs: Path,
             context: compress.Context | None = None) -> None:
    """Fine-tunes into a directory; does nothing where that is done already.

    Args:
        task: what to learn.
        path: where the model goes, whole or not at all.
        state: where a killed run finds its state.
        logs: where TensorBoard's files go.
        context: with a teacher, if there is one.
    """
    if (path / model.KERAS_FILE).exists():
        logging.info("Fine-tuned already: %s", path)
        return
    keras_model, _ = tasks.finetune(task, context, state_dir=state, log_dir=logs)
    tasks.save_text_side(task, path)
    model.save(keras_model, path)


def main() -> None:
    """Fine-tunes and reports the accuracy."""
    settings = tasks.distillation()  # before any work: its flags may be wrong
    task = tasks.load(distils=True)
    with run_dir.claim(FLAGS.out_dir, "finetune") as path:
        state = path / run_dir.STATE
        context = tasks.with_teacher(
            compress.Context(task=task.kind, train=task.train), task, settings, state)
        finetune(task, path, state, path / "logs", context)
    if run_dir.is_helper():
        return
    runner = runners.open_artifact(path)
    rows = []
    for split, examples in task.report.items():
        logits = runner.logits(examples.encoded.ids, examples.encoded.first_lengths)
        rows += report.rows(report.BASELINE,
                            task.kind.quality(logits, examples.targets), split,
                            task.kind.metrics)
    here = report.environment(command=shared.command())
    write_whole(path / "report.json", report.to_json(here, rows))
    run_dir.finish(path)
    print(report.table(rows))
    print(f"Model: {path}")


def define_flags() -> None:
    """Defines the flags of this script."""
    shared.define_model()
    shared.define_data()
    shared.define_training()
    shared.define_distillation()
    shared.define_measuring()


if __name__ == "__main__":
    define_flags()
    shared.run(main)
