r"""Draws a request log of `tfopt serve --request_log`; needs no TensorFlow.

    tfopt monitor requests.jsonl --dir=runs/ladder --out=requests.png

Prints what each series was at the beginning, in the median, at its most, and at the
end; with --dir, of the bundle or ladder that answered, also how far the last 300
answers of each variant were from dev's, as a multiple of the threshold above which it
is drift. The picture needs matplotlib (the extra `plot`).
"""

from __future__ import annotations

import datetime

import numpy as np
from absl import flags

from tfopt import drawing, markdown
from tfopt.files import check_place, write_whole
from tfopt.serve import log_file
from tfopt.serve.ladder import Ladder
from tfopt.serve.log_file import Panel
from tfopt.serve.reference import Reference

FLAGS = flags.FLAGS
flags.disclaim_key_flags()
FIRST = ("log",)


def main() -> None:
    """Prints the table, and draws the picture.

    Raises:
        ValueError: the log or the directory is wrong.
    """
    if FLAGS.out:
        check_place(FLAGS.out)
    references = _references() if FLAGS.dir else {}
    lines = list(log_file.read(FLAGS.log))
    found = log_file.panels(lines, references)
    times = [line.time for line in lines]
    begin, end = (datetime.datetime.fromtimestamp(moment).isoformat(" ", "seconds")
                  for moment in (min(times), max(times)))
    print(f"{len(lines):,} texts, {begin} to {end}\n")
    print(table(found))
    if FLAGS.out and (contents := picture(found)) is not None:
        write_whole(FLAGS.out, contents)
        print(f"Picture: {FLAGS.out}")


def _references() -> dict[str, Reference]:
    """Variant -> its reference, of those that have one."""
    ladder = Ladder.read(FLAGS.dir)
    found = {rung.name: Reference.read(ladder.path(rung)) for rung in ladder.rungs}
    return {name: reference for name, reference in found.items()
            if reference is not None}


def table(panels: list[Panel]) -> str:
    """A Markdown table of panels, a series a line."""
    body = []
    for panel in panels:
        for name, values in panel.series.items():
            known = values[~np.isnan(values)]
            if len(known):
                body.append([panel.title, name, *(f"{value:.3g}" for value in (
                    known[0], np.median(known), known.max(), known[-1]))])
    return markdown.table(["", "series", "first", "median", "most", "last"], body)


def picture(panels: list[Panel]) -> bytes | None:
    """Draws panels over time.

    Returns:
        A PNG; None where matplotlib (the extra `plot`) is not installed.
    """
    rows = -(-len(panels) // 2)
    if (figure := drawing.empty(13, 2.6 * rows)) is None:
        return None
    for place, panel in zip(figure.subplots(rows, 2, squeeze=False).flat, panels,
                            strict=False):
        moments = [datetime.datetime.fromtimestamp(moment) for moment in panel.times]
        for name, values in panel.series.items():
            place.plot(moments, values, label=name or "none", marker=".")
        place.set(title=panel.title, ylim=(0, None))
        place.tick_params(axis="x", rotation=20)
        if panel.series:
            place.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small")
    for place in figure.axes[len(panels):]:
        place.remove()
    return drawing.png(figure, dpi=100)


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("log", None, "A request log.", required=True)
    flags.DEFINE_string("dir", None, "The bundle or ladder that answered, for drift.")
    flags.DEFINE_string("out", None, "File (.png) for a picture.")
