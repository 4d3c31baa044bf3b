r"""Fine-tunes an encoder on a text task.

    tfopt finetune --model_dir=DIR --train_file=F --dev_file=F --out_dir=DIR
    python experiments/finetune.py --model_dir=DIR ...   # the same

Source: Devlin et al. 2018, arXiv:1810.04805, section 4. Cost: on two cores, an epoch
of 67,000 short sentences takes MiniLM about ten minutes. Result: a directory that
--model_dir and --baseline_dir of the other commands take. With --teacher_dir, a small
checkpoint learns from a large one that was fine-tuned before.
"""

from __future__ import annotations

from absl import flags

from tfopt import report
from tfopt.cli import flags as shared
from tfopt.files import write_whole
from tfopt.pipeline import run_dir
from tfopt.pipeline.run_options import RunOptions
from tfopt.pipeline.teacher_options import Teacher

FLAGS = flags.FLAGS
flags.disclaim_key_flags()


def main() -> None:
    """Fine-tunes and reports the quality."""
    # These bring TensorFlow, which --help does without.
    from tfopt import compress
    from tfopt.measure import runners
    from tfopt.pipeline import measuring, reference, trials

    tuning = shared.fine_tuning().with_own_length()
    settings = tuning.distillation()  # before any work: it may be wrong
    dataset = tuning.dataset()
    dataset.log_notes()
    teacher = tuning.load_teacher(settings, dataset)
    identity = tuning.identity()
    with run_dir.claim(FLAGS.out_dir, identity) as path:
        state = path / run_dir.STATE
        tuning, settings, dataset = trials.chosen(tuning, settings, dataset, teacher,
                                                  state)
        context = tuning.with_teacher(
            compress.Context(task=dataset.task, train=dataset.train), dataset, settings,
            state, teacher)
        tuning.fill(path, dataset, identity,
                    {"state_dir": state, "log_dir": path / "logs"}, context)
        if run_dir.is_helper():
            return
        runner = runners.open_artifact(path, pad_id=dataset.tokenizer.pad_id)
        dataset = reference.completed(dataset, path)
        found = measuring.Measured()
        found.judge(report.BASELINE, runner, dataset)
        here = report.environment(command=report.command(), notes=dataset.notes)
        write_whole(path / "report.json", report.to_json(here, found.rows,
                                                         found.by_class))
        run_dir.finish(path)
    print(report.table(found.rows))
    print(f"Model: {path}")


def define_flags() -> None:
    """Defines the flags of this command."""
    shared.define_model()
    shared.define_data()
    shared.define_training()
    shared.define(Teacher)
    shared.define_measuring()
    shared.define(RunOptions, only=("out_dir",), required=("out_dir",))
