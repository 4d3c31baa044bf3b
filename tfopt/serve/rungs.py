"""What a ladder is made of: rungs, which beat which, and when a cascade asks the best.

`ladder.Ladder` holds them, and reads and writes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tfopt.types import check_fields, check_types

HERE = "."  # the directory of a bundle that stands alone


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rung:
    """A bundle of a ladder.

    Attributes:
        name: by which a request may ask for it.
        directory: of the bundle, right below the ladder's.
        quality: the monitor on dev; None for a bundle alone that does not say.
        p50_ms: median of a request; None likewise.
    """

    name: str
    directory: str
    quality: float | None = None
    p50_ms: float | None = None

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: one is of a wrong type or range; names it.
        """
        check_types(self)
        check_fields(self, {
            "name": (_is_name(self.name), "a word of one line, without a slash"),
            "directory": (self.directory == HERE or _is_name(self.directory),
                          "a directory right below the ladder's"),
            "p50_ms": (self.p50_ms is None or self.p50_ms > 0, "above 0")})


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeftOut:
    """What was made for a ladder, and is no rung, since a rung beats it.

    Attributes:
        name: that it would have had.
        quality: the monitor on dev.
        p50_ms: median of a request.
        beaten_by: name of the rung.
    """

    name: str
    quality: float
    p50_ms: float
    beaten_by: str

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: one is of a wrong type.
        """
        check_types(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """A rung of a cascade that may hand on.

    Attributes:
        name: of the rung.
        threshold: the least confidence (highest probability) that is enough.
    """

    name: str
    threshold: float

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: one is of a wrong type or range; names it.
        """
        check_types(self)
        check_fields(self, {"threshold": (_may_be_enough(self.threshold), "in [0, 2]")})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cascade:
    """When a faster rung's answer is taken, and when a slower one is asked.

    Attributes:
        first: name of the rung that answers first; None for the fastest.
        threshold: the least confidence (highest probability) that is enough.
        then: rungs that are asked between the first and the best one.
        quality: the monitor of the answers on examples that had no part in the choice.
        share_handed_on: fraction of these that the first rung handed on.
        max_drop: what the choice was to keep the loss of quality within.
    """

    threshold: float
    quality: float
    share_handed_on: float
    max_drop: float | None = None
    first: str | None = None
    then: tuple[Step, ...] = ()

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: one is of a wrong type or range; names it.
        """
        check_types(self)
        check_fields(self, {
            "threshold": (_may_be_enough(self.threshold), "in [0, 2]"),
            "share_handed_on": (0.0 <= self.share_handed_on <= 1.0, "in [0, 1]")})


def sorted_out(made: Sequence[Rung], better: str = "higher"
               ) -> tuple[tuple[Rung, ...], tuple[LeftOut, ...]]:
    """The rungs that no other one beats in both, and those that one does.

    One beats another that is not better, nor faster, than it; of two that are the same
    in both, the first.

    Args:
        made: rungs with quality and p50.
        better: whether "higher" or "lower" quality is better.

    Returns:
        Rungs from the most accurate to the fastest; and the others, each with the one
        of these that beats it.
    """
    sign = 1.0 if better == "higher" else -1.0
    kept: list[Rung] = []
    left: list[LeftOut] = []
    # The fastest of the most accurate first: whoever beats a rung comes before it.
    for rung in sorted(made, key=lambda rung: (-sign * known(rung.quality),
                                               known(rung.p50_ms))):
        if kept and known(kept[-1].p50_ms) <= known(rung.p50_ms):
            left.append(LeftOut(name=rung.name, quality=known(rung.quality),
                                p50_ms=known(rung.p50_ms), beaten_by=kept[-1].name))
        else:
            kept.append(rung)
    return tuple(kept), tuple(left)


def known(value: float | None) -> float:
    """A figure that a rung of several must have.

    Raises:
        ValueError: it has not.
    """
    if value is None:
        raise ValueError("The rungs of a ladder must have `quality` and `p50_ms`. "
                         "Received: None")
    return value


def _may_be_enough(threshold: float) -> bool:
    """Whether it is a threshold; above 1 no confidence is enough."""
    return 0.0 <= threshold <= 2.0


def _is_name(text: str) -> bool:
    return (text not in ("", ".", "..") and text.isprintable()
            and not {"/", "\\"} & {*text})
