"""A request log of `tfopt serve --request_log` -> its lines, and what they add up to.

    lines = list(read("requests.jsonl"))
    panels(lines, {"3x": Reference.read("runs/ladder/3x")})

The panels are those of the Grafana dashboard (`dashboard.json`), as far as a log of
what was answered has them. NumPy alone.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfopt.files import parse_json
from tfopt.serve.observation import Observation
from tfopt.serve.reference import Drift, Reference
from tfopt.types import PathLike, shown

_RULE = "A line of a request log must be a JSON object as `tfopt serve` writes it"
_NUMBERS = ("time", "milliseconds", "queue_ms", "tokens", "unknown")
_WORDS = ("model", "variant")
_MOST_BINS, _FEWEST = 60, 20  # of time; texts of a bin in the mean
_MOST_LABELS = 6
_OTHERS = "others"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A text that was answered.

    Attributes:
        time: seconds since 1970, of the answer.
        model: that answered.
        variant: its rung.
        milliseconds: from the request's arrival to its answer.
        queue_ms: from the request's arrival to the model's start.
        seen: what was watched of the answer.
    """

    time: float
    model: str
    variant: str
    milliseconds: float
    queue_ms: float
    seen: Observation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    """A picture of some series over time.

    Attributes:
        title: what is drawn, with its unit.
        times: <float>[K], ends of the bins, in seconds since 1970.
        series: name -> <float>[K]; NaN where there is nothing.
    """

    title: str
    times: np.ndarray
    series: Mapping[str, np.ndarray]


def read(path: PathLike) -> Iterator[Line]:
    """Reads a log; a last line that is still being written is left out.

    Raises:
        ValueError: the file cannot be read, or a line is none of a log; names both.
    """
    try:
        with open(path, "rb") as file:
            for number, source in enumerate(file, start=1):
                if source.endswith(b"\n") and source.strip():
                    yield _line(parse_json(source, f"{path}:{number}", _RULE),
                                f"{path}:{number}")
    except OSError as error:
        raise ValueError(f"A request log must be a file: {error.strerror}. Received: "
                         f"{path}") from error


def _line(fields: Mapping[str, Any], place: str) -> Line:
    maybe = [fields.get(name) for name in ("confidence", "entropy")]
    label = fields.get("label")
    if not (all(_is_number(fields.get(name)) for name in _NUMBERS)
            and all(isinstance(fields.get(name), str) for name in _WORDS)
            and all(value is None or _is_number(value) for value in maybe)
            and (isinstance(label, str | None) or isinstance(label, list) and all(
                isinstance(word, str) for word in label))):
        raise ValueError(f"{_RULE}. Received: {place}: {shown(dict(fields))}")
    return Line(
        time=fields["time"], model=fields["model"], variant=fields["variant"],
        milliseconds=fields["milliseconds"], queue_ms=fields["queue_ms"],
        seen=Observation(maybe[0], maybe[1], int(fields["tokens"]),
                         int(fields["unknown"]), bool(fields.get("truncated")),
                         tuple(label) if isinstance(label, list) else label))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


