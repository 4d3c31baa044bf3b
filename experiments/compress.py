r"""The whole road: fine-tune, compress by a recipe, export, measure, report.

    python experiments/compress.py --model_dir=DIR --train_file=F --dev_file=F \
        --recipe=int8 --out_dir=DIR

Cost: the fine-tuning (unless --baseline_dir names one), the recipe's own training, and
a minute or two of timing. Result: model.tflite with its vocabulary and labels,
report.{json,md,png}; structure.png where heads and neurons are cut; where kernels are
stored without their zeros, exports/saved_model, which TensorFlow runs without tfopt.
Without --train_file it runs on the embedded support intents.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import flags as shared
import numpy as np
import run_dir
import targets
import task as tasks
from absl import flags, logging
from finetune import finetune

from tfopt import compress, data, model, report
from tfopt.backend import keras
from tfopt.compress import facts
from tfopt.export import densify, saved_model, tflite
from tfopt.files import write_whole
from tfopt.measure import cost, latency, runners, sensitivity
from tfopt.model.anatomy import Anatomy
from tfopt.sparse import embedding

FLAGS = flags.FLAGS
RECIPES = Path(__file__).parent / "recipes"
_SAVED_MODEL = Path("exports") / "saved_model"
_MANY_ZEROS = 0.95  # share of nonzeros below which the report speaks of the zeros


def load_recipe(name: str) -> compress.Recipe:
    """Reads a recipe by its file, or by its name among the ones that come along.

    Raises:
        ValueError: there is none, or it is wrong.
    """
    known = RECIPES / f"{name}.json"
    path = known if known.exists() else Path(name)
    if not path.is_file():
        raise ValueError(
            "--recipe must be a file or one of "
            f"{sorted(p.stem for p in RECIPES.glob('*.json'))}. Received: {name!r}")
    recipe = compress.Recipe.load(path)
    for scheme in recipe.exports:
        tflite.check_scheme(scheme)
    return recipe


def fine_tuned(task, out: Path) -> Path:
    """Directory of the baseline that the flags name, or that is fine-tuned now.

    Raises:
        ValueError: the one named is of other labels.
    """
    if FLAGS.baseline_dir is None:
        finetune(task, out / "baseline", out / run_dir.STATE / "baseline", out / "logs")
        return out / "baseline"
    tasks.check_trained_for(task.kind, Path(FLAGS.baseline_dir), "baseline_dir")
    return Path(FLAGS.baseline_dir)


def compress_model(recipe, task, context, before: keras.Model, out: Path) -> list[str]:
    """Runs the passes from the baseline into `keras/`; returns notes on them."""
    target, notes_file = out / "keras", out / "keras" / "passes.txt"
    if (target / model.KERAS_FILE).exists():
        return notes_file.read_text(encoding="utf-8").splitlines()
    with shared.placement().strategy.scope():
        start = compress.copy_model(before)
    context = dataclasses.replace(context, state_dir=out / run_dir.STATE,
                                  log_dir=out / "logs")
    outcomes = compress.run(start, recipe, context, cost.of_model)
    notes = []
    for step, outcome in zip(recipe.passes, outcomes, strict=True):
        skipped = ", ".join(f"{name} ({why})" for name, why in outcome.skipped.items())
        notes.append(
            f"Pass {step.name()}: {len(outcome.touched)} layers touched; "
            f"{outcome.figures['nonzeros']:,.0f} nonzeros of "
            f"{outcome.figures['parameters']:,.0f} parameters"
            + (f"; skipped: {skipped}" if skipped else "") + ".")
        notes += [f"Pass {step.name()}: {note}." for note in outcome.notes]
    left = outcomes[-1].figures
    if left["nonzeros"] < _MANY_ZEROS * left["parameters"]:
        notes.append(
            "Zeros within a kernel are multiplied like other numbers: they make the "
            "file smaller once it is compressed (gzip_bytes) or exported as "
            "sparse_float32, and no faster. Smaller kernels make it faster (the pass "
            "low_rank), or, where TensorFlow serves the model, kernels stored without "
            "their zeros (sparse_dense).")
    for outcome in outcomes:
        context = context.replaced(outcome.provides)
    tasks.save_text_side(dataclasses.replace(
        task, wordpiece=context.get("tokenizer")), target)
    write_whole(notes_file, "\n".join(notes) + "\n")
    facts.write(recipe.passes, outcomes, target)
    model.save(outcomes[-1].model, target)
    return notes


def as_read_by(compressed: Path, task: tasks.Task) -> tasks.Task:
    """The task by the tokenizer of a compressed model, which may be a smaller one."""
    wordpiece = data.tokenizer_from(compressed)
    if wordpiece.words == task.wordpiece.words:
        return task
    found = tasks.load(wordpiece=wordpiece)
    after, before = (sum(map(len, read.report["dev"].encoded.ids))
                     for read in (found, task))
    return dataclasses.replace(found, notes=[
        *task.notes, f"By the smaller vocabulary, dev has {after:,} tokens, and had "
        f"{before:,}: words without a row are spelled out. All artifacts are timed on "
        "the former."])


def export(recipe, task, compressed: keras.Model, out: Path
           ) -> tuple[dict[str, Path], list[str], bool]:
    """Writes a `.tflite` for each export, the last one as `model.tflite` too.

    Returns:
        The files, notes on what became dense again and on what stayed in float, and
        whether the budget, if there is one, holds for each.
    """
    files = {scheme: out / "exports" / f"{scheme}.tflite" for scheme in recipe.exports}
    graph = None  # converted once, for all the exports that are quantized
    dense_again = densify.note(compressed)
    notes, met = [f"{dense_again}."] if dense_again else [], True
    for scheme, file in files.items():
        if not tflite.is_quantized(scheme):
            write_whole(file, tflite.convert(compressed, scheme,
                                             length=FLAGS.export_length))
            continue
        graph = graph or tflite.float_graph(compressed, length=FLAGS.export_length)
        if FLAGS.max_accuracy_drop is None:
            write_whole(file, tflite.quantize(
                graph, scheme, calibration=task.calibration, method=FLAGS.ranges))
            continue
        found = sensitivity.within(
            graph, scheme, task.calibration, tasks.judge_on(task.kind, task.guard),
            max_drop=FLAGS.max_accuracy_drop, method=FLAGS.ranges, task=task.kind)
        write_whole(file, found.contents)
        met = met and found.met
        notes += [f"{scheme}: {name} stayed in float: {why}."
                  for name, why in found.left.items()]
        notes.append(
            f"{scheme}: the budget of {FLAGS.max_accuracy_drop:g} "
            f"{task.kind.drop_unit} was {'met' if found.met else 'not met'}; "
            f"{'the file' if found.met else 'the best file'} has "
            f"{task.kind.monitor[0]} {found.value:.4f}, and {found.reference:.4f} in "
            "float.")
    write_whole(out / "model.tflite", files[recipe.exports[-1]].read_bytes())
    return files, notes, met


def serve(recipe, compressed: keras.Model, out: Path
          ) -> tuple[dict[str, Path], list[str]]:
    """Writes a SavedModel, where a pass made the model for TensorFlow itself.

    Returns:
        The Keras model as an artifact of its own, and a note; nothing of either after
        other passes, whose models are served as a `.tflite`.
    """
    makers = [step.name() for step in recipe.passes
              if step.for_tensorflow]
    if not makers:
        return {}, []
    saved_model.write(compressed, out / _SAVED_MODEL)
    size = sum(file.stat().st_size for file in (out / _SAVED_MODEL).rglob("*"))
    name = f"keras_{makers[-1]}"
    return {name: out / "keras"}, [
        f"{name}: the Keras model after the pass {makers[-1]}, in keras/; "
        f"{_SAVED_MODEL} is the same for TensorFlow without tfopt, "
        f"{size / 1e6:.2f} MB."]


def count(keras_model: keras.Model) -> dict[str, float]:
    """Counts a Keras model as `cost.of_tflite` does a file.

    Zeros that are not stored are parameters, and take no bits; where the others are
    takes some.
    """
    figures = cost.of_model(keras_model)
    for layer in densify.sparse_layers(keras_model).values():
        figures["parameters"] += layer.dense_kernel().size - layer.values.numpy().size
        if layer.indices is not None:
            figures["bits"] += 8 * layer.indices.numpy().nbytes
    return figures


def unpruned(recipe, task, before: keras.Model, compressed: keras.Model, out: Path
             ) -> dict[str, Path]:
    """The baseline by the recipe's last export, if the model became smaller."""
    counts = [count(found)["parameters"] for found in (before, compressed)]
    if counts[0] == counts[1]:
        return {}
    scheme = recipe.exports[-1]
    file = out / "exports" / f"unpruned_{scheme}.tflite"
    write_whole(file, tflite.convert(
        before, scheme, length=FLAGS.export_length, calibration=task.calibration,
        method=FLAGS.ranges))
    return {f"unpruned_{scheme}": file}


