"""The recipes that come along, and how a name or a file becomes one.

Imports TensorFlow when one is read: to list them takes none.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tfopt.types import PathLike

if TYPE_CHECKING:
    from tfopt import compress

DIRECTORY = Path(__file__).parents[1] / "recipes"


def names() -> list[str]:
    """The recipes that come along."""
    return sorted(path.stem for path in DIRECTORY.glob("*.json"))


def load(name: PathLike | compress.Recipe) -> compress.Recipe:
    """Reads a recipe by its file, or by its name among the ones that come along.

    Args:
        name: such as "int8", or a file; a recipe is checked and given back.

    Raises:
        ValueError: there is none, or it is wrong.
    """
    from tfopt import compress
    from tfopt.export import tflite

    if isinstance(name, compress.Recipe):
        recipe = name
    else:
        known = DIRECTORY / f"{name}.json"
        path = known if known.exists() else Path(name)
        if not path.is_file():
            raise ValueError(f"--recipe must be a file or one of {names()}. Received: "
                             f"{str(name)!r}")
        recipe = compress.Recipe.load(path)
    for scheme in recipe.exports:
        tflite.check_scheme(scheme)
    return recipe
