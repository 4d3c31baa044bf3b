"""What passes found, in files beside the model, and the pictures drawn of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tfopt.compress.base import Outcome, Pass
from tfopt.files import read_json, write_whole


def write(passes: Sequence[Pass], outcomes: Sequence[Outcome], directory: Path) -> None:
    """Writes the facts that passes leave, each into its `Pass.facts_file`.

    Args:
        passes: of a recipe; of several with one file, the last one's is kept.
        outcomes: theirs.
        directory: where the model is.
    """
    for step, outcome in zip(passes, outcomes, strict=True):
        if outcome.facts:
            write_whole(directory / _file(step), json.dumps(outcome.facts) + "\n")


def pictures(passes: Sequence[Pass], directory: Path) -> dict[str, bytes]:
    """Draws what `write` has written.

    Args:
        passes: of the recipe.
        directory: the same.

    Returns:
        Name of a file -> PNG; none where matplotlib is not installed.
    """
    found = {}
    for step in passes:
        file = directory / _file(step)
        if not step.draws or not file.exists():
            continue
        facts = read_json(file, finite=False)
        for name, draw in step.draws.items():
            if (picture := draw(facts)) is not None:
                found[name] = picture
    return found


def _file(step: Pass) -> str:
    return step.facts_file or f"{step.name()}.json"
