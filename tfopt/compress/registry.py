"""Finds the passes: every module under `passes/` holds one."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from tfopt.compress import passes
from tfopt.compress.base import Pass
from tfopt.types import few, shown


@functools.cache
def all_passes() -> dict[str, type[Pass]]:
    """Every pass by name.

    Raises:
        TypeError: a module does not define exactly one pass.
    """
    found = {}
    for info in pkgutil.iter_modules(passes.__path__):
        module = importlib.import_module(f"{passes.__name__}.{info.name}")
        own = [value for value in vars(module).values()
               if isinstance(value, type) and issubclass(value, Pass)
               and value.__module__ == module.__name__]
        if len(own) != 1:
            raise TypeError("A module of passes must define exactly one. Received: "
                            f"{module.__name__} with {[c.__name__ for c in own]}")
        found[info.name] = own[0]
    return found


def from_fields(fields: Mapping[str, Any]) -> Pass:
    """Makes a pass from its JSON values, as `Pass.to_fields` gives them.

    Args:
        fields: {"pass": name, field: value, ...}.

    Returns:
        The pass.

    Raises:
        ValueError: the name or a field is unknown, a field is missing, or a value is of
            the wrong type or out of its range.
    """
    values = dict(fields)
    name = values.pop("pass", None)
    if not isinstance(name, str) or name not in all_passes():
        raise ValueError(f"A recipe's pass must be one of {sorted(all_passes())}. "
                         f"Received: pass={shown(name)}")
    return make(all_passes()[name], values, f"The pass {name!r}")


def make(kind: type, fields: Mapping[str, Any], what: str) -> Any:
    """Makes a dataclass from its JSON values; lists become tuples where it has these.

    Args:
        kind: the dataclass.
        fields: name -> value; those left out by default.
        what: how an error calls it.

    Raises:
        ValueError: a field is unknown or missing, or a value is of the wrong type or
            out of its range.
    """
    known = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    unknown = sorted(set(fields) - set(known))
    if unknown:
        received = few(f"{name}={shown(fields[name], 30)}" for name in unknown)
        raise ValueError(f"{what} has the fields {sorted(known)}. Received: {received}")
    try:
        return kind(**{name: _tuples(value) if "tuple" in known[name] else value
                       for name, value in fields.items()})
    except TypeError as error:  # a field is missing, or no number where one must be
        raise ValueError(f"{what} cannot be made: {error}. Received: "
                         f"{shown(dict(fields))}"
                         ) from error


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