def measure(task, own: tasks.Task, baseline: Path, before: keras.Model,
            served: dict[str, Path], whole: dict[str, Path], files: dict[str, Path]
            ) -> list[report.Row]:
    """Measures quality, size and time.

    Args:
        task: as the baseline reads it.
        own: as the exports do.
        baseline: directory of the model before.
        before: that model.
        served: name of the compressed Keras model -> its directory, if it is served.
        whole: name of an export of that one -> its file.
        files: name of an export -> its file.

    Returns:
        The rows of the report.
    """
    artifacts = {report.BASELINE: baseline, **served, **whole, **files}
    rows = []
    for name, path in artifacts.items():
        runner = runners.open_artifact(path, FLAGS.num_threads)
        reader = own if name in served | files else task
        for split, part in reader.report.items():
            logits = runner.logits(part.encoded.ids, part.encoded.first_lengths)
            rows += report.rows(name, task.kind.quality(logits, part.targets), split,
                                task.kind.metrics)

    counts = {report.BASELINE: cost.of_model(before)} | {
        name: count(model.load(path)) for name, path in served.items()} | {
        name: cost.of_tflite(path) for name, path in (whole | files).items()}
    for name, counted in counts.items():
        path = artifacts[name]
        file = path / model.KERAS_FILE if path.is_dir() else path
        rows += report.rows(name, cost.of_file(file) | counted | cost.ratios(
            counted, counts[report.BASELINE]))

    logging.info("Timing %d artifacts in turn", len(artifacts))
    dev = own.report["dev"].encoded
    times = latency.measure(
        artifacts, dev.ids, dev.first_lengths, num_threads=FLAGS.num_threads,
        max_tokens=FLAGS.export_length or model.config_of(before).max_positions,
        **({"rounds": 1, "texts": 8} if FLAGS.smoke else {}))
    for name, figures in times.items():
        speedup = (times[report.BASELINE]["latency_p50_ms"]
                   / figures["latency_p50_ms"])
        rows += report.rows(name, figures | {"speedup": speedup})
    return rows


