"""A report as others read it: CSV, benchmark entries, one HTML page, a model card.

Imports no TensorFlow.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

from tfopt import files, report
from tfopt.report import Row

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em;
       padding: 0 1em; color: #222; background: #fff; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25em .7em; text-align: right; border-bottom: 1px solid #ddd;
         white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; }
dt { float: left; clear: left; min-width: 9em; font-weight: 600; }
dd { margin-left: 9.5em; overflow-wrap: anywhere; }
"""


def to_csv(rows: Sequence[Row]) -> str:
    """The figures, one a line, under the names of `Row`'s fields."""
    room = io.StringIO()
    writer = csv.writer(room, lineterminator="\n")
    names = [field.name for field in dataclasses.fields(Row)]
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for row in rows)
    return room.getvalue()


def to_benchmark(environment: Mapping, rows: Sequence[Row]) -> str:
    """Entries as `tf.test.Benchmark.report_benchmark` writes them, in JSON.

    PerfZero and its kin read them: of each artifact a name, the seconds of a request
    ("wall_time"), and all figures as metrics.
    """
    entries = []
    for artifact in dict.fromkeys(row.artifact for row in rows):
        own = [row for row in rows if row.artifact == artifact]
        p50 = next((row.value for row in own if row.metric == "latency_p50_ms"), None)
        entries.append({
            "name": f"tfopt.{artifact}", "iters": 1,
            "wall_time": -1.0 if p50 is None else p50 / 1e3,
            "metrics": [{"name": f"{row.metric}_{row.split}" if row.split
                         else row.metric, "value": row.value} for row in own]})
    return files.to_json({"entries": {"entry": entries},
                          "environment": dict(environment)}, indent=1) + "\n"


def to_html(environment: Mapping, rows: Sequence[Row], notes: Sequence[str] = (),
            pictures: Mapping[str, bytes] | None = None, title: str = "Report") -> str:
    """The report as one page, pictures inside; it asks nobody for anything.

    Args:
        environment: where the figures were taken.
        rows: the figures.
        notes: sentences on them.
        pictures: name -> PNG.
        title: of the page.
    """
    shown = html.escape(title)
    parts = [f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
             f'<meta name="viewport" content="width=device-width">\n'
             f"<title>{shown}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
             f"<h1>{shown}</h1>"]
    if notes:
        parts += ["<ul>", *(f"<li>{html.escape(note)}</li>" for note in notes), "</ul>"]
    parts += [_table(*report.cells(rows)), f"<p>{html.escape(report.ON_TIMES)}</p>"]
    for name, contents in (pictures or {}).items():
        data = base64.b64encode(contents).decode()
        parts.append(f'<p><img alt="{html.escape(name)}" '
                     f'src="data:image/png;base64,{data}"></p>')
    parts += ["<h2>All figures</h2>", _table(*report.cells(rows, report.others())),
              f"<p>{html.escape(report.ON_RATIOS)}</p>", "<h2>Environment</h2>", "<dl>",
              *(f"<dt>{html.escape(str(name))}</dt><dd>{html.escape(str(value))}</dd>"
                for name, value in environment.items()), "</dl>", "</body>\n</html>\n"]
    return "\n".join(parts)


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>"
                                for cell in cells) + "</tr>"

    return "\n".join(['<div class="wide"><table>', line("th", head),
                      *(line("td", cells) for cells in body), "</table></div>"])


def model_card(environment: Mapping, rows: Sequence[Row], *, task: str, artifact: str,
               pipeline_tag: str = "", labels: Sequence[str] = (),
               notes: Sequence[str] = (), base: str = "") -> str:
    """A README of a bundle, with the metadata that the Hugging Face hub reads.

    Args:
        environment: where the figures were taken.
        rows: the figures.
        task: its name.
        artifact: the one that the bundle's `model.tflite` is.
        pipeline_tag: what the hub calls such a task; "" where it has no name for it.
        labels: by class, where the task has any.
        notes: sentences on what was done.
        base: the checkpoint it began with.
    """
    own = [row for row in rows if row.artifact == artifact]
    fields: dict[str, Any] = {"library_name": "tflite", "tags": ["tfopt", "litert"]}
    if pipeline_tag:
        fields["pipeline_tag"] = pipeline_tag
        fields["model-index"] = [{"name": artifact, "results": [{
            "task": {"type": pipeline_tag},
            "dataset": {"name": split, "type": split},
            "metrics": [{"type": row.metric, "value": row.value} for row in own
                        if row.split == split]}
            for split in dict.fromkeys(row.split for row in own if row.split)]}]
    # YAML takes JSON as it is, and so no text can break out of its place.
    head = [f"{name}: {files.to_json(value)}" for name, value in fields.items()]
    plain = [label.replace("`", "'") for label in labels]
    return "\n".join([
        "---", *head, "---", "", "# A text encoder by tfopt", "",
        f"A `.tflite` for the task `{task}`"
        + (f", from the checkpoint `{base.replace('`', chr(39))}`." if base else "."),
        *(["", f"Labels: {', '.join(f'`{label}`' for label in plain)}."]
          if plain else []), "",
        "    tfopt predict --bundle=DIRECTORY --text='...'",
        "    tfopt serve DIRECTORY", "", "## Figures", "", report.table(rows),
        report.ON_TIMES, "", "## How it was made", "",
        *(f"- {note}" for note in notes), "", "## Environment", "",
        *(f"- {name}: {value}" for name, value in environment.items()), ""])
