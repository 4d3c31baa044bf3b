"""Two reports -> what became worse by more than it may: for a continuous integration.

Imports no TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from xml.etree import ElementTree

from tfopt.report import Row, qualities

P50 = "latency_p50_ms"
BYTES = "file_bytes"
_POINTS = 100.0  # of a fraction such as accuracy


@dataclasses.dataclass(frozen=True)
class Check:
    """One figure held against its limit.

    Attributes:
        name: such as "accuracy (dev)".
        before: the figure of the base.
        after: of the new one.
        change: what is limited: a drop in points or in the metric's unit, or a ratio.
        limit: above which the check fails.
        unit: of the change.
    """

    name: str
    before: float
    after: float
    change: float
    limit: float
    unit: str

    @property
    def passed(self) -> bool:
        """Whether the change is within its limit; NaN is not."""
        return self.change <= self.limit

    def sentence(self) -> str:
        """The check in words."""
        return (f"{'passed' if self.passed else 'FAILED'}: {self.name} "
                f"{self.before:.6g} -> {self.after:.6g}, {self.change:+.4g} "
                f"{self.unit} of at most {self.limit:g}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """How much worse a report may be; None does not look.

    Attributes:
        max_drop: of a quality, in points where it is a fraction, else in its unit.
        max_p50_ratio: of the latency, new / base.
        max_bytes_ratio: of the file, new / base.
        metric: the quality; None for the first that the base has.
    """

    max_drop: float | None = None
    max_p50_ratio: float | None = None
    max_bytes_ratio: float | None = None
    metric: str | None = None


def checks(base: Sequence[Row], new: Sequence[Row], limits: Limits,
           base_artifact: str | None = None, new_artifact: str | None = None
           ) -> list[Check]:
    """Holds one artifact of a report against one of another.

    Args:
        base: figures of the report that is held to be good.
        new: of the one in question.
        limits: how much worse it may be.
        base_artifact: whose figures count; None for the last of the report.
        new_artifact: the same of the new report.

    Returns:
        A check of each limit; of the quality one for each split that both have.

    Raises:
        ValueError: nothing is limited, or a figure is not there.
    """
    if all(limit is None for limit in (limits.max_drop, limits.max_p50_ratio,
                                       limits.max_bytes_ratio)):
        raise ValueError("A gate must have a limit: of --max_drop, --max_p50_ratio and "
                         "--max_bytes_ratio one at least. Received: none")
    sides = [_figures(rows, artifact, name) for rows, artifact, name in (
        (base, base_artifact, "base"), (new, new_artifact, "new"))]
    found = []
    if limits.max_drop is not None:
        found += _drops(base, sides, limits.max_drop, limits.metric)
    for metric, limit in ((P50, limits.max_p50_ratio), (BYTES, limits.max_bytes_ratio)):
        if limit is not None:
            before, after = (_value(side, metric, "", name) for side, name in
                             zip(sides, ("base", "new"), strict=True))
            if not before.value > 0:
                raise ValueError(f"A ratio needs a figure above 0. Received: {metric}="
                                 f"{before.value} in the base report")
            found.append(Check(metric, before.value, after.value,
                               after.value / before.value, limit, "times"))
    return found


def to_junit(found: Sequence[Check]) -> str:
    """The checks as the XML of JUnit, which services of builds read."""
    suite = ElementTree.Element("testsuite", {
        "name": "tfopt gate", "tests": str(len(found)),
        "failures": str(sum(not check.passed for check in found))})
    for check in found:
        case = ElementTree.SubElement(suite, "testcase", {
            "classname": "tfopt.gate", "name": check.name})
        if not check.passed:
            ElementTree.SubElement(case, "failure", {"message": check.sentence()})
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, "unicode", xml_declaration=True) + "\n"


Figures = dict[tuple[str, str], Row]  # (metric, split) -> its row


def _figures(rows: Sequence[Row], artifact: str | None, name: str) -> Figures:
    known = list(dict.fromkeys(row.artifact for row in rows))
    if not known or artifact is not None and artifact not in known:
        raise ValueError(f"--{name}_artifact must be in the report, which has "
                         f"{', '.join(known) or 'no figures'}. Received: {artifact}")
    chosen = known[-1] if artifact is None else artifact
    return {(row.metric, row.split): row for row in rows if row.artifact == chosen}


def _value(side: Figures, metric: str, split: str, name: str) -> Row:
    if (metric, split) not in side:
        raise ValueError(f"A report must have the figure that is limited. Received: the"
                         f" {name} report without {metric}")
    return side[metric, split]


def _drops(base: Sequence[Row], sides: Sequence[Figures], limit: float,
           metric: str | None) -> list[Check]:
    """A check of each split that both sides have the quality of."""
    known = qualities(base)
    if not known or metric is not None and metric not in known:
        raise ValueError(f"--metric must be in the base report, which has "
                         f"{', '.join(known) or 'no quality'}. Received: {metric}")
    chosen = known[0] if metric is None else metric
    splits = [split for name, split in sides[0]
              if name == chosen and (name, split) in sides[1]]
    if not splits:
        raise ValueError("Both reports must have the quality on one split. Received: "
                         f"none in common with {chosen}")
    found = []
    for split in splits:
        before, after = (side[chosen, split] for side in sides)
        drop = ((before.value - after.value) if before.better == "higher"
                else after.value - before.value)
        points = before.unit == "fraction"
        found.append(Check(f"{chosen} ({split})", before.value, after.value,
                           drop * (_POINTS if points else 1.0), limit,
                           "points lost" if points else f"{before.unit} lost".strip()))
    return found
