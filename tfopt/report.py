"""Figures of artifacts -> `report.json`, `report.md`, `report.png`.

Imports no TensorFlow. A metric knows its unit and which way is better; a row is one
figure of one artifact; the environment says where the figures were taken.
"""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tfopt import drawing, files, markdown
from tfopt.files import parse_json
from tfopt.machine import cpu
from tfopt.metrics import METRICS, Metric, shown

BASELINE = "keras_float32"
ON_TIMES = (
    "Times are of one text at a time, at its natural length unless a token count is "
    "named (`latency_t128_ms`); medians of processes timed in turn. latency_spread: "
    "how far apart the medians of the rounds are.")
ON_RATIOS = ("alpha, beta, gamma: parameters, nonzeros, bits per parameter, after / "
             "before.")


# What a person looks at first, behind the quality; the rest stands in a second table.
_HEADLINE = ("latency_p50_ms", "latency_spread", "speedup", "throughput_per_s",
             "file_bytes", "gzip_bytes", "peak_rss_bytes")
# Artifact -> split -> class -> name of a figure -> value; of `Task.by_class`.
ByClass = Mapping[str, markdown.BySplit]


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        artifact: such as "keras_float32" or "dynamic_wi8_afp32".
        metric: its name.
        value: in the unit.
        unit: of the metric.
        better: "higher", "lower" or "".
        split: the data it was taken on, "dev" or "test"; "" where there is none.
    """

    artifact: str
    metric: str
    value: float
    unit: str
    better: str
    split: str = ""


def rows(artifact: str, figures: Mapping[str, float], split: str = "",
         metrics: Sequence[Metric] = ()) -> list[Row]:
    """Makes the rows of one artifact.

    Args:
        artifact: its name.
        figures: metric name -> value.
        split: the data they were taken on.
        metrics: those of a task (`Task.metrics`), beside sizes and times.

    Returns:
        A row each.

    Raises:
        ValueError: a metric is unknown.
    """
    known = METRICS | {metric.name: metric for metric in metrics}
    unknown = sorted(set(figures) - set(known))
    if unknown:
        raise ValueError(f"A metric must be one of {sorted(known)}. "
                         f"Received: {unknown}")
    return [Row(artifact, name, float(value), known[name].unit, known[name].better,
                split) for name, value in figures.items()]


def environment(**more: object) -> dict[str, object]:
    """Where and with what the figures are taken.

    Args:
        **more: further entries, such as `num_threads` or `command`.

    Returns:
        CPU, cores, versions, commit, time and the entries given.
    """
    versions = {}
    for package in ("tensorflow", "tf_keras", "tensorflow-model-optimization",
                    "ai-edge-litert", "ai-edge-quantizer", "numpy"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "none"
    return {
        "cpu": cpu(["model name"]),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "commit": _commit(),
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(" ", "seconds"),
        **more,
    }


def command() -> str:
    """The command line of this process."""
    program, *given = sys.argv  # "tfopt compress" of the console is no script's file
    called = program.split(" ") if program.startswith("tfopt ") else ["python", program]
    return shlex.join([*called, *given])


def to_json(environment: Mapping, rows: Iterable[Row],
            by_class: ByClass | None = None) -> str:
    """The report as JSON: "environment", "rows", and "by_class" where there are any."""
    fields = {"environment": dict(environment),
              "rows": [dataclasses.asdict(row) for row in rows]}
    more = {"by_class": by_class} if by_class else {}
    return files.to_json(fields | more, indent=1) + "\n"


def from_json(text: str) -> tuple[dict, list[Row]]:
    """Reads what `to_json` wrote.

    Raises:
        ValueError: the text is no report.
    """
    rule = "A report must be what `to_json` wrote"
    fields = parse_json(text, "a report", rule, finite=False)
    try:
        here, found = dict(fields["environment"]), [Row(**r) for r in fields["rows"]]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{rule}. Received: {error!r}") from error
    for row in found:
        words = (row.artifact, row.metric, row.unit, row.better, row.split)
        if not all(isinstance(word, str) for word in words) or type(
                row.value) not in (int, float):
            raise ValueError(f"{rule}. Received: {row}")
    return here, found


def qualities(rows: Sequence[Row]) -> list[str]:
    """Names of the metrics that were taken on a split: of the task, in their order."""
    return list(dict.fromkeys(row.metric for row in rows if row.split))


def cells(rows: Sequence[Row], metrics: Sequence[str] | None = None
          ) -> tuple[list[str], list[list[str]]]:
    """A table's head and lines, an artifact a line.

    Args:
        rows: the figures.
        metrics: the columns; those without a figure are left out. Figures on several
            splits make a column each. None for the quality and what a person looks at
            first beside it.
    """
    metrics = [*qualities(rows), *_HEADLINE] if metrics is None else metrics
    columns = list(dict.fromkeys(
        (metric, row.split) for metric in metrics for row in rows
        if row.metric == metric))
    splits = {split for _, split in columns if split}
    values = {(row.artifact, row.metric, row.split): row.value for row in rows}
    head = ["artifact", *(f"{metric} ({split})" if split and len(splits) > 1 else metric
                          for metric, split in columns)]
    return head, [
        [artifact, *(_show(values.get((artifact, metric, split)), metric,
                           quality=bool(split)) for metric, split in columns)]
        for artifact in dict.fromkeys(row.artifact for row in rows)]


def table(rows: Sequence[Row], metrics: Sequence[str] | None = None) -> str:
    """The same as a Markdown table, aligned for a terminal too."""
    return markdown.table(*cells(rows, metrics))


def others() -> list[str]:
    """Metrics beside the quality and the headline: a second table's columns."""
    return [name for name in METRICS if name not in _HEADLINE]


