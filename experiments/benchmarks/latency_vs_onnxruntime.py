r"""Latency of tfopt's int8 `.tflite` against ONNX Runtime on the same model.

    python experiments/benchmarks/latency_vs_onnxruntime.py --eval_file=F \
        --baseline_dir=DIR --artifact=DIR/model.tflite \
        --reference_python=refs/bin/python --report=FILE.json

DIR is what finetune.py and compress.py left: the Keras model, and its
dynamic_wi8_afp32 export. The reference is what ONNX Runtime's documentation advises for
BERT on a CPU: export, its own fusions, `quantize_dynamic`; of all ways to quantize, the
fastest here counts. Also timed: a `.tflite` converted by hand, without tfopt's wiring.
One text at a time at its natural length. Cost: some three minutes for MiniLM on two
cores. Expected: a ratio (tfopt's p50 / ONNX Runtime's int8 p50) of 1 or below.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import common
import hugging_face
import numpy as np
from absl import flags, logging

from tfopt import data, model, tasks
from tfopt.cli import script as shared
from tfopt.files import write_whole
from tfopt.measure import latency, runners
from tfopt.measure.process import TimedProcess
from tfopt.pipeline.options import Data
from tfopt.pipeline.splits import Split, encode

FLAGS = flags.FLAGS
OURS, BY_HAND = "tfopt_dynamic_wi8_afp32", "by_hand_dynamic_wi8_afp32"
INT8, INT8_NO_SPINNING = "onnxruntime_int8", "onnxruntime_int8_no_spinning"
FLOAT = "onnxruntime_float32"
_TOLERANCE = 1e-4  # of float32 logits between Keras and ONNX Runtime
_CHECKED = 50  # texts on which that is checked
_TRIAL_TEXTS, _TRIAL_ROUNDS = 60, 3  # to find the fastest ways to quantize


def convert_by_hand(keras_model) -> bytes:
    """Converts as TensorFlow's documentation does: the trained model as it is."""
    from tfopt.backend import tf

    module = tf.Module()
    module.model = keras_model
    specs = {tensor.name: tf.TensorSpec([1, None], tensor.dtype, name=tensor.name)
             for tensor in keras_model.inputs}
    module.serve = tf.function(
        lambda **inputs: {"logits": keras_model(inputs, training=False)})
    with tempfile.TemporaryDirectory() as directory:
        tf.saved_model.save(module, directory, signatures={
            "serving_default": module.serve.get_concrete_function(**specs)})
        converter = tf.lite.TFLiteConverter.from_saved_model(directory)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return converter.convert()


def onnx_command(file: str, *options: str) -> list:
    """The command of a process that times an ONNX file."""
    return [FLAGS.reference_python, common.HERE / "onnxruntime_worker.py", file,
            str(FLAGS.num_threads), *options]


def request(part, indices) -> dict:
    """The texts at these places, as the processes take them."""
    return {"ids": [part.encoded.ids[i] for i in indices],
            "first_lengths": [part.encoded.first_lengths[i] for i in indices]}


def spread_out(total: int, count: int) -> list[int]:
    """Places of `count` texts, evenly over `total`."""
    places = np.linspace(0, total - 1, min(count, total)).astype(int)
    return np.unique(places).tolist()


def time_in_turn(commands: Mapping[str, list], texts: dict, rounds: int):
    """Times processes: name -> seconds <float>[rounds, N], and how idle they were."""
    with common.Turns(commands, FLAGS.num_threads) as turns:
        seconds = {name: [] for name in commands}
        for number in range(-1, rounds):  # round -1 warms up
            answers = turns.round(number, lambda worker: worker.ask(**texts))
            if number >= 0:
                for name, answer in answers.items():
                    seconds[name].append(answer["seconds"])
        return ({name: np.array(value) for name, value in seconds.items()},
                turns.idle_cpu())


def fastest(files: Mapping[str, str], texts: dict) -> tuple[str, dict[str, float]]:
    """The file with the lowest p50, and the p50 of all, in ms."""
    seconds, _ = time_in_turn({name: onnx_command(file)
                               for name, file in files.items()}, texts, _TRIAL_ROUNDS)
    p50 = {name: common.spread(value)["p50_ms"] for name, value in seconds.items()}
    return min(p50, key=p50.get), p50


def onnx_logits(file: str, texts: dict) -> np.ndarray:
    """Logits <float>[N, C] of an ONNX file."""
    with common.Turns({"": onnx_command(file)}, FLAGS.num_threads) as turns:
        return np.array(turns.workers[""].ask(**texts)["logits"])


def evaluated() -> tuple[tasks.Task, Split]:
    """The task of the baseline, and the texts by which it is judged."""
    corpus = data.read(FLAGS.eval_file, shared.read(Data).columns())
    if FLAGS.smoke:
        corpus = corpus.take(range(min(32, len(corpus))))
    beside = model.directory(FLAGS.baseline_dir)
    kind = tasks.named("classification")(
        labels=tuple(data.read_labels(beside / data.LABELS_FILE)))
    return kind, encode(corpus, data.tokenizer_from(beside), kind,
                        shared.read(Data).tokens)


