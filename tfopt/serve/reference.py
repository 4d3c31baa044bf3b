"""`reference.json`: what answers look like on dev; and how far those of service are.

    reference = Reference.read("runs/a")
    drift = Drift(reference)
    for seen in observations:
        drift.add(seen)
    drift.values()   # {"confidence": (0.31, 0.14), ...}: above its threshold is drift

Of each signal that has an order, the statistic is Kolmogorov's and Smirnov's: the
largest distance of the two distribution functions. Of labels it is the total variation.
Thresholds are by bootstrap at the window's size (Efron 1979): of a window and a
reference both drawn from dev, so that a small dev set, which knows its own distribution
badly, raises no more alarms than a large one. Of answers with several labels each
counts once, and the draws are as many as texts, for labels of one text come together.
NumPy alone.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfopt.files import read_json, to_json, write_whole
from tfopt.serve import manifest
from tfopt.serve.observation import Observation
from tfopt.types import PathLike, shown

FORMAT = 1
MOST_TEXTS = 2000
# Signal -> the largest value it can have. `unknown` is a share of tokens.
_NUMBERS = {"confidence": 1.0, "entropy": 1e3, "tokens": 1e9, "unknown": 1.0}
_ALWAYS = {"tokens", "unknown"}
LABEL = "label"
_BINS = 48  # of a signal, each as full as the others on dev
_DRAWS = 4000
_DIGITS = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """The signals of at most 2,000 dev texts.

    Attributes:
        numbers: signal -> its values <float>[N]; of a task without classes tokens and
            unknown alone.
        labels: words that were predicted; none for a task without classes.
        label: by their places in `labels` what was predicted of N texts, or nothing;
            a place, or a list of them for a task whose answers have several.
    """

    numbers: Mapping[str, np.ndarray]
    labels: tuple[str, ...]
    label: Sequence[int | Sequence[int]]

    @classmethod
    def of(cls, observations: Sequence[Observation], seed: int = 0) -> Reference:
        """Takes the signals of dev's answers.

        Args:
            observations: of dev, in any order; 2,000 are drawn of more.
            seed: of the draw.

        Raises:
            ValueError: there are none.
        """
        if not observations:
            raise ValueError("A reference is taken of one text or more. Received: none")
        rows = np.random.default_rng(seed).permutation(len(observations))[:MOST_TEXTS]
        drawn = [observations[row] for row in sorted(rows)]
        signals = [_signals(seen) for seen in drawn]
        names = [name for name in _NUMBERS if signals[0][name] is not None]
        said = [seen for seen in drawn if seen.label is not None]
        words = sorted({word for seen in said for word in seen.words})
        places = {word: place for place, word in enumerate(words)}
        return cls(
            numbers={name: np.array([each[name] for each in signals], np.float64)
                     for name in names},
            labels=tuple(words), label=[
                places[seen.label] if isinstance(seen.label, str)
                else [places[word] for word in seen.words] for seen in said])

    @classmethod
    def read(cls, directory: PathLike) -> Reference | None:
        """Reads the reference of a bundle.

        Returns:
            It; None where the bundle has none.

        Raises:
            ValueError: it is damaged, or of a newer format; names the file.
        """
        path = Path(directory) / manifest.REFERENCE_FILE
        if not path.is_file():
            return None
        fields = read_json(path, "A reference must be a JSON object")
        try:
            return _checked(fields)
        except ValueError as error:
            raise ValueError(f"{error} (the reference {path})") from error

    def write(self, directory: PathLike) -> None:
        """Writes `reference.json`.

        Raises:
            OSError: the disk is full or not writable.
        """
        fields = {"format": FORMAT, "labels": list(self.labels),
                  LABEL: [*self.label]} | {
            name: [round(float(value), _DIGITS) for value in values]
            for name, values in self.numbers.items()}
        write_whole(Path(directory) / manifest.REFERENCE_FILE,
                    to_json(fields, ensure_ascii=False) + "\n")


def _checked(fields: Mapping[str, Any]) -> Reference:
    if fields.get("format") != FORMAT or isinstance(fields["format"], bool):
        raise ValueError(f"References of format {FORMAT} can be read. Received: format "
                         f"{shown(fields.get('format'))}")
    labels, label = fields.get("labels", []), fields.get(LABEL, [])
    if not (isinstance(labels, list) and all(isinstance(word, str) for word in labels)):
        raise ValueError("`labels` must be a list of words. Received: labels="
                         f"{shown(labels)}")
    if not (isinstance(label, list) and all(
            type(place) is int and 0 <= place < len(labels)
            for part in label for place in _places(part))):
        raise ValueError("`label` must be a list of places in `labels`, or of lists of "
                         f"them. Received: label={shown(label)}")
    numbers = {}
    for name, most in _NUMBERS.items():
        values = fields.get(name)
        if values is None and name not in _ALWAYS:
            continue
        if not (isinstance(values, list) and values and all(
                type(value) in (int, float) and 0 <= value <= most
                for value in values)):
            raise ValueError(f"`{name}` must be a list of numbers from 0 to {most:g}. "
                             f"Received: {name}={shown(values)}")
        numbers[name] = np.array(values, np.float64)
    sizes = {len(values) for values in numbers.values()}
    if labels or label:
        sizes.add(len(label))
    if len(sizes) > 1:
        raise ValueError("The signals of a reference must be of the same texts. "
                         f"Received: {sorted(sizes)} texts")
    return Reference(numbers=numbers, labels=tuple(labels), label=label)


def _places(part: Any) -> Sequence[Any]:
    return part if isinstance(part, list) else [part]


def _signals(seen: Observation) -> dict[str, float | None]:
    return {"confidence": seen.confidence, "entropy": seen.entropy,
            "tokens": float(seen.tokens),
            "unknown": seen.unknown / seen.tokens if seen.tokens else 0.0}


def distances(window: np.ndarray, reference: np.ndarray, ordered: bool) -> np.ndarray:
    """How far counts of bins are apart, as fractions.

    Args:
        window: <int>[..., bins].
        reference: <int>[..., bins].
        ordered: whether bins have an order: then the largest distance of the sums up to
            each, else half the sum of the differences.

    Returns:
        <float>[...], in [0, 1].
    """
    gaps = (window / window.sum(axis=-1, keepdims=True)
            - reference / reference.sum(axis=-1, keepdims=True))
    if ordered:
        return np.abs(gaps.cumsum(axis=-1)).max(axis=-1)
    return np.abs(gaps).sum(axis=-1) / 2


class Drift:
    """How far the last answers are from dev's; for one thread at a time.

    Args:
        reference: of the bundle.
        window: answers that are compared; nothing is said before so many.
        false_alarms: probability that a window of dev's own kind is above any of the
            thresholds.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(self, reference: Reference, window: int = 300,
                 false_alarms: float = 0.005):
        self.window, self.false_alarms = window, false_alarms
        if window < 1 or not 0 < false_alarms < 1:
            raise ValueError("`window` must be at least 1, `false_alarms` in (0, 1). "
                             f"Received: window={window}, false_alarms={false_alarms}")
        # Of each signal the values up to which each bin goes; the last bin is above.
        self._edges = {name: np.unique(np.quantile(values, np.linspace(0, 1, _BINS)))
                       for name, values in reference.numbers.items()}
        self._places = {word: place for place, word in enumerate(reference.labels)}
        self._reference = {
            name: np.bincount(np.searchsorted(edges, reference.numbers[name]),
                              minlength=len(edges) + 1)
            for name, edges in self._edges.items()}
        if self._places:
            self._reference[LABEL] = np.bincount(
                [place for part in reference.label for place in _places(part)],
                minlength=len(self._places) + 1)
        self._texts = len(next(iter(reference.numbers.values())))
        self._counts = {name: np.zeros_like(counts)
                        for name, counts in self._reference.items()}
        self._last: deque[dict[str, list[int]]] = deque()
        self._thresholds: dict[str, float] | None = None

    def add(self, seen: Observation) -> None:
        """Takes in an answer, and lets go of the one a window before."""
        values = _signals(seen)
        bins = {name: [int(np.searchsorted(edges, value))]
                for name, edges in self._edges.items()
                if (value := values[name]) is not None}
        if self._places:
            bins[LABEL] = [self._places.get(word, len(self._places))
                           for word in seen.words or ("",)]
        self._last.append(bins)
        self._count(bins, 1)
        if len(self._last) > self.window:
            self._count(self._last.popleft(), -1)

    def _count(self, bins: Mapping[str, list[int]], by: int) -> None:
        for name, places in bins.items():
            for place in places:
                self._counts[name][place] += by

    def values(self) -> dict[str, tuple[float, float]]:
        """The distance of each signal, and the threshold above which it is drift.

        Returns:
            Signal -> the two, in [0, 1]; nothing before the window is full. The first
            call that returns something takes 0.2 s, for thresholds.
        """
        if len(self._last) < self.window:
            return {}
        if self._thresholds is None:
            self._thresholds = self._bootstrap()
        return {name: (float(distances(counts, self._reference[name], name != LABEL)),
                       self._thresholds[name])
                for name, counts in self._counts.items() if counts.sum()}

    def alarms(self) -> list[str]:
        """Signals that are above their thresholds."""
        return [name for name, (value, threshold) in self.values().items()
                if value > threshold]

    def _bootstrap(self) -> dict[str, float]:
        """The threshold of each signal, all together for the rate of false alarms."""
        random = np.random.default_rng(0)
        level, found = 1 - self.false_alarms / len(self._reference), {}
        for name, counts in self._reference.items():
            chances = counts / counts.sum()
            windows = random.multinomial(self.window, chances, _DRAWS)
            others = random.multinomial(self._texts, chances, _DRAWS)
            found[name] = float(np.quantile(
                distances(windows, others, name != LABEL), level))
        return found