def to_markdown(environment: Mapping, rows: Sequence[Row],
                notes: Sequence[str] = (), by_class: ByClass | None = None) -> str:
    """The report as Markdown: notes, headline table, the rest, classes, environment.

    Of classes, the last artifact's figures are shown, beside the baseline's F1.
    """
    lines = ["# Report", "", *(f"- {note}" for note in notes), *[""] * bool(notes),
             table(rows),
             ON_TIMES,
             "", table(rows, others()),
             ON_RATIOS, ""]
    if by_class:
        last = list(by_class)[-1]
        lines += [f"## By class, {last}", "", markdown.by_class(
            by_class[last], {} if last == BASELINE else by_class.get(BASELINE, {}),
            BASELINE)]
    lines += ["## Environment", ""]
    lines += [f"- {name}: {value}" for name, value in environment.items()]
    return "\n".join(lines) + "\n"


def to_png(rows: Sequence[Row], split: str = "dev", monitor: str | None = None
           ) -> bytes | None:
    """Draws the quality against latency, and the file sizes.

    Args:
        rows: the figures.
        split: whose quality is drawn.
        monitor: the metric that is drawn; None for the first of the quality.

    Returns:
        A PNG; None where matplotlib (the extra `plot`) is not installed.
    """
    if (figure := drawing.empty(12, 4)) is None:
        return None
    value = {(row.artifact, row.metric): row.value for row in rows
             if row.split in ("", split)}
    names = list(dict.fromkeys(row.artifact for row in rows))
    monitor = monitor or next(iter(qualities(rows)), "quality")
    quality, size = figure.subplots(1, 2)
    for name in names:
        if (name, "latency_p50_ms") in value and (name, monitor) in value:
            quality.scatter([value[name, "latency_p50_ms"]], [value[name, monitor]],
                            s=60, label=name)
    quality.set(xlabel="latency p50, ms a text", ylabel=f"{monitor}, {split}",
                title=f"{monitor} against latency", xlim=(0, None))
    if quality.collections:
        # Beside the axes, where it covers no point.
        quality.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small")
    quality.margins(y=0.3)
    sized = [name for name in names if (name, "file_bytes") in value]
    bars = size.barh(sized, [value[name, "file_bytes"] / 1e6 for name in sized])
    size.bar_label(bars, fmt="%.1f", padding=3)
    size.invert_yaxis()
    size.margins(x=0.15)
    size.set(xlabel="file, MB", title="Size")
    return drawing.png(figure)


def _show(value: float | None, metric: str, quality: bool) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if quality else shown(value, METRICS[metric])


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True,
                              text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
