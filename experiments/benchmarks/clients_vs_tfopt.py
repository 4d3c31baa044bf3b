r"""What metadata, MediaPipe and tables of one scale do to a classifier's `.tflite`.

    make .venv-clients/.ready
    python experiments/benchmarks/clients_vs_tfopt.py --model_dir=DIR --report=FILE.json

DIR is what finetune.py leaves, or runs/demo/baseline of `make demo`; --eval_file names
labelled texts, by default the demo's. Held against each other are an export with
metadata and one without: bytes, logits, time; MediaPipe and `tfopt.Interpreter` on the
same file: classes, scores, time from text to scores, in turn (MediaPipe on Linux
computes on one thread); and exports with a table of one scale (`for_old_runtimes`)
with those of a scale for each row: accuracy, and whose answers are others. With
--old_python, of MediaPipe 0.10.14, its answers too. Texts are ASCII where programs are
compared, for others are read otherwise. Cost: four minutes for MiniLM on two cores.
Expected: the same class for every text, at most 1.5 times tfopt's time, growth of at
most 0.3 MB, logits of the same bits, 1.01 times the time without metadata.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import common
import numpy as np
from absl import flags

import tfopt
from tfopt import data, model
from tfopt.cli import script as shared
from tfopt.export.interpreter import softmax
from tfopt.files import write_whole
from tfopt.pipeline.options import Data

FLAGS = flags.FLAGS
INT8, FLOAT = "dynamic_wi8_afp32", "float32"
ONE_SCALE = f"{INT8}_one_scale"
MEDIAPIPE, OURS, PLAIN = "mediapipe", "tfopt", "tfopt_without_metadata"


def exports(keras_model, tokenizer, labels: Sequence[str], place: Path
            ) -> tuple[dict[str, Path], dict]:
    """Files by name, with metadata and (`_plain`) without, and their sizes."""
    files, sizes = {}, {}
    for name, scheme in ((INT8, INT8), (FLOAT, FLOAT), (ONE_SCALE, INT8)):
        plain = tfopt.convert(keras_model, scheme, for_old_runtimes=name == ONE_SCALE)
        contents = tfopt.add_metadata(plain, tokenizer, labels)
        for suffix, written in (("", contents), ("_plain", plain)):
            files[name + suffix] = place / f"{name}{suffix}.tflite"
            write_whole(files[name + suffix], written)
        sizes[name] = {"bytes": len(plain), "growth_bytes": len(contents) - len(plain)}
    return files, sizes


def logits(file: Path, tokenizer, texts: Sequence[str]) -> np.ndarray:
    """Logits <float32>[N, C] by `tfopt.Interpreter`."""
    return tfopt.Interpreter(file, num_threads=FLAGS.num_threads, encoder=tokenizer,
                             max_length=512, known=True).predict(texts)


def quality(found: dict[str, np.ndarray], targets: np.ndarray) -> dict:
    """Accuracy of each export, and how many answers are not those of float32."""
    classes = {name: value.argmax(axis=1) for name, value in found.items()}
    return {name: {"accuracy": float((value == targets).mean()),
                   "other_than_float32": int((value != classes[FLOAT]).sum()),
                   "texts": len(targets)} for name, value in classes.items()}


def mediapipe(python: str, file: Path) -> list:
    """The command of MediaPipe's process."""
    return [python, common.HERE / "mediapipe_worker.py", file, "classify"]


def agreement(python: str, files: dict[str, Path], tokenizer, texts: Sequence[str],
              ) -> dict:
    """How MediaPipe's answers to each file compare with tfopt's to the same file."""
    figures = {}
    for name, file in files.items():
        with common.Turns({MEDIAPIPE: mediapipe(python, file)}, 1) as turns:
            theirs = np.array(turns.workers[MEDIAPIPE].ask(texts=texts)["scores"])
        ours = softmax(logits(file, tokenizer, texts))
        figures[name] = {
            "same_class": int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum()),
            "texts": len(texts), "largest_difference": float(abs(ours - theirs).max())}
    return figures


def in_turn(files: dict[str, Path], beside: Path, texts: Sequence[str]) -> dict:
    """Times from text to scores: MediaPipe, tfopt, tfopt without metadata."""
    def ours(name: str) -> list:
        return [sys.executable, common.HERE / "text_worker.py", files[name], beside,
                str(FLAGS.num_threads)]

    commands = {MEDIAPIPE: mediapipe(FLAGS.clients_python, files[INT8]),
                OURS: ours(INT8), PLAIN: ours(f"{INT8}_plain")}
    found: dict[str, list] = {name: [] for name in commands}
    with common.Turns(commands, FLAGS.num_threads) as turns:
        for number in range(-1, FLAGS.rounds):  # round -1 warms up
            answers = turns.round(number, lambda worker: worker.ask(texts=texts))
            if number >= 0:
                for name, answer in answers.items():
                    found[name].append(answer["seconds"])
        idle = turns.idle_cpu()
    seconds = {name: np.array(value) for name, value in found.items()}
    return {"request_ms": {name: common.spread(value)
                           for name, value in seconds.items()},
            "mediapipe_over_tfopt": common.over(seconds[MEDIAPIPE], seconds[OURS]),
            "with_over_without_metadata": common.over(seconds[OURS], seconds[PLAIN]),
            "idle_cpu": idle}


def main() -> None:
    """Exports, compares, times and reports."""
    corpus = data.read(FLAGS.eval_file, shared.read(Data).columns())
    if FLAGS.smoke:
        corpus = corpus.take(range(min(12, len(corpus))))
        FLAGS.rounds = 2
    beside = model.directory(FLAGS.model_dir)
    tokenizer = data.tokenizer_from(beside)
    labels = data.read_labels(beside / data.LABELS_FILE)
    texts = [text for text in corpus.texts if text.isascii()]
    with tempfile.TemporaryDirectory() as place:
        files, sizes = exports(model.load(FLAGS.model_dir), tokenizer, labels,
                               Path(place))
        with_metadata = {name: files[name] for name in sizes}
        found = {name: logits(file, tokenizer, corpus.texts)
                 for name, file in with_metadata.items()}
        figures = {"files": sizes, "logits_identical": {
            name: bool(np.array_equal(value, logits(files[f"{name}_plain"], tokenizer,
                                                    corpus.texts)))
            for name, value in found.items()},
            "quality": quality(found, np.array(corpus.class_ids(labels)))}
        for name, python in (("agreement", FLAGS.clients_python),
                             ("old_agreement", FLAGS.old_python)):
            if python:
                figures[name] = agreement(python, with_metadata, tokenizer, texts)
        if FLAGS.clients_python and FLAGS.rounds:
            figures["in_turn"] = in_turn(files, beside, texts)
    common.write_report(figures, num_threads=FLAGS.num_threads)


def define_flags() -> None:
    """Defines the flags of this script."""
    shared.define_model()
    shared.define(Data, only=("text_column", "label_column"))
    shared.define_measuring()
    common.define_report()
    flags.DEFINE_string("eval_file", str(data.DEMO_DEV_FILE), "Labelled texts.")
    flags.DEFINE_integer("rounds", 7, "Turns of each program; 0 leaves times out.",
                         lower_bound=0)
    flags.DEFINE_string("clients_python", ".venv-clients/bin/python", "Python that has "
                        "MediaPipe 1.2; empty for none.")
    flags.DEFINE_string("old_python", "", "Python that has MediaPipe 0.10.14: "
                        ".venv-clients-old/bin/python.")
    flags.FLAGS.set_default("num_threads", 1)


if __name__ == "__main__":
    define_flags()
    shared.run(main)
