r"""Writes what LiteRT's C++ `benchmark_model` needs to time a model on a device.

    tfopt bench --bundle=runs/mine --text="where is my parcel??" --out_dir=bench
    tfopt bench --artifact=DIR/model.tflite --tokens=64 --out_dir=bench \
        --device_dir=/data/local/tmp

In --out_dir is a file of values for each input, and `command.txt` with the command
line, which is printed, too. `benchmark_model`'s own chance numbers are no ids of a
vocabulary, so that text models fail on them. The model answers the text here once,
before anything is written. Cost: seconds; needs no TensorFlow.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from tfopt import data, inputs
from tfopt.cli import artifacts
from tfopt.files import check_place, write_whole
from tfopt.measure import benchmark_inputs, runners
from tfopt.serve import manifest

FLAGS = flags.FLAGS
flags.disclaim_key_flags()
FIRST = ("bundle",)
COMMAND_FILE = "command.txt"
_TEXT = "where is my parcel, and when will it be here?"
_LONGEST = 512  # tokens of a text where nothing says more


def main() -> None:
    """Writes the files, and prints the command line.

    Raises:
        ValueError: the model is missing, no text model, or does not take the text.
    """
    if bool(FLAGS.bundle) == bool(FLAGS.artifact):
        raise ValueError("One of --bundle and --artifact must name the model. Received"
                         f": --bundle={FLAGS.bundle}, --artifact={FLAGS.artifact}")
    if FLAGS.bundle:
        manifest.read(Path(FLAGS.bundle))  # which checks that it is whole
        artifact = Path(FLAGS.bundle) / manifest.MODEL_FILE
    else:
        artifact = Path(FLAGS.artifact)
    if artifact.suffix != runners.TFLITE or not artifact.is_file():
        raise ValueError("benchmark_model runs a .tflite alone. Received: "
                         f"{artifact}")
    place = Path(FLAGS.out_dir)
    check_place(place / COMMAND_FILE)
    named = benchmark_inputs.tensors(artifact)
    side = artifacts.text_side(artifact, FLAGS.bundle or FLAGS.text_dir)
    encoded = example(side, FLAGS.text, FLAGS.text_pair, FLAGS.tokens)
    runner = runners.open_artifact(artifact, FLAGS.num_threads, side.tokenizer.pad_id,
                                   known=bool(FLAGS.bundle))
    runner.run(encoded.ids[0], encoded.first_lengths[0])
    values = inputs.build(
        encoded.ids, encoded.first_lengths, list(named.values()),
        length=getattr(runner, "fixed_length", None), pad_id=side.tokenizer.pad_id)
    shape = values[inputs.INPUT_NAMES[0]].shape
    there = FLAGS.device_dir and FLAGS.device_dir.rstrip("/")
    command = benchmark_inputs.command_line(benchmark_inputs.flags(
        named, shape, there or str(place),
        f"{there}/{artifact.name}" if there else str(artifact),
        num_threads=FLAGS.num_threads, warmup_runs=FLAGS.warmup_runs,
        num_runs=FLAGS.num_runs))
    for role, value in values.items():
        write_whole(place / benchmark_inputs.file_of(role),
                    benchmark_inputs.contents(value))
    write_whole(place / COMMAND_FILE, f"{command}\n")
    print(f"{place}: {len(encoded.ids[0])} tokens, in inputs of {shape[1]}\n{command}")


def example(side: artifacts.WholeTextSide, text: str, pair: str | None,
            tokens: int | None) -> data.Encoded:
    """The ids of a text or a pair; with `tokens`, of it again and again, exactly these.

    Raises:
        ValueError: the text has no token to be repeated.
    """
    if not tokens:
        return side.tokenizer.encode([text], None if pair is None else [pair],
                                     max_length=side.max_length or _LONGEST)
    encoded = side.tokenizer.encode(
        [" ".join([text] * tokens)],
        None if pair is None else [" ".join([pair] * tokens)], max_length=tokens)
    if len(encoded.ids[0]) != tokens:
        raise ValueError("For --tokens a text must have tokens that can be repeated. "
                         f"Received: --text={text!r:.60}")
    return encoded


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("bundle", None, "Directory of a bundle, as `tfopt compress` "
                        "leaves it.")
    artifacts.define(required=False)
    flags.DEFINE_string("text", _TEXT, "The text that is computed.")
    flags.DEFINE_string("text_pair", None, "The second text of a pair.")
    flags.DEFINE_integer("tokens", None, "Tokens, special ones included: the text is "
                         "repeated, and cut to these. Left out: the text's own, or as "
                         "in training.", lower_bound=4, upper_bound=1 << 14)
    flags.DEFINE_string("out_dir", None, "Directory for the files.", required=True)
    flags.DEFINE_string("device_dir", None, "Directory on the device that the model "
                        "and the files will lie in, such as /data/local/tmp. Left out: "
                        "where they are here.")
    flags.DEFINE_integer("num_threads", 1, "Threads of a request.", lower_bound=1)
    flags.DEFINE_integer("warmup_runs", 5, "Runs before those that count.",
                         lower_bound=0)
    flags.DEFINE_integer("num_runs", 50, "Runs that are timed.", lower_bound=1)
