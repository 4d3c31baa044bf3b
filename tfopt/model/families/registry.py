"""Finds the families: every other module here but `base` holds one."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from tfopt.model import families
from tfopt.model.families.base import Family
from tfopt.types import shown

_DEFAULT = "bert"  # of a config without a model type, as Google's are


@functools.cache
def all_families() -> dict[str, Family]:
    """Every family by name.

    Raises:
        TypeError: a module holds no family of its name.
    """
    found = {}
    for info in pkgutil.iter_modules(families.__path__):
        if info.name in ("base", "registry"):
            continue
        module = importlib.import_module(f"{families.__name__}.{info.name}")
        family = getattr(module, "FAMILY", None)
        if not isinstance(family, Family) or family.name != info.name:
            raise TypeError("A module of families must hold a Family of its name, "
                            f"FAMILY. Received: {module.__name__} with {family}")
        found[info.name] = family
    return found


def of(fields: Mapping[str, Any]) -> Family:
    """The family of a checkpoint.

    Args:
        fields: of its `config.json` or `bert_config.json`.

    Returns:
        The family that reads it.

    Raises:
        ValueError: there is none; names those there are.
    """
    kind = fields.get("model_type", _DEFAULT)
    known = {kind: family for family in all_families().values()
             for kind in family.model_types}
    if not isinstance(kind, str) or kind not in known:
        raise ValueError(f"A checkpoint's model type must be one of {sorted(known)}. "
                         f"Received: model_type={shown(kind)}")
    return known[kind]
