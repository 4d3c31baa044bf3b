r"""Answers texts: of a classification label and probabilities, a JSON object a line.

    tfopt predict --bundle=runs/mine --text="where is it?"
    tfopt predict --bundle=runs/mine --input_file=texts.tsv
    tfopt predict --bundle=runs/mine --input_file=texts.tsv --output_file=answers.jsonl
    tfopt predict --artifact=DIR/model.tflite < texts.txt
    python experiments/predict.py --bundle=runs/mine ...   # the same

Cost: milliseconds a text; a `.tflite` needs no TensorFlow. With --output_file many
texts are answered by a process a core, in their order, and a killed run goes on. A text
that cannot be answered, such as an empty line, gets an object with "error" in its
place; the exit status is 1 then, once all others are answered.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags, logging

from tfopt import data, tasks
from tfopt.cli import artifacts
from tfopt.cli import flags as shared
from tfopt.data.tokenizer import Tokenizer
from tfopt.data.unlabelled import TEXT_READERS
from tfopt.measure import runners
from tfopt.pipeline.options import DEFAULT_LENGTH, Data
from tfopt.serve import answer_lines, bulk, manifest
from tfopt.types import shown

FLAGS = flags.FLAGS
flags.disclaim_key_flags()


@dataclasses.dataclass
class Answering:
    """A model that answers one text after the other.

    Attributes:
        runner: computes.
        tokenizer: reads texts.
        task: what outputs mean.
        max_length: tokens to which texts are cut; what the model has positions for, as
            soon as a text has shown it.
        warned: whether it was said that texts are cut.
    """

    runner: runners.Runner
    tokenizer: Tokenizer
    task: tasks.Task
    max_length: int
    warned: bool = False

    def answer(self, text: str, pair: str | None) -> dict[str, Any]:
        """The task's answer to a text, or a pair.

        Raises:
            ValueError: the text is empty, or no valid Unicode, or the model refuses it.
        """
        bulk.check(text)
        if pair is not None and self.task.apart:
            bulk.check(pair)
            answer, = self.task.decode_pairs(*(
                self._outputs(part, None)[0][np.newaxis] for part in (text, pair)))
        else:
            outputs, encoded = self._outputs(text, pair)
            answer, = self.task.decode(outputs[np.newaxis], encoded)
        return answer

    def _outputs(self, text: str, pair: str | None) -> tuple[np.ndarray, data.Encoded]:
        while True:
            encoded = self.tokenizer.encode([text], None if pair is None else [pair],
                                            max_length=self.max_length,
                                            places=self.task.per_token)
            ids, first = encoded.ids[0], encoded.first_lengths[0]
            try:
                outputs = self.runner.run(ids, first)
            except ValueError:  # there may be a token beyond the last position
                most = self._positions(len(ids), ids[0])
                if most >= len(ids):
                    raise
                self.max_length = most
                continue
            if encoded.truncated and not self.warned:
                self.warned = True
                logging.warning("Texts are cut to %d tokens, first: %s",
                                self.max_length, shown(text, 60))
            return outputs, encoded

    def _positions(self, tokens: int, known: int) -> int:
        """The most tokens, up to so many, that the model answers.

        Args:
            tokens: at most.
            known: an id of its vocabulary.
        """
        works, fails = 0, tokens + 1
        while fails - works > 1:
            middle = (works + fails) // 2
            try:
                self.runner.run([known] * middle, middle)
                works = middle
            except ValueError:
                fails = middle
        return works


def texts() -> Iterator[tuple[str, str | None]]:
    """The texts that the flags name, or the lines of standard input.

    Yields:
        A text, and the second one of a pair or None.

    Raises:
        ValueError: the input is not UTF-8, or the file is missing or wrong.
    """
    if FLAGS.text:
        pairs: Sequence[str | None] = FLAGS.text_pair or [None] * len(FLAGS.text)
        if len(pairs) != len(FLAGS.text):
            raise ValueError("--text_pair must be given as often as --text, or not at "
                             f"all. Received: {len(FLAGS.text)} and {len(pairs)}")
        yield from zip(FLAGS.text, pairs, strict=True)
    elif FLAGS.input_file and Path(FLAGS.input_file).suffix.lower() in TEXT_READERS:
        found = data.read_texts(FLAGS.input_file, shared.read(Data).columns())
        pairs = found.pairs or [None] * len(found)
        yield from zip(found.texts, pairs, strict=True)
    else:
        yield from ((line, None) for line in _lines())


def _lines() -> Iterator[str]:
    name = FLAGS.input_file or "standard input"
    try:
        lines = open(FLAGS.input_file, "rb") if FLAGS.input_file else sys.stdin.buffer
    except OSError as error:
        raise ValueError(f"--input_file cannot be read: {error.strerror}. Received: "
                         f"{name}") from error
    with lines:
        for number, line in enumerate(lines, start=1):
            try:
                # A first line may have a byte order mark.
                yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip(
                    "\r\n")
            except UnicodeDecodeError as error:
                raise ValueError(f"{name}:{number}: the text must be UTF-8. Received: "
                                 f"byte 0x{line[error.start]:02x}") from error


def opened() -> Answering:
    """The model that the flags name.

    Raises:
        ValueError: none or two are named, or it is not whole.
    """
    if bool(FLAGS.bundle) == bool(FLAGS.artifact):
        raise ValueError("One of --bundle and --artifact must name the model. Received"
                         f": --bundle={FLAGS.bundle}, --artifact={FLAGS.artifact}")
    known = False
    if FLAGS.bundle:
        fields = manifest.read(Path(FLAGS.bundle))  # which checks that it is whole
        known = manifest.MODEL_FILE in fields["files"]
        artifact, directory = Path(FLAGS.bundle) / manifest.MODEL_FILE, FLAGS.bundle
    else:
        artifact, directory = Path(FLAGS.artifact), FLAGS.text_dir
    side = artifacts.text_side(artifact, directory)
    runner = runners.open_artifact(artifact, FLAGS.num_threads, side.tokenizer.pad_id,
                                   known)
    artifacts.check_outputs(side.task, runner.outputs, artifact)
    return Answering(runner, side.tokenizer, side.task,
                     FLAGS.max_length or side.max_length or DEFAULT_LENGTH)


def main() -> None:
    """Answers each text as it comes.

    Raises:
        ValueError: as `opened`, `texts` and `bulk.answer`; or, at the end, some texts
            got no answer.
    """
    if FLAGS.output_file:
        _in_bulk()
        return
    model = opened()
    count, failed, first = 0, 0, ""
    for text, pair in texts():
        count += 1
        try:
            answer = model.answer(text, pair)
        except ValueError as error:
            answer = {"error": str(error)}
            failed, first = failed + 1, first or str(error)
        print(answer_lines.line_of(
            answer_lines.fields_of(text, pair, answer, FLAGS.top_k),
            sys.stdout.encoding or "utf-8"), flush=True)
    _check_failed(failed, count, first)


def _in_bulk() -> None:
    """Answers all texts into a file, by a process a core."""
    if not FLAGS.bundle or FLAGS.artifact:
        raise ValueError("--output_file needs --bundle. Received: --output_file="
                         f"{FLAGS.output_file}, --bundle={FLAGS.bundle}, "
                         f"--artifact={FLAGS.artifact}")
    done = bulk.answer(FLAGS.bundle, list(texts()), FLAGS.output_file,
                       top_k=FLAGS.top_k, processes=FLAGS.processes,
                       max_length=FLAGS.max_length)
    print(f"{FLAGS.output_file}: {done.count:,} answers")
    _check_failed(done.failed, done.count, done.first_error)


def _check_failed(failed: int, count: int, first: str) -> None:
    if failed:
        raise ValueError(f"{failed} of {count} texts have no answer. The first: "
                         f"{first}")


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("bundle", None, "Directory of a bundle, as `tfopt compress` "
                        "leaves it.")
    artifacts.define(required=False)
    flags.DEFINE_multi_string("text", None, "A text; may be given several times.")
    flags.DEFINE_multi_string("text_pair", None, "The second text of a pair, for each "
                              "--text; of vectors, the answer is then their cosine.")
    flags.DEFINE_string("input_file", None, "Texts: .tsv, .csv or .jsonl with the "
                        "column of texts, .conll, else a text a line. Left out, with "
                        "no --text: standard input.")
    flags.DEFINE_string("output_file", None, "File for the answers, in place of "
                        "standard output: many texts are answered by a process a core, "
                        "and a run that was killed goes on with the same command.")
    flags.DEFINE_integer("processes", None, "Processes, with --output_file. Left out: "
                         "one a core.", lower_bound=1)
    shared.define(Data, only=("text_column", "text_pair_column"))
    flags.DEFINE_integer("max_length", None, "Tokens to which texts are cut. Left out: "
                         f"as in training, or {DEFAULT_LENGTH}.", lower_bound=4)
    flags.DEFINE_integer("top_k", 3, "Classes to print, the likeliest first.",
                         lower_bound=1)
    flags.DEFINE_integer("num_threads", None, "Threads of a request. Left out: what "
                         "answers fastest here, tried first.", lower_bound=1)