class _Bins:
    """Lines by the bin of time that they are in; N lines, in their order, K bins."""

    def __init__(self, lines: Sequence[Line]):
        moments = np.array([line.time for line in lines])
        count = max(1, min(_MOST_BINS, len(lines) // _FEWEST))
        self.edges = np.linspace(moments[0], moments[-1] + 1e-3, count + 1)
        self._lines, self._bins = lines, np.clip(
            np.searchsorted(self.edges, moments, side="right") - 1, 0, count - 1)

    def statistic(self, of: Callable[[Line], float | None],
                  take: Callable[[Any], Any]) -> np.ndarray:
        """A statistic of each bin's values <float>[K], NaN where there are none."""
        values = np.array([np.nan if (value := of(line)) is None else value
                           for line in self._lines], float)
        found = np.full(len(self.edges) - 1, np.nan)
        for place in range(len(found)):
            own = values[(self._bins == place) & ~np.isnan(values)]
            if len(own):
                found[place] = take(own)
        return found

    def quantiles(self, of: Callable[[Line], float | None], **percent: int
                  ) -> dict[str, np.ndarray]:
        """Name -> that percentile of each bin."""
        return {name: self.statistic(of, functools.partial(np.percentile, q=which))
                for name, which in percent.items()}

    def rates(self, of: Callable[[Line], Sequence[str]]) -> dict[str, np.ndarray]:
        """Word -> lines that have it, among others maybe, per second, most first."""
        found: dict[str, np.ndarray] = {}
        each = 1 / (self.edges[1] - self.edges[0])
        for line, place in zip(self._lines, self._bins, strict=True):
            for word in of(line):
                found.setdefault(word, np.zeros(len(self.edges) - 1))[place] += each
        return dict(sorted(found.items(), key=lambda item: -item[1].sum()))


def panels(lines: Sequence[Line], references: Mapping[str, Reference] | None = None
           ) -> list[Panel]:
    """What lines add up to over time.

    Args:
        lines: in any order; one at least.
        references: variant -> what its answers look like on dev, for drift.

    Returns:
        A panel for each of texts, times, confidence, entropy, labels, tokens, shares,
        and drift where there is a reference.

    Raises:
        ValueError: there are no lines.
    """
    if not lines:
        raise ValueError("A request log must have a line at least. Received: none")
    lines = sorted(lines, key=lambda line: line.time)
    bins = _Bins(lines)
    found: dict[str, Mapping[str, np.ndarray]] = {
        "texts per second, by variant": bins.rates(lambda line: (line.variant,)),
        "milliseconds of a request": {
            **bins.quantiles(lambda line: line.milliseconds, p50=50, p90=90, p99=99),
            **bins.quantiles(lambda line: line.queue_ms, **{"p50 in the queue": 50})},
        "confidence": bins.quantiles(lambda line: line.seen.confidence, median=50,
                                     p10=10),
        "entropy, nats": bins.quantiles(lambda line: line.seen.entropy, median=50,
                                        p90=90),
        "answers per second, by label": _most(
            bins.rates(lambda line: line.seen.words or ("",))),
        "tokens of a text": bins.quantiles(lambda line: line.seen.tokens, median=50,
                                           p90=90),
        "shares of texts": {
            "cut": bins.statistic(lambda line: line.seen.truncated, np.mean),
            "with an unknown piece": bins.statistic(
                lambda line: line.seen.unknown > 0, np.mean)}}
    for variant, reference in (references or {}).items():
        found[f"drift of {variant}, 1 is the threshold"] = _drift(
            [line for line in lines if line.variant == variant], reference, bins.edges)
    return [Panel(title=title, times=bins.edges[1:], series=series)
            for title, series in found.items()]


def _most(rates: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The first of several series, and the sum of the others."""
    words = [*rates]
    found = {word: rates[word] for word in words[:_MOST_LABELS]}
    if len(words) > _MOST_LABELS:
        found[_OTHERS] = np.sum([rates[word] for word in words[_MOST_LABELS:]], axis=0)
    return found


def _drift(lines: Sequence[Line], reference: Reference, edges: np.ndarray
           ) -> dict[str, np.ndarray]:
    """Signal -> its distance as a multiple of its threshold, at the end of each bin."""
    drift, place = Drift(reference), 0
    series: dict[str, np.ndarray] = {}
    for number, end in enumerate(edges[1:]):
        while place < len(lines) and lines[place].time < end:
            seen = lines[place].seen
            drift.add(seen)
            place += 1
        for signal, (value, threshold) in drift.values().items():
            series.setdefault(signal, np.full(len(edges) - 1, np.nan))[number] = (
                value / threshold if threshold else float(value > 0))
    return series
