r"""Measures any `.tflite` or Keras directory on any labelled file.

    tfopt measure --artifact=DIR/model.tflite --eval_file=F --report=FILE.json
    python experiments/measure.py --artifact=DIR/model.tflite ...   # the same

Cost: seconds to a minute; a `.tflite` needs no TensorFlow. Tokenizer and labels are
looked for beside the artifact, or in --text_dir.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags, logging

from tfopt import data, report
from tfopt.cli import artifacts
from tfopt.cli import flags as shared
from tfopt.data import remarks
from tfopt.files import check_place, write_whole
from tfopt.measure import cost, runners
from tfopt.pipeline import timing
from tfopt.pipeline.options import SMOKE_EXAMPLES, Data
from tfopt.pipeline.splits import check_labels, encode

FLAGS = flags.FLAGS
flags.disclaim_key_flags()


def main() -> None:
    """Measures and reports."""
    artifact = Path(FLAGS.artifact)
    if not artifact.exists():
        raise ValueError(f"--artifact must exist. Received: {artifact}")
    if FLAGS.report:
        check_place(FLAGS.report)
    side = artifacts.text_side(artifact, FLAGS.text_dir)
    options, task = shared.read(Data), side.task
    columns = options.columns(task.label_form)
    if task.apart and columns.pair is None:
        raise ValueError(f"The task {task.name()!r} is judged by pairs with scores: "
                         "--text_pair_column must name the second texts. Received: "
                         "none")
    corpus = data.read(FLAGS.eval_file, columns)
    task = task.of(corpus)
    notes = check_labels(corpus, task, "the file")
    if FLAGS.smoke:
        corpus = corpus.take(range(min(SMOKE_EXAMPLES["dev"], len(corpus))))
    max_length = options.max_length or side.max_length or options.tokens
    part = encode(corpus, side.tokenizer, task, max_length)
    notes += remarks.on_lengths({"the file": part.encoded}, max_length)
    notes += task.remarks("the file", part.targets, part.encoded.truncated)
    for note in notes:
        logging.warning("%s", note)
    runner = runners.open_artifact(artifact, FLAGS.num_threads, side.tokenizer.pad_id)
    artifacts.check_outputs(task, runner.outputs, artifact)
    outputs = runner.logits(part.encoded.ids, part.encoded.first_lengths)
    name = artifact.stem
    split = Path(FLAGS.eval_file).stem
    rows = report.rows(name, task.quality(outputs, part.targets), split, task.metrics)
    classes = task.by_class(outputs, part.targets)
    if artifact.suffix == runners.TFLITE:
        rows += report.rows(name, cost.of_file(artifact) | cost.of_tflite(artifact))
    else:
        from tfopt import model

        rows += report.rows(name, cost.of_file(artifact / model.KERAS_FILE)
                            | cost.of_model(model.load(artifact)))
    rows += report.rows(name, timing.times(
        {name: artifact}, part.encoded, num_threads=FLAGS.num_threads,
        max_tokens=max_length, smoke=FLAGS.smoke)[name])
    here = report.environment(num_threads=FLAGS.num_threads,
                              command=report.command(), notes=notes)
    if FLAGS.report:
        write_whole(FLAGS.report, report.to_json(
            here, rows, {name: {split: classes}} if classes else None))
    print(report.table(rows))


def define_flags() -> None:
    """Defines the flags of this command."""
    artifacts.define()
    flags.DEFINE_string("eval_file", None, "Labelled examples: .tsv, .csv or .jsonl.",
                        required=True)
    flags.DEFINE_string("report", None, "JSON file for the figures.")
    shared.define_columns()
    shared.define_measuring()
