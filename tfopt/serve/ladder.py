"""`ladder.json`: bundles of one task from the most accurate to the fastest.

    ladder = Ladder.read("runs/ladder")
    [(rung.name, rung.quality, rung.p50_ms) for rung in ladder.rungs]
    bundle = Bundle.open(ladder.path(ladder.rungs[-1]))  # the fastest

A directory holds the file beside a bundle for each rung:

    {"format": 1, "monitor": "accuracy", "better": "higher",
     "rungs": [{"name": "1x", "directory": "1x", "quality": 0.914, "p50_ms": 2.1}, ...],
     "left_out": [{"name": "5x", "quality": 0.85, "p50_ms": 1.3, "beaten_by": "3x"}],
     "cascade": {"first": "5x", "threshold": 0.93, "quality": 0.912,
                 "share_handed_on": 0.21, "then": [{"name": "3x", "threshold": 0.9}]}}

Imports no TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tfopt.files import read_json, to_json, write_whole
from tfopt.serve import manifest
from tfopt.serve.rungs import HERE, Cascade, LeftOut, Rung, Step, known
from tfopt.types import PathLike, check_fields, check_types, few, shown

FORMAT = 1
LADDER_FILE = "ladder.json"
_RULE = "A ladder's file must be a JSON object"

Record = TypeVar("Record")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ladder:
    """Bundles of one task, from the most accurate to the fastest.

    Attributes:
        place: the directory.
        rungs: at least one; each next one is not slower, nor better.
        monitor: name of the metric that `quality` is; "" where it is not known.
        better: whether "higher" or "lower" of it is better.
        left_out: what is no rung, and why.
        cascade: the threshold of a cascade, if one was chosen.
    """

    place: Path
    rungs: tuple[Rung, ...]
    monitor: str = ""
    better: str = "higher"
    left_out: tuple[LeftOut, ...] = ()
    cascade: Cascade | None = None

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: there is no rung, two of a name, or they are in a wrong order.
        """
        check_types(self)
        names = [rung.name for rung in self.rungs]
        check_fields(self, {
            "better": (self.better in ("higher", "lower"), "'higher' or 'lower'"),
            "rungs": (bool(self.rungs), "one rung or more")})
        if len({*names}) < len(names):
            raise ValueError("The rungs of a ladder must have a name each. Received: "
                             f"{few(names)}")
        if len(self.rungs) > 1:
            _check_order(self.rungs, self.better)
        asked = [names.index(step.name) if step.name in names[1:] else -1
                 for step in self.steps]
        if -1 in asked or asked != sorted({*asked}, reverse=True):
            raise ValueError(
                "A cascade's rungs must be of the ladder's, from a faster to a slower "
                "one, and not the best. Received: "
                f"{few([step.name for step in self.steps])}, of {few(names)}")

    def path(self, rung: Rung) -> Path:
        """The directory of a rung's bundle."""
        return self.place / rung.directory

    @property
    def best(self) -> Rung:
        """The most accurate rung."""
        return self.rungs[0]

    @property
    def fastest(self) -> Rung:
        """The fastest rung."""
        return self.rungs[-1]

    @property
    def steps(self) -> tuple[Step, ...]:
        """The rungs of the cascade that may hand on, as they are asked."""
        if self.cascade is None or len(self.rungs) < 2:
            return ()
        return (Step(name=self.cascade.first or self.fastest.name,
                     threshold=self.cascade.threshold), *self.cascade.then)

    @classmethod
    def read(cls, directory: PathLike) -> Ladder:
        """Reads a ladder; a bundle's directory is one of a single rung, of its name.

        Args:
            directory: with `ladder.json`, or of a bundle.

        Returns:
            The ladder; its bundles are there, and are read only when they are opened.

        Raises:
            ValueError: it is no directory, holds neither, or `ladder.json` is damaged,
                of a newer format, or names a bundle that is not there; says which.
        """
        place = Path(directory)
        path = place / LADDER_FILE
        if not place.is_dir():
            raise ValueError(f"A ladder must be a directory. Received: {directory}")
        if not path.is_file():
            return _alone(cls, place)
        fields = read_json(path, _RULE)
        number = fields.get("format")
        if type(number) is not int or not 0 < number <= FORMAT:
            raise ValueError(f"Ladders up to format {FORMAT} can be read; others by a "
                             f"newer tfopt. Received: {path} of format {shown(number)}")
        try:
            cascade = fields.get("cascade")
            ladder = cls(
                place=place, rungs=_records(Rung, fields, "rungs"),
                monitor=fields.get("monitor", ""),
                better=fields.get("better", "higher"),
                left_out=_records(LeftOut, fields, "left_out"),
                cascade=None if cascade is None else _cascade(cascade))
        except ValueError as error:
            raise ValueError(f"{error} (the ladder {path})") from error
        for rung in ladder.rungs:
            if not ladder.path(rung).is_dir():
                raise ValueError("A ladder's bundles must be there. Received: no "
                                 f"{ladder.path(rung)}, a rung of {path}")
        return ladder

    def write(self) -> None:
        """Writes `ladder.json`; to be called when the bundles are there.

        Raises:
            OSError: the disk is full or not writable.
        """
        fields: dict[str, Any] = {
            "format": FORMAT, "monitor": self.monitor, "better": self.better,
            "rungs": list(map(_fields, self.rungs)),
            "left_out": list(map(_fields, self.left_out))}
        if self.cascade is not None:
            fields["cascade"] = _fields(self.cascade)
        write_whole(self.place / LADDER_FILE,
                    to_json(fields, ensure_ascii=False, indent=1) + "\n")


