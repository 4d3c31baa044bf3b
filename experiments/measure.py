r"""Measures any `.tflite` or Keras directory on any labelled file.

    python experiments/measure.py --artifact=DIR/model.tflite --eval_file=F \
        --report=FILE.json

Cost: seconds to a minute. Tokenizer and task are looked for beside the artifact, or
in --text_dir.
"""

from __future__ import annotations

from pathlib import Path

import artifacts
import flags as shared
import task as tasks
from absl import flags

from tfopt import data, report
from tfopt.files import write_whole
from tfopt.measure import cost, latency, runners

FLAGS = flags.FLAGS


def main() -> None:
    """Measures and reports."""
    artifact = Path(FLAGS.artifact)
    if not artifact.exists():
        raise ValueError(f"--artifact must exist. Received: {artifact}")
    beside = artifacts.text_directory(artifact, FLAGS.text_dir)
    kind = artifacts.task_of(beside)
    corpus = data.read(FLAGS.eval_file, tasks.columns(kind.number_labels))
    if FLAGS.smoke:
        corpus = corpus.take(range(min(32, len(corpus))))
    part = tasks.encode(corpus, data.tokenizer_from(beside), kind)
    runner = runners.open_artifact(artifact, FLAGS.num_threads)
    logits = runner.logits(part.encoded.ids, part.encoded.first_lengths)
    artifacts.check_outputs(kind, logits.shape[1], beside)
    name = artifact.stem
    rows = report.rows(name, kind.quality(logits, part.targets),
                       Path(FLAGS.eval_file).stem, kind.metrics)
    if artifact.suffix == runners.TFLITE:
        rows += report.rows(name, cost.of_file(artifact) | cost.of_tflite(artifact))
    else:
        from tfopt import model

        keras_model = model.load(artifact)
        rows += report.rows(name, cost.of_file(artifact / model.KERAS_FILE)
                            | cost.of_model(keras_model))
    rows += report.rows(name, latency.measure(
        {name: artifact}, part.encoded.ids, part.encoded.first_lengths,
        num_threads=FLAGS.num_threads, max_tokens=FLAGS.max_length,
        **({"rounds": 1, "texts": 8} if FLAGS.smoke else {}))[name])
    here = report.environment(num_threads=FLAGS.num_threads,
                              command=shared.command())
    if FLAGS.report:
        write_whole(FLAGS.report, report.to_json(here, rows))
    print(report.table(rows))


def define_flags() -> None:
    """Defines the flags of this script."""
    artifacts.define()
    flags.DEFINE_string("eval_file", None, "Labelled examples: .tsv, .csv or .jsonl.",
                        required=True)
    flags.DEFINE_string("report", None, "JSON file for the figures.")
    shared.define_columns()
    shared.define_measuring()


if __name__ == "__main__":
    define_flags()
    shared.run(main)
