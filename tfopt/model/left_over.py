"""The tensors of a checkpoint of which nothing is made: passed over, told or refused.

A trained head under another name must not give way to a fresh one in silence, nor an
encoder be read without what it computes by.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from absl import logging

_NAMED = 6  # tensors, in a message


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeftOver:
    """Names of tensors, ascending.

    Attributes:
        inner: of the encoder.
        beyond: of layers that it has not by its config.
        outer: of what stands on it.
    """

    inner: tuple[str, ...]
    beyond: tuple[str, ...]
    outer: tuple[str, ...]


def check(file: Path, found: LeftOver, head_is_known: bool) -> None:
    """Looks at the tensors of which nothing was made.

    Args:
        file: whose they are.
        found: their names.
        head_is_known: whether a head is read, or a fresh one was asked for.

    Raises:
        ValueError: the encoder computes by some, or the trained head is among them.
    """
    if found.inner:
        raise ValueError("An encoder must be of the weights that its family has, no "
                         f"others. Received: {file} with {_some(found.inner)}")
    if found.beyond:
        logging.warning("%s: layers beyond those of its config are not read: %s", file,
                        _some(found.beyond))
    if found.outer and not head_is_known:
        raise ValueError(
            "A trained head must be called as transformers calls it in this family, "
            "`classifier`; `num_labels` asks for a fresh one in its place. Received: "
            f"{file} with {_some(found.outer)}")
    if found.outer:
        logging.warning("%s: a head that is not read: %s", file, _some(found.outer))


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