def _check_order(rungs: Sequence[Rung], better: str) -> None:
    sign = 1.0 if better == "higher" else -1.0
    for one, other in zip(rungs, rungs[1:], strict=False):
        if (sign * known(one.quality) < sign * known(other.quality)
                or known(one.p50_ms) < known(other.p50_ms)):
            raise ValueError(
                "The rungs of a ladder must stand from the most accurate to the "
                f"fastest. Received: {one.name} before {other.name}")


def _alone(kind: type[Ladder], place: Path) -> Ladder:
    """The ladder of a bundle alone."""
    if not ((place / manifest.MANIFEST_FILE).is_file()
            or (place / manifest.MODEL_FILE).is_file()):
        raise ValueError(f"A ladder must have {LADDER_FILE}, or be a bundle with "
                         f"{manifest.MANIFEST_FILE}. Received: {place} with neither")
    figures: Mapping[str, Any] = {}
    if (place / manifest.MANIFEST_FILE).is_file():
        figures = read_json(place / manifest.MANIFEST_FILE).get("figures", {})
    p50 = figures.get("latency_p50_ms") if isinstance(figures, Mapping) else None
    return kind(place=place, rungs=(Rung(
        name=place.resolve().name or "bundle", directory=HERE,
        p50_ms=p50 if isinstance(p50, float) and p50 > 0 else None),))


def _fields(record: Any) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(record).items()
            if value not in (None, ())}


def _cascade(fields: Any) -> Cascade:
    then = (_records(Step, fields, "then") if isinstance(fields, dict)
            and "then" in fields else None)
    return _record(Cascade, fields if then is None else {**fields, "then": then},
                   "cascade")


def _records(kind: type[Record], fields: Mapping[str, Any], name: str
             ) -> tuple[Record, ...]:
    found = fields.get(name, [])
    if not isinstance(found, list):
        raise ValueError(f"`{name}` must be a list. Received: {name}={shown(found)}")
    return tuple(_record(kind, each, name) for each in found)


def _record(kind: type[Record], fields: Any, name: str) -> Record:
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    if not isinstance(fields, dict) or set(fields) - {*names}:
        raise ValueError(f"Each of `{name}` must be an object with {names}. Received: "
                         f"{shown(fields)}")
    try:
        return kind(**fields)
    except TypeError as error:  # a field is missing
        raise ValueError(f"Each of `{name}` must be an object with {names}. Received: "
                         f"{shown(fields)}: {error}") from error
