"""An option: a field of a frozen record that says what it is, its range and default.

The command line makes its flags of the same fields (`cli.flags`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from tfopt.types import check_fields, check_types


def option(default: Any, about: str, *, flag: str | None = None,
           at_least: float | None = None, at_most: float | None = None,
           choices: Sequence[str] | Callable[[], Sequence[str]] | None = None) -> Any:
    """A field of a record of options.

    Args:
        default: its value where nothing is said.
        about: what it is, in a sentence.
        flag: its name on the command line; None for the field's own.
        at_least: the least value.
        at_most: the largest.
        choices: the values that there are, or what gives them.
    """
    return dataclasses.field(default=default, metadata={
        "about": about, "flag": flag, "at_least": at_least, "at_most": at_most,
        "choices": choices})


def choices_of(field: dataclasses.Field) -> Sequence[str] | None:
    """The values that a field may have; None where they are no list."""
    given = field.metadata["choices"]
    return given() if callable(given) else given


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Base of the records of options, whose fields are made by `option`."""

    def __post_init__(self):
        """Checks the ranges.

        Raises:
            ValueError: a value is out of its range; says the rule and the value.
        """
        check_types(self)
        rules = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not field.metadata or value is None:
                continue
            if isinstance(value, float) and not math.isfinite(value):
                rules[field.name] = (False, "a finite number")
                continue
            least, most = field.metadata["at_least"], field.metadata["at_most"]
            known = choices_of(field)
            if known is not None:
                rules[field.name] = (value in known, f"one of {sorted(known)}")
            elif least is not None and value < least:
                rules[field.name] = (False, f"at least {least:g}")
            elif most is not None and value > most:
                rules[field.name] = (False, f"at most {most:g}")
        check_fields(self, rules)
