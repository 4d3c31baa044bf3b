"""What a run leaves for its readers: report, pictures, recipe, and the bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfopt import compress, report, report_formats
from tfopt.compress import facts
from tfopt.files import write_whole
from tfopt.pipeline.dataset import Dataset
from tfopt.pipeline.fine_tuning import FineTuning
from tfopt.pipeline.measuring import Measured
from tfopt.serve.bundle import Bundle
from tfopt.serve.observation import observe
from tfopt.serve.reference import Reference

REPORT = "report.md"
MODEL_CARD = "README.md"  # of the bundle, as hubs of models show it


def on_the_epoch(tuning: FineTuning, dataset: Dataset, out: Path) -> list[str]:
    """What chose the epoch, where something trained."""
    if not any((out / "logs").rglob("events.*")):
        return []
    if tuning.data.holdout_fraction:
        return [f"The epoch was chosen on {len(dataset.guard.targets)} examples held "
                "out of train."]
    if dataset.choose is None:
        return []
    return [f"The best epoch was chosen on dev: with several epochs, "
            f"{dataset.task.monitor[0]} on dev is a little optimistic "
            "(--holdout_fraction or --keep_epoch=last avoid it)."]


def publish(out: Path, recipe: compress.Recipe, dataset: Dataset,
            measured: Measured, notes: Sequence[str], files: Mapping[str, Path],
            identity: Mapping[str, Any], num_threads: int) -> None:
    """Writes all of it; the bundle's own file comes last.

    Args:
        out: directory of the run.
        recipe: as it was run.
        dataset: as the exports read it.
        measured: figures, and what the exports give on dev.
        notes: sentences on them.
        files: name of an export -> its file.
        identity: of the run.
        num_threads: the most of a request.
    """
    rows, by_class = measured.rows, measured.by_class
    write_whole(out / "recipe.json", recipe.to_json())
    here = report.environment(num_threads=num_threads, command=report.command())
    write_whole(out / "report.json", report.to_json(here, rows, by_class))
    write_whole(out / REPORT, report.to_markdown(here, rows, notes, by_class))
    drawn = {"report.png": report.to_png(rows, monitor=dataset.task.monitor[0]),
             **facts.pictures(recipe.passes, out / "keras")}
    pictures = {name: contents for name, contents in drawn.items()
                if contents is not None}
    for name, contents in pictures.items():
        write_whole(out / name, contents)
    scheme = recipe.exports[-1]
    task = measured.tasks[scheme]
    base = identity.get("model") or {}
    for name, text in {
            "report.csv": report_formats.to_csv(rows),
            "report.html": report_formats.to_html(here, rows, notes, pictures),
            "benchmark.json": report_formats.to_benchmark(here, rows),
            MODEL_CARD: report_formats.model_card(
                here, rows, task=task.name(), artifact=scheme, labels=task.labels,
                pipeline_tag=task.pipeline_tag, notes=notes,
                base=str(base.get("name", "")))}.items():
        write_whole(out / name, text)
    Bundle.write(
        out, task=task, tokenizer=dataset.tokenizer,
        max_length=dataset.max_length, scheme=scheme, model=files[scheme].read_bytes(),
        figures={row.metric: row.value for row in rows
                 if row.artifact == scheme and row.split in ("", "dev")},
        source=dict(identity), reference=Reference.of(observe(
            task, measured.outputs[scheme]["dev"],
            dataset.report["dev"].encoded.ids, dataset.tokenizer.unknown_id)))
