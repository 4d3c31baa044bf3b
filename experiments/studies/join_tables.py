r"""Joins tables of quality that were filled side by side.

    python experiments/studies/join_tables.py --tables=a.json,b.json --report=FILE.json

Cost: none. The report holds each table's environment and command beside the figures.
"""

from __future__ import annotations

import json
from pathlib import Path

import pruning_table
import quantization_table
import shrink_table
import tables
from absl import flags

from tfopt.cli import script as shared
from tfopt.files import to_json, write_whole

FLAGS = flags.FLAGS
SCRIPTS = {"pruning": pruning_table, "quantization": quantization_table,
           "shrink": shrink_table}


def main() -> None:
    """Joins and prints."""
    parts = {path: json.loads(Path(path).read_text(encoding="utf-8"))
             for path in FLAGS.tables}
    runs: dict[str, dict] = {}
    for path, part in parts.items():
        for seed, cells in part["figures"]["runs"].items():
            known = runs.setdefault(seed, {})
            for cell, figures in cells.items():
                if known.setdefault(cell, figures) != figures:
                    raise ValueError("Two tables must not differ in a cell. Received: "
                                     f"{path}, seed {seed}, {cell!r}")
    figures = SCRIPTS[FLAGS.of].summary(runs, tables.kind())
    write_whole(FLAGS.report, to_json(
        {"environments": [part["environment"] for part in parts.values()],
         "figures": figures}, indent=1) + "\n")
    SCRIPTS[FLAGS.of].show(figures)


def define_flags() -> None:
    """Defines the flags of this script."""
    flags.DEFINE_enum("of", "pruning", list(SCRIPTS), "The script that filled them.")
    shared.define_task()
    flags.DEFINE_list("tables", None, "Its reports.", required=True)
    flags.DEFINE_string("report", None, "JSON file for the whole table.", required=True)


if __name__ == "__main__":
    define_flags()
    shared.run(main)
