"""Cells -> tables in Markdown, aligned for a terminal too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Split -> class -> name of a figure -> value; of `Task.by_class`.
BySplit = Mapping[str, Mapping[str, Mapping[str, float]]]


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table.

    Args:
        head: names of its columns; the first is of words, the others of numbers.
        body: lines of as many cells.
    """
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]

    def line(cells):
        return "| " + " | ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))) + " |"

    rule = "|" + "|".join(
        "-" * (width + 2) if i == 0 else "-" * (width + 1) + ":"
        for i, width in enumerate(widths)) + "|"
    return "\n".join([line(head), rule, *map(line, body)]) + "\n"


def by_class(found: BySplit, beside: BySplit, beside_name: str) -> str:
    """A table of classes, a class of a split a line.

    Args:
        found: an artifact's figures.
        beside: another's, whose F1 stands beside them; or empty.
        beside_name: its name.
    """
    figures = [name for classes in found.values() for own in classes.values()
               for name in own]
    head = ["class", "split", *dict.fromkeys(figures),
            *([f"f1 of {beside_name}"] if beside else [])]
    return table(head, [
        [label.replace("|", r"\|"), split,
         *(f"{value:.0f}" if name == "support" else f"{value:.3f}"
           for name, value in own.items()),
         *([f"{beside[split][label]['f1']:.3f}"] if beside else [])]
        for split, classes in found.items() for label, own in classes.items()])