def on_sparse_core(tpu, task, baseline: Path) -> list[report.Row]:
    """Judges the baseline with its tokens looked up by the SparseCore of a TPU."""
    with tpu.scope():
        keras_model = model.load(baseline)
    table = Anatomy.of(keras_model).embeddings.token.name
    run = embedding.served(keras_model, table, tpu, FLAGS.batch_size, FLAGS.max_length)
    rows = []
    for split, part in task.report.items():
        (order, inputs), = data.Batches(
            part.encoded, batch_size=len(part.targets), pad_to=FLAGS.max_length
            ).each_once()
        rows += report.rows("keras_sparse_core", task.kind.quality(
            run(inputs), np.asarray(part.targets)[order]), split, task.kind.metrics)
    return rows


def draw(recipe, out: Path, rows: list[report.Row], monitor: str) -> None:
    """Draws the figures, and those of the passes."""
    pictures = {"report.png": report.to_png(rows, monitor=monitor),
                **facts.pictures(recipe.passes, out / "keras")}
    for name, contents in pictures.items():
        if contents is not None:
            write_whole(out / name, contents)


def main() -> int:
    """Goes the whole road; 2 where a budget or target was not met."""
    tpu = embedding.connect() if FLAGS.sparse_core else None
    recipe = targets.aimed(load_recipe(FLAGS.recipe))
    if FLAGS.export_length is not None and FLAGS.export_length < FLAGS.max_length:
        raise ValueError(
            "--export_length must hold texts of --max_length. Received: "
            f"--export_length={FLAGS.export_length}, --max_length={FLAGS.max_length}")
    recipe = dataclasses.replace(
        recipe, distillation=tasks.distillation(recipe.distillation))
    task = tasks.load(distils=True)
    context = compress.Context(task=task.kind, train=task.train, dev=task.choose,
                               settings=tasks.settings(),
                               resources={
                                   "tokenizer": task.wordpiece,
                                   "costs": targets.costs(task.report["dev"].lengths)})
    # The teacher, which may be the baseline, is there later.
    compress.check(dataclasses.replace(recipe, distillation=None), context)
    with run_dir.claim(FLAGS.out_dir, "compress", passes=recipe.to_json()) as out:
        baseline = fine_tuned(task, out)
        before = model.load(baseline)
        tasks.check_length(before)
        context = tasks.with_teacher(context, task, recipe.distillation,
                                     out / run_dir.STATE, before)
        notes = compress_model(recipe, task, context, before, out)
    if run_dir.is_helper():
        return 0
    compressed = model.load(out / "keras")
    own = as_read_by(out / "keras", task)
    files, left, met = export(recipe, own, compressed, out)
    notes += left
    served, said = serve(recipe, compressed, out)
    notes += said
    whole = unpruned(recipe, task, before, compressed, out)
    rows = measure(task, own, baseline, before, served, whole, files)
    rows += on_sparse_core(tpu, task, baseline) if tpu else []
    sentence, aim_met = targets.verdict(recipe, rows, list(whole), recipe.exports[-1])
    notes += sentence

    tasks.save_text_side(own, out)
    write_whole(out / "recipe.json", recipe.to_json())
    here = report.environment(num_threads=FLAGS.num_threads,
                              command=shared.command())
    write_whole(out / "report.json", report.to_json(here, rows))
    write_whole(out / "report.md", report.to_markdown(here, rows, own.notes + notes))
    draw(recipe, out, rows, task.kind.monitor[0])
    run_dir.finish(out)
    print()
    print(report.table(rows))
    for name, what in {
        "model.tflite": f"the model ({recipe.exports[-1]}), with tokenizer and labels",
        "report.md": "all figures, with their environment; report.png draws them",
        _SAVED_MODEL: "the compressed model, for TensorFlow without tfopt",
        "structure.png": "what is left of each layer",
        "baseline": "the fine-tuned Keras model that everything is held against",
    }.items():
        if (out / name).exists():
            print(f"{out / name}: {what}")
    if not met:
        print(f"--max_accuracy_drop={FLAGS.max_accuracy_drop:g} was not met; "
              f"{out / 'report.md'} says what was reached.", file=sys.stderr)
    if not aim_met:
        print(*sentence, file=sys.stderr)
    return 0 if met and aim_met else 2


def define_flags() -> None:
    """Defines the flags of this script."""
    shared.define_model()
    shared.define_data()
    shared.define_training()
    shared.define_sparse_core()
    shared.define_distillation()
    targets.define_flags()
    shared.define_measuring()
    flags.DEFINE_string("recipe", "int8", "A recipe's file, or the name of one in "
                        "experiments/recipes.")
    flags.DEFINE_string("baseline_dir", None, "A fine-tuned model, as finetune.py "
                        "leaves it. Left out: it is fine-tuned first.")
    flags.DEFINE_float("max_accuracy_drop", None, "Points (or the unit) of the task's "
                       "metric, such as accuracy, that a quantized export may lose "
                       "against the same model in float; the most "
                       "harmful operations stay in float until it holds. Judged on the "
                       "part that --holdout_fraction holds out of train, or on dev.",
                       lower_bound=0.0)
    flags.DEFINE_integer("export_length", None, "Tokens of the exported input. Left "
                         "out: open, resized per request.", lower_bound=4)


if __name__ == "__main__":
    define_flags()
    shared.run(main)
