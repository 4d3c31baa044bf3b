"""Sizes of a BERT's layers -> how long the exported file takes, predicted from a table.

A pruning search asks for thousands of latencies, and can time none of them. As in ZipLM
(Kurtic et al. 2023, arXiv:2302.04089, section 3), a block's time is looked up in a
table that was timed in the runtime, on the machine that will serve:

    ms(model) = rest + sum attention_ms[heads] + sum ffn_ms[neurons] + interaction

A block is timed by a file in which several layers have it and nothing else, against one
whose layers are empty (`measure.table_file`). What such files hide (their few weights
and operations stay in the processor's caches) is `interaction`: what whole models of
mixed sizes take beyond the sum of their blocks, by how many these are and by the
number of their weights. The last layer has a table of its own: exported, it computes
queries and ffn for the first token alone, where the head reads no other
(`model.for_inference`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfopt.files import parse_json, to_json
from tfopt.model import EncoderConfig
from tfopt.types import check_fields, check_types

# A product's rows are computed by tiles of 16: one token more begins the next.
TOKENS = (1, 8, 16, 17, 24, 32, 33, 48, 64, 65, 96, 128)
PLACES = ("inner", "last")
# What the tables of the first edition are of, and do not say.
FIRST_EDITION = {"family": "bert"}
# Parts that not every encoder has -> what it says without; tables do not say that.
ABSENT = {"embedding_size": None, "relative_buckets": 0}
# Of a table whose machine did nothing else these are at most half as far from 0, and 1.
_WIDE, _DISTURBED = 0.2, 1.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """Times of one kind of block.

    Attributes:
        sizes: S heads or neurons, ascending from 0.
        ms: <float>[S, N], at the table's N token counts; of size 0, zeros.
    """

    sizes: tuple[int, ...]
    ms: tuple[tuple[float, ...], ...]

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: sizes do not ascend from 0, or do not have a row of times each.
        """
        check_types(self)
        check_fields(self, {
            "sizes": (_ascend(self.sizes) and self.sizes[0] == 0, "ascending from 0"),
            "ms": (len(self.ms) == len(self.sizes)
                   and all(map(_usable, self.ms)), "a row of times for each size")})


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Times of blocks, on a machine as busy as when they were taken.

    A request's time has the change of length in it, as that of natural texts has.

    Attributes:
        environment: machine, runtime, family, head and sizes that the table is of.
        tokens: N token counts, ascending.
        first_ms: <float>[N], of a model with one layer, empty but for its LayerNorms.
        layer_ms: <float>[N], of each further empty layer.
        attention: "inner" and "last" -> times by heads.
        ffn: "inner" and "last" -> times by neurons.
        interaction: by the number of blocks, ascending: (blocks, points of (weights of
            all blocks, ms beyond the blocks' sum), ascending).
        spread: of requests of one length, in equal parts: how many times as long as the
            median each part takes.
        medians_spread: how far apart the medians of consecutive parts of the rounds
            are, as a fraction: what the table can be held to; None for tables that do
            not say.
        disturbance: how many times as long the median request took as one that nothing
            disturbs; None likewise.
    """

    environment: Mapping
    tokens: tuple[int, ...]
    first_ms: tuple[float, ...]
    layer_ms: tuple[float, ...]
    attention: Mapping[str, Curve]
    ffn: Mapping[str, Curve]
    interaction: tuple[tuple[int, tuple[tuple[float, float], ...]], ...]
    spread: tuple[float, ...]
    medians_spread: float | None = None
    disturbance: float | None = None

    @property
    def is_wide(self) -> bool:
        """Whether it was timed beside other work, as far as its spread tells."""
        return ((self.medians_spread or 0.0) > _WIDE
                or (self.disturbance or 1.0) > _DISTURBED)

    def __post_init__(self):
        """Checks the fields with one another.

        Raises:
            ValueError: one has another type or length than it should.
        """
        check_types(self)
        count = len(self.tokens)

        def whole(curves):
            return set(curves) == set(PLACES) and all(
                isinstance(curve, Curve) and {*map(len, curve.ms)} == {count}
                for curve in curves.values())

        each = f"of a time for each of {count} token counts"
        check_fields(self, {
            "tokens": (_ascend(self.tokens) and self.tokens[0] > 0,
                       "ascending from at least 1"),
            **{name: (len(row) == count and _usable(row), each) for name, row in (
                ("first_ms", self.first_ms), ("layer_ms", self.layer_ms))},
            **{name: (whole(curves), f"{' and '.join(PLACES)}, {each}")
               for name, curves in (("attention", self.attention), ("ffn", self.ffn))},
            "interaction": (
                _ascend([count for count, _ in self.interaction]) and all(
                    points and list(points) == sorted(points)
                    and all(map(_usable, points)) for _, points in self.interaction),
                "ascending, of ascending points"),
            "spread": (self.spread and min(self.spread) > 0 and _usable(self.spread),
                       "times the median, above 0")})

    def predict(self, config: EncoderConfig, lengths: Sequence[int]) -> float:
        """Predicts the median time of requests.

        Args:
            config: of layers no larger than the table's, of its width, any number.
            lengths: token counts of the texts, within those of the table.

        Returns:
            Milliseconds.

        Raises:
            ValueError: the table has no such sizes or lengths.
        """
        # Where times leap from one length to the next, the median of all requests lies
        # between the medians of these lengths.
        return float(np.median(np.outer(self.predict_each(config, lengths),
                                        self.spread)))

    def predict_each(self, config: EncoderConfig, lengths: Sequence[int]) -> np.ndarray:
        """Predicts the median time of each: ms <float>[N]; else as `predict`."""
        self.check(config, lengths)
        ms = np.interp(lengths, self.tokens, self.first_ms) + (
            config.num_layers - 1) * np.interp(lengths, self.tokens, self.layer_ms)
        for curves, own in ((self.attention, config.num_heads),
                            (self.ffn, config.intermediate_sizes)):
            ms += self._at(curves["inner"], own[:-1], lengths).sum(axis=1)
            ms += self._at(curves["last"], own[-1:], lengths).sum(axis=1)
        beyond = [float(np.interp(weights(config), [size for size, _ in points],
                                  [ms for _, ms in points]))
                  for _, points in self.interaction]
        return ms + np.interp(blocks(config), [count for count, _ in self.interaction],
                              beyond)

    def attention_ms(self, place: str, lengths: Sequence[int]) -> np.ndarray:
        """Mean time over texts of an attention block, by its heads.

        Args:
            place: of the layer, "inner" or "last".
            lengths: token counts of the texts.

        Returns:
            Milliseconds <float>[H + 1] of 0 to H heads, without `interaction`.

        Raises:
            ValueError: the table has no such place or lengths.
        """
        return self._mean_ms(self.attention, place, lengths)

    def ffn_ms(self, place: str, lengths: Sequence[int]) -> np.ndarray:
        """As `attention_ms`, of an ffn by its neurons: <float>[F + 1]."""
        return self._mean_ms(self.ffn, place, lengths)

    def check(self, config: EncoderConfig, lengths: Sequence[int]) -> None:
        """Checks that the table can predict a model at texts of these lengths.

        Raises:
            ValueError: it has no such sizes or lengths.
        """
        self._check_sizes(config)
        self._check_lengths(lengths)

    def to_json(self) -> str:
        """Returns the fields as a JSON object."""
        return to_json(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> LatencyTable:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: the text is no table.
        """
        fields = parse_json(text, repr(text[:60]),
                            "A latency table must be what `to_json` wrote")
        try:
            for name in ("attention", "ffn"):
                fields[name] = {place: Curve(
                    sizes=_tuples(fields[name][place]["sizes"]),
                    ms=_tuples(fields[name][place]["ms"])) for place in PLACES}
            if "together" in fields:  # its name in the first edition
                fields["interaction"] = fields.pop("together")
            for name in ("tokens", "first_ms", "layer_ms", "interaction", "spread"):
                fields[name] = _tuples(fields[name])
            return cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError("A latency table must be what `to_json` wrote. "
                             f"Received: {text[:60]!r}: {str(error)[:200]}"
                             ) from error

    def _mean_ms(self, curves, place, lengths) -> np.ndarray:
        if place not in PLACES:
            raise ValueError(f"A layer's place must be one of {PLACES}. "
                             f"Received: place={place!r}")
        self._check_lengths(lengths)
        curve = curves[place]
        return self._at(curve, range(curve.sizes[-1] + 1), lengths).mean(axis=0)

    def _at(self, curve: Curve, sizes, lengths) -> np.ndarray:
        """Times <float>[lengths, sizes], linear between the points of the table."""
        by_size = _between(sizes, curve.sizes, np.array(curve.ms))
        return _between(lengths, self.tokens, by_size.T)

    def _check_lengths(self, lengths) -> None:
        low, high = self.tokens[0], self.tokens[-1]
        if not (len(lengths) and low <= min(lengths) and max(lengths) <= high):
            raise ValueError(f"`lengths` must be {low} to {high}, as the table's. "
                             f"Received: lengths={list(lengths)[:8]}")

    def _check_sizes(self, config: EncoderConfig) -> None:
        sizes: dict[str, Any] = {"family": config.family,
                                 "hidden_size": config.hidden_size,
                                 "embedding_size": config.embedding_size}
        if any(config.num_heads):
            sizes |= {"head_size": config.head_size,
                      "relative_buckets": config.relative_buckets}
        if any(config.intermediate_sizes):
            sizes["activation"] = config.activation
        given = {**ABSENT, **FIRST_EDITION, **self.environment}
        if sizes != (own := {name: given.get(name) for name in sizes}):
            raise ValueError(f"The model must be of the table's {own}. "
                             f"Received: {sizes}")
        largest = {"num_heads": self.attention["inner"].sizes[-1],
                   "intermediate_sizes": self.ffn["inner"].sizes[-1]}
        for name, most in largest.items():
            if max(getattr(config, name)) > most:
                raise ValueError(f"`{name}` must be at most {most}, as the table's. "
                                 f"Received: {name}={getattr(config, name)}")


def blocks(config: EncoderConfig) -> int:
    """Blocks of which there is something."""
    return int(np.count_nonzero([config.num_heads, config.intermediate_sizes]))


def weights(config: EncoderConfig) -> int:
    """Weights of all blocks."""
    return config.hidden_size * (
        4 * config.head_size * sum(config.num_heads)
        + 2 * sum(config.intermediate_sizes))


def _between(x, points, values: np.ndarray) -> np.ndarray:
    """Linear interpolation: values <float>[P, Q] at P points -> <float>[len(x), Q]."""
    columns = [np.interp(x, points, column) for column in values.T]
    return np.reshape(columns, [values.shape[1], len(x)]).T


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _ascend(numbers: Sequence[float]) -> bool:
    return len(numbers) > 0 and list(numbers) == sorted(set(numbers))


def _usable(numbers: Sequence[float]) -> bool:
    """Whether there are numbers, and sums and products of them are numbers too."""
    return len(numbers) > 0 and max(map(abs, numbers)) < 1e15