def exported(out: Path) -> dict:
    """ONNX files of the baseline by dtype and optimizer, and versions."""
    logging.info("Exporting to ONNX")
    published = hugging_face.write(model.load(FLAGS.baseline_dir), out / "hugging_face")
    exporter = TimedProcess([FLAGS.reference_python, common.HERE / "onnx_export.py",
                             published, out], latency.environment(FLAGS.num_threads))
    exporter.close()
    return exporter.ready


def differences_to_keras(files: Mapping[str, str], texts: dict) -> dict[str, float]:
    """Largest difference of logits; none is above the tolerance."""
    keras_logits = runners.KerasRunner(FLAGS.baseline_dir).logits(
        texts["ids"], texts["first_lengths"])
    return {name: common.check_agreement(keras_logits, onnx_logits(file, texts),
                                         _TOLERANCE, f"Logits of Keras and {name}")
            for name, file in files.items()}


def ratios(seconds: Mapping[str, np.ndarray]) -> dict:
    """Our p50 over that of the faster way of ONNX Runtime, and over what is ours."""
    medians = {name: float(np.median(value)) for name, value in seconds.items()}
    reference = min((INT8, INT8_NO_SPINNING), key=medians.get)
    return {
        "ratio": medians[OURS] / medians[reference],
        "ratio_to": reference,
        "ratio_paired": float(np.median(seconds[OURS] / seconds[reference])),
        "ratio_to_by_hand": medians[OURS] / medians[BY_HAND],
        "rounds_p50_ms": [
            {name: 1e3 * float(np.median(value[i])) for name, value in seconds.items()}
            for i in range(len(seconds[OURS]))]}


def main() -> None:
    """Exports, checks, times in turn, and reports."""
    kind, part = evaluated()
    every = request(part, range(len(part.encoded.ids)))
    count = len(every["ids"])
    with tempfile.TemporaryDirectory() as directory:
        by_hand = Path(directory) / "by_hand.tflite"
        write_whole(by_hand, convert_by_hand(model.load(FLAGS.baseline_dir)))
        made = exported(Path(directory))
        differences = differences_to_keras(
            made["float32"], request(part, spread_out(count, _CHECKED)))
        trial = request(part, spread_out(count, _TRIAL_TEXTS))
        best_float, float_p50 = fastest(made["float32"], trial)
        best_int8, int8_p50 = fastest(made["int8"], trial)
        logging.info("Fastest of ONNX Runtime: %s, %s", best_float, best_int8)
        onnx_files = {INT8: made["int8"][best_int8],
                      INT8_NO_SPINNING: made["int8"][best_int8],
                      FLOAT: made["float32"][best_float]}
        tflite_files = {OURS: Path(FLAGS.artifact), BY_HAND: by_hand}
        commands = {name: latency.command(file, FLAGS.num_threads)
                    for name, file in tflite_files.items()} | {
            name: onnx_command(file, *["--no_spinning"] * (name == INT8_NO_SPINNING))
            for name, file in onnx_files.items()}
        texts = request(part, spread_out(count, FLAGS.texts))
        seconds, idle_cpu = time_in_turn(commands, texts,
                                         1 if FLAGS.smoke else FLAGS.rounds)
        logits = {name: runners.open_artifact(file, FLAGS.num_threads).logits(**every)
                  for name, file in tflite_files.items()} | {
            name: onnx_logits(onnx_files[name], every) for name in (INT8, FLOAT)}
        sizes = {name: Path(file).stat().st_size
                 for name, file in (tflite_files | onnx_files).items()}
    common.write_report({
        "latency": {name: common.spread(value) for name, value in seconds.items()},
        **ratios(seconds),
        "accuracy": {name: kind.quality(outputs, part.targets)["accuracy"]
                     for name, outputs in logits.items()},
        "file_bytes": sizes,
        "onnxruntime_int8_file": best_int8,
        "onnxruntime_float32_file": best_float,
        "trial_p50_ms": float_p50 | int8_p50,
        "logits_difference_to_keras": differences,
        "texts": len(texts["ids"]),
        "tokens_mean": float(np.mean([len(ids) for ids in texts["ids"]])),
        "idle_cpu": idle_cpu,
    }, num_threads=FLAGS.num_threads, reference=made["versions"])


if __name__ == "__main__":
    shared.define_columns()
    shared.define_measuring()
    common.define_reference()
    common.define_report()
    flags.DEFINE_string("artifact", None, "The dynamic_wi8_afp32 .tflite that "
                        "compress.py made.", required=True)
    flags.DEFINE_string("baseline_dir", None, "The Keras model it was made from, as "
                        "finetune.py leaves it.", required=True)
    flags.DEFINE_string("eval_file", None, "Labelled examples: .tsv, .csv or .jsonl.",
                        required=True)
    flags.DEFINE_integer("rounds", 3, "Turns of each program.", lower_bound=1)
    flags.DEFINE_integer("texts", 400, "Texts of a turn, spread over the file.",
                         lower_bound=1)
    shared.run(main)
