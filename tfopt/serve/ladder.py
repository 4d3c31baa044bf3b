"""`ladder.json`: bundles of one task from the most accurate to the fastest.

    ladder = Ladder.read("runs/ladder")
    [(rung.name, rung.quality, rung.p50_ms) for rung in ladder.rungs]
    bundle = Bundle.open(ladder.path(ladder.rungs[-1]))  # the fastest

A directory holds the file beside a bundle for each rung:

    {"format": 1, "monitor": "accuracy", "better": "higher",
     "rungs": [{"name": "1x", "directory": "1x", "quality": 0.914, "p50_ms": 2.1}, ...],
     "left_out": [{"name": "5x", "quality": 0.85, "p50_ms": 1.3, "beaten_by": "3x"}],
     "cascade": {"threshold": 0.93, "quality": 0.912, "share_handed_on": 0.21}}

Imports no TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tfopt.files import read_json, to_json, write_whole
from tfopt.serve import manifest
from tfopt.types import PathLike, check_fields, check_types, few, shown

FORMAT = 1
LADDER_FILE = "ladder.json"
_HERE = "."  # the directory of a bundle that stands alone
_RULE = "A ladder's file must be a JSON object"

Record = TypeVar("Record")


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
            "directory": (self.directory == _HERE or _is_name(self.directory),
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
class Cascade:
    """When the fastest rung's answer is taken, and when the best one is asked.

    Attributes:
        threshold: the least confidence (highest probability) that is enough.
        quality: the monitor of the answers on examples that had no part in the choice.
        share_handed_on: fraction of these that the best rung answered.
        max_drop: what the choice was to keep the loss of quality within.
    """

    threshold: float
    quality: float
    share_handed_on: float
    max_drop: float | None = None

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: one is of a wrong type or range; names it.
        """
        check_types(self)
        check_fields(self, {
            # Above 1 hands everything on: no confidence is enough.
            "threshold": (0.0 <= self.threshold <= 2.0, "in [0, 2]"),
            "share_handed_on": (0.0 <= self.share_handed_on <= 1.0, "in [0, 1]")})


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
                cascade=None if cascade is None else _record(
                    Cascade, cascade, "cascade"))
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
    for rung in sorted(made, key=lambda rung: (-sign * _of(rung.quality),
                                               _of(rung.p50_ms))):
        if kept and _of(kept[-1].p50_ms) <= _of(rung.p50_ms):
            left.append(LeftOut(name=rung.name, quality=_of(rung.quality),
                                p50_ms=_of(rung.p50_ms), beaten_by=kept[-1].name))
        else:
            kept.append(rung)
    return tuple(kept), tuple(left)


def _of(value: float | None) -> float:
    if value is None:
        raise ValueError("The rungs of a ladder must have `quality` and `p50_ms`. "
                         "Received: None")
    return value


def _check_order(rungs: Sequence[Rung], better: str) -> None:
    sign = 1.0 if better == "higher" else -1.0
    for one, other in zip(rungs, rungs[1:], strict=False):
        if (sign * _of(one.quality) < sign * _of(other.quality)
                or _of(one.p50_ms) < _of(other.p50_ms)):
            raise ValueError(
                "The rungs of a ladder must stand from the most accurate to the "
                f"fastest. Received: {one.name} before {other.name}")


def _is_name(text: str) -> bool:
    return (text not in ("", ".", "..") and text.isprintable()
            and not {"/", "\\"} & {*text})


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
        name=place.resolve().name or "bundle", directory=_HERE,
        p50_ms=p50 if isinstance(p50, float) and p50 > 0 else None),))


def _fields(record: Any) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(record).items()
            if value is not None}


def _records(kind: type[Record], fields: Mapping[str, Any], name: str
             ) -> tuple[Record, ...]:
    found = fields.get(name, [])
    if not isinstance(found, list):
        raise ValueError(f"`{name}` must be a list. Received: {name}={shown(found)}")
    return tuple(_record(kind, each, name) for each in found)


def _record(kind: type[Record], fields: Any, name: str) -> Record:
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    if not isinstance(fields, dict) or set(fields) - {*known}:
        raise ValueError(f"Each of `{name}` must be an object with {known}. Received: "
                         f"{shown(fields)}")
    try:
        return kind(**fields)
    except TypeError as error:  # a field is missing
        raise ValueError(f"Each of `{name}` must be an object with {known}. Received: "
                         f"{shown(fields)}: {error}") from error
