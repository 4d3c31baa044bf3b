"""Answers texts by the model's task: a JSON object a line, such as label and scores.

    python experiments/predict.py --artifact=DIR/model.tflite --text="where is it?"
    python experiments/predict.py --artifact=DIR/model.tflite < texts.txt

Cost: milliseconds a text; a `.tflite` needs no TensorFlow.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import artifacts
import flags as shared
import numpy as np
from absl import flags

from tfopt import data
from tfopt.measure import runners

FLAGS = flags.FLAGS


def texts() -> Iterator[str]:
    """The texts that the flags name, or the lines of standard input.

    Raises:
        ValueError: the input is not UTF-8, or the file is missing.
    """
    if FLAGS.text:
        yield from FLAGS.text
        return
    name = FLAGS.input_file or "standard input"
    try:
        lines = open(FLAGS.input_file, "rb") if FLAGS.input_file else sys.stdin.buffer
    except OSError as error:
        raise ValueError(f"--input_file cannot be read: {error.strerror}. Received: "
                         f"{name}") from error
    with lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise ValueError(f"{name}:{number}: the text must be UTF-8. Received: "
                                 f"byte 0x{line[error.start]:02x}") from error


def main() -> None:
    """Predicts each text as it comes."""
    artifact = Path(FLAGS.artifact)
    beside = artifacts.text_directory(artifact, FLAGS.text_dir)
    wordpiece = data.tokenizer_from(beside)
    task = artifacts.task_of(beside)
    runner = runners.open_artifact(artifact, FLAGS.num_threads)
    for text in texts():
        encoded = wordpiece.encode([text], max_length=FLAGS.max_length)
        outputs = runner.run(encoded.ids[0])
        artifacts.check_outputs(task, len(outputs), beside)
        answer, = task.decode(outputs[np.newaxis], encoded)
        print(json.dumps({"text": text, **{name: shown(value) for name, value
                                           in answer.items()}},
                         ensure_ascii=False), flush=True)


def shown(value):
    """A part of an answer as it is printed: four places, the first scores alone."""
    if isinstance(value, dict):
        return {name: shown(value[name]) for name in [*value][:FLAGS.top_k]}
    return round(value, 4) if isinstance(value, float) else value


def define_flags() -> None:
    """Defines the flags of this script."""
    artifacts.define()
    flags.DEFINE_multi_string("text", None, "A text; may be given several times.")
    flags.DEFINE_string("input_file", None, "A file with a text a line. Left out, with "
                        "no --text: standard input.")
    flags.DEFINE_integer("max_length", 128, "Tokens to which texts are cut.",
                         lower_bound=4)
    flags.DEFINE_integer("top_k", 3, "Classes to print, the likeliest first.",
                         lower_bound=1)
    flags.DEFINE_integer("num_threads", None, "Threads of a request. Left out: what "
                         "answers fastest here, tried first.", lower_bound=1)


if __name__ == "__main__":
    define_flags()
    shared.run(main)
