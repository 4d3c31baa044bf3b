"""The stages between a baseline and its report: compress, export, serve.

Each takes what the one before has left on disk, so that a killed run goes on there.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfopt import compress, data, model
from tfopt.backend import keras
from tfopt.compress import facts
from tfopt.export import densify, saved_model, tflite
from tfopt.files import write_whole
from tfopt.measure import cost, sensitivity
from tfopt.pipeline import edge, judging, reference, run_dir
from tfopt.pipeline.dataset import Dataset
from tfopt.pipeline.fine_tuning import FineTuning

SAVED_MODEL = Path("exports") / "saved_model"
_NOTES = "passes.txt"
_MANY_ZEROS = 0.95  # share of nonzeros below which the report speaks of the zeros
_NAMED = 4  # layers of one reason that a note names


def compress_model(tuning: FineTuning, recipe: compress.Recipe, dataset: Dataset,
                   context: compress.Context, before: keras.Model, out: Path,
                   identity: Mapping[str, Any], more: Sequence[str] = ()) -> list[str]:
    """Runs the passes from the baseline into `keras/`.

    Args:
        tuning: how.
        recipe: the passes.
        dataset: as the baseline reads it.
        context: what the passes may use.
        before: the baseline.
        out: directory of the run.
        identity: of the run.
        more: notes on what they used, which grow meanwhile.

    Returns:
        Notes on the passes, and `more`.
    """
    target = out / "keras"
    if run_dir.is_done(target, model.KERAS_FILE, identity):
        return (target / _NOTES).read_text(encoding="utf-8").splitlines()
    with tuning.devices.placement().strategy.scope():
        start = compress.copy_model(before)
    context = dataclasses.replace(context, state_dir=out / run_dir.STATE,
                                  log_dir=out / "logs")
    outcomes = compress.run(start, recipe, context, cost.of_model)
    notes = [*_notes(recipe, outcomes), *more]
    for outcome in outcomes:
        context = context.replaced(outcome.provides)
    dataclasses.replace(
        dataset, tokenizer=context.get("tokenizer")).save_text_side(target)
    if dataset.task.fitted_fields:  # on texts as this model reads them
        as_read_by(tuning, target, dataset).save_text_side(target, outcomes[-1].model)
    write_whole(target / _NOTES, "\n".join(notes) + "\n")
    facts.write(recipe.passes, outcomes, target)
    run_dir.note_stage(target, identity)
    model.save(outcomes[-1].model, target)
    return notes


def _notes(recipe: compress.Recipe, outcomes: Sequence[compress.Outcome]) -> list[str]:
    """What the passes did, in sentences."""
    notes = []
    for step, outcome in zip(recipe.passes, outcomes, strict=True):
        skipped = skipped_in_words(outcome.skipped)
        touched = len(outcome.touched)
        notes.append(
            f"Pass {step.name()}: {touched or 'no'} "
            f"{'layers' if touched > 1 else 'layer'} touched; "
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
    return notes


def skipped_in_words(skipped: Mapping[str, str]) -> str:
    """Layers and why they were left, those of one reason together.

    Args:
        skipped: name of a layer -> the reason.

    Returns:
        Such as "a, b (too small); 24 layers from c to d (its reason)".
    """
    by_reason: dict[str, list[str]] = collections.defaultdict(list)
    for name, why in skipped.items():
        by_reason[why].append(name)
    return "; ".join(
        (", ".join(names) if len(names) <= _NAMED else
         f"{len(names)} layers from {names[0]} to {names[-1]}") + f" ({why})"
        for why, names in by_reason.items())


def as_read_by(tuning: FineTuning, compressed: Path, dataset: Dataset) -> Dataset:
    """The dataset by a compressed model's tokenizer, which may be a smaller one."""
    tokenizer = data.tokenizer_from(compressed)
    if tokenizer.words == dataset.tokenizer.words:
        return dataset
    found = tuning.dataset(tokenizer, dataset.task.labels)
    found = reference.as_in(found, dataset)
    after, before = (sum(map(len, read.report["dev"].encoded.ids))
                     for read in (found, dataset))
    return dataclasses.replace(found, notes=[
        *dataset.notes, f"By the smaller vocabulary, dev has {after:,} tokens, and had "
        f"{before:,}: words without a row are spelled out. All artifacts are timed on "
        "the former."])


