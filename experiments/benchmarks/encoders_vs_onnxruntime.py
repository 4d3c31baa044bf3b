r"""Latency of each family's int8 `.tflite` against ONNX Runtime's int8 of the same.

    python experiments/benchmarks/encoders_vs_onnxruntime.py --text_file=FILE \
        --reference_python=refs/bin/python --report=FILE.json

Models are of published shapes with random weights (times do not depend on their
values), but for the checkpoint that --vectors_of names, whose mean vectors are taken.
Texts are one a request, at the lengths of the file's texts. ONNX Runtime counts with
the fastest of its ways to quantize, with and without spinning threads; both compute the
same, which is checked in float32 first. Cost: five minutes a base shape on two cores.
Expected: a ratio (tfopt's p50 / ONNX Runtime's) below 1.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import common
import hugging_face
import numpy as np
from absl import flags, logging
from latency_vs_onnxruntime import (
    INT8,
    INT8_NO_SPINNING,
    OURS,
    fastest,
    onnx_command,
    onnx_logits,
    spread_out,
    time_in_turn,
)

from tfopt import data, model
from tfopt.cli import script as shared
from tfopt.export import tflite
from tfopt.export.interpreter import Interpreter
from tfopt.files import write_whole
from tfopt.measure import latency
from tfopt.measure.process import TimedProcess

FLAGS = flags.FLAGS
_CHECKED, _TRIED = 20, 40  # texts
_TOLERANCE = 2e-4  # of float32 outputs


def define_texts() -> None:
    """Which texts are asked, and how often."""
    flags.DEFINE_string("text_file", None, "Texts, whose lengths are taken.",
                        required=True)
    flags.DEFINE_integer("texts", 100, "Texts.", lower_bound=1)
    flags.DEFINE_integer("rounds", 7, "Turns of each.", lower_bound=1)
    flags.DEFINE_integer("max_length", 128, "Tokens.", lower_bound=4)


def natural_texts() -> dict:
    """The file's texts, some spread over it, as the timed processes take them."""
    texts = data.read_texts(FLAGS.text_file).texts
    places = spread_out(len(texts), 10 if FLAGS.smoke else FLAGS.texts)
    encoded = data.tokenizer_from("minilm").encode([texts[i] for i in places],
                                                   max_length=FLAGS.max_length)
    return {"ids": list(encoded.ids), "first_lengths": list(encoded.first_lengths)}


def measure(name: str, published: Path, keras_model, texts: dict, place: Path) -> dict:
    """Figures of one model.

    Args:
        name: of it.
        published: its Hugging Face directory.
        keras_model: the same as a model of tfopt's.
        texts: as the timed processes take them.
        place: an empty directory.
    """
    vectors = name == FLAGS.vectors_of
    for scheme in ("float32", "dynamic_wi8_afp32"):
        write_whole(place / f"{scheme}.tflite", tflite.convert(keras_model, scheme))
    exporter = TimedProcess(
        [FLAGS.reference_python, common.HERE / "onnx_export.py", published, place,
         *["--vectors"] * vectors], latency.environment(FLAGS.num_threads))
    exporter.close()
    made, count = exporter.ready, len(texts["ids"])
    checked = {key: [value[i] for i in spread_out(count, _CHECKED)]
               for key, value in texts.items()}
    ours = Interpreter(place / "float32.tflite", num_threads=FLAGS.num_threads).logits(
        checked["ids"], checked["first_lengths"])
    difference = {file: common.check_agreement(
        ours, onnx_logits(path, checked), _TOLERANCE, f"Outputs of {name} and {file}")
        for file, path in made["float32"].items()}
    tried = {key: [value[i] for i in spread_out(count, _TRIED)]
             for key, value in texts.items()}
    best, p50 = fastest(made["int8"], tried)
    logging.info("%s: the fastest of ONNX Runtime is %s", name, best)
    seconds, idle = time_in_turn(
        {OURS: latency.command(place / "dynamic_wi8_afp32.tflite", FLAGS.num_threads),
         INT8: onnx_command(made["int8"][best]),
         INT8_NO_SPINNING: onnx_command(made["int8"][best], "--no_spinning")},
        texts, FLAGS.rounds)
    medians = {key: 1e3 * float(np.median(value)) for key, value in seconds.items()}
    return {"p50_ms": medians,
            "ratio": medians[OURS] / min(medians[INT8], medians[INT8_NO_SPINNING]),
            "onnxruntime_fastest": best, "onnxruntime_p50_ms": p50,
            "float32_difference": difference, "idle_cpu": idle,
            "versions": made["versions"]}


def main() -> None:
    """Measures each model, and reports after each."""
    texts = natural_texts()
    figures = {}
    for name in [*FLAGS.shapes, *filter(None, [FLAGS.vectors_of])]:
        with tempfile.TemporaryDirectory() as directory:
            place = Path(directory)
            if name == FLAGS.vectors_of:
                published = model.directory(name)
                keras_model = model.load(name, head=model.Head(
                    outputs=None, reads="mean", pooler=None))
            else:
                keras_model = model.load(f"random:{name}")
                published = hugging_face.write(keras_model, place / "hugging_face")
            figures[name] = measure(name, published, keras_model, texts, place)
        common.write_report(figures, num_threads=FLAGS.num_threads)


if __name__ == "__main__":
    shared.define_measuring()
    common.define_report()
    common.define_reference()
    define_texts()
    flags.DEFINE_list("shapes", ["distilbert_base", "roberta_base", "electra_base",
                                 "mpnet_base"], "Published shapes, of random weights.")
    flags.DEFINE_string("vectors_of", "minilm", "Checkpoint whose vectors are taken; "
                        "empty for none.")
    shared.run(main)
