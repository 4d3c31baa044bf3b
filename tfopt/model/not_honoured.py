"""What a published checkpoint may have beside its weights that is not computed here.

Left out in silence it would give other answers than those who published it have; so it
is refused, by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfopt.types import shown

# Of PEFT, and of the library adapters.
_ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin",
             "pytorch_adapter.bin")
_FIELD = "adapters"
# How the name of an architecture ends whose head reads several texts as one example.
_SEVERAL_TEXTS = "ForMultipleChoice"
_MERGED = ("An adapter must be merged into its model before, by `merge_and_unload` of "
           "peft or `merge_adapter` of adapters")


def check_files(directory: Path) -> None:
    """Checks that no adapter lies in a checkpoint's directory.

    Raises:
        ValueError: one does.
    """
    for name in _ADAPTERS:
        if (directory / name).is_file():
            raise ValueError(f"{_MERGED}. Received: {directory / name}")


def check_fields(file: Path, fields: Mapping[str, Any]) -> None:
    """Checks that a checkpoint's config names no adapters.

    Args:
        file: it.
        fields: that stand in it.

    Raises:
        ValueError: it does.
    """
    given = fields.get(_FIELD)
    named = given.get(_FIELD, given) if isinstance(given, Mapping) else given
    if named:
        raise ValueError(f"{_MERGED}. Received: {file}: {_FIELD}={shown(named)}")


def check_head(file: Path, fields: Mapping[str, Any]) -> None:
    """Checks that a trained head is not of a task that is none of ours.

    Args:
        file: the config.
        fields: that stand in it.

    Raises:
        ValueError: it chooses between several texts.
    """
    made = fields.get("architectures")
    for name in made if isinstance(made, list) else []:
        if str(name).endswith(_SEVERAL_TEXTS):
            raise ValueError("A trained head must be of one text or a pair; "
                             "`num_labels` asks for a fresh one. Received: "
                             f"{file}: architectures={shown(made)}")