def export(tuning: FineTuning, recipe: compress.Recipe, dataset: Dataset,
           compressed: keras.Model, out: Path, max_drop: float | None = None
           ) -> tuple[dict[str, Path], list[str], bool]:
    """Writes a `.tflite` for each export, the last one as `model.tflite` too.

    Args:
        tuning: how to export.
        recipe: names the exports.
        dataset: as the model reads it.
        compressed: the model.
        out: directory of the run.
        max_drop: of the task's metric, at most, against the same model in float.

    Returns:
        The files, notes on what became dense again and on what stayed in float, and
        whether the budget, if there is one, holds for each.
    """
    files = {scheme: out / "exports" / f"{scheme}.tflite" for scheme in recipe.exports}
    options, clients = tuning.exports, edge.Clients.of(tuning, dataset)
    graph = None  # converted once, for all the exports that are quantized
    dense_again = densify.note(compressed)
    notes, met = [f"{dense_again}."] if dense_again else [], True
    for scheme, file in files.items():
        if not tflite.is_quantized(scheme):
            contents = tflite.convert(compressed, scheme, length=options.export_length)
        else:
            graph = graph or tflite.float_graph(
                compressed, length=options.export_length,
                for_old_runtimes=options.for_old_runtimes)
            if max_drop is None:
                contents = tflite.quantize(
                    graph, scheme, calibration=dataset.calibration,
                    method=options.ranges)
                notes += [f"{scheme}: {size / 1e6:.2f} MB of weights stay in float32, "
                          f"of an operation that it does not quantize: {name}."
                          for name, size in tflite.weights_in_float(contents).items()]
            else:
                contents, held, more = _within_budget(tuning, dataset, graph, scheme,
                                                      max_drop)
                met, notes = met and held, [*notes, *more]
        write_whole(file, clients.finished(scheme, contents))
    return files, [*notes, *clients.notes()], met


def _within_budget(tuning: FineTuning, dataset: Dataset, graph: tflite.FloatGraph,
                   scheme: str, max_drop: float) -> tuple[bytes, bool, list[str]]:
    """The file that keeps to a budget, whether it does, and notes."""
    task, options = dataset.task, tuning.exports
    found = sensitivity.within(
        graph, scheme, dataset.calibration,
        judging.judge_on(task, dataset.guard, tuning.measuring.num_threads),
        max_drop=max_drop, method=options.ranges, task=task)
    return found.contents, found.met, [
        *(f"{scheme}: {name} stayed in float: {why}."
          for name, why in found.left.items()),
        f"{scheme}: the budget of {max_drop:g} {task.drop_unit} was "
        f"{'met' if found.met else 'not met'}; "
        f"{'the file' if found.met else 'the best file'} has {task.monitor[0]} "
        f"{found.value:.4f}, and {found.reference:.4f} in float."]


def serve(recipe: compress.Recipe, compressed: keras.Model, out: Path
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
    saved_model.write(compressed, out / SAVED_MODEL)
    size = sum(file.stat().st_size for file in (out / SAVED_MODEL).rglob("*"))
    name = f"keras_{makers[-1]}"
    return {name: out / "keras"}, [
        f"{name}: the Keras model after the pass {makers[-1]}, in keras/; "
        f"{SAVED_MODEL} is the same for TensorFlow without tfopt, "
        f"{size / 1e6:.2f} MB."]


def unpruned(tuning: FineTuning, recipe: compress.Recipe, dataset: Dataset,
             before: keras.Model, compressed: keras.Model, out: Path
             ) -> dict[str, Path]:
    """The baseline by the recipe's last export, if the model became smaller."""
    counts = [count(found)["parameters"] for found in (before, compressed)]
    if counts[0] == counts[1]:
        return {}
    scheme = recipe.exports[-1]
    # By itself, for its words may be more than those of the tokenizer above.
    file = out / "exports" / "unpruned" / f"{scheme}.tflite"
    dataset.save_text_side(file.parent)
    write_whole(file, edge.Clients.of(tuning, dataset).finished(scheme, tflite.convert(
        before, scheme, length=tuning.exports.export_length,
        calibration=dataset.calibration, method=tuning.exports.ranges)))
    return {f"unpruned_{scheme}": file}


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
