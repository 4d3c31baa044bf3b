"""Sizes of a BERT's layers -> how long the exported file takes, foretold from a table.

A pruning search asks for thousands of latencies, and can time none of them. As in ZipLM
(Kurtic et al. 2023, arXiv:2302.04089, section 3), a block's time is looked up in a
table that was timed in the runtime, on the machine that will serve:

    ms(model) = rest + sum attention_ms[heads] + sum ffn_ms[neurons] + together

A block is timed by a file in which several layers have it and nothing else, against one
whose layers are empty. What such files hide (their few weights stay in the processor's
cache) is `together`: what whole models of mixed sizes take beyond the sum of their
blocks, by the number of weights. The last layer has a table of its own: exported, it
computes queries and ffn for the first token alone (`model.for_inference`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from tfopt.export import tflite
from tfopt.files import write_whole
from tfopt.measure import block_times
from tfopt.measure.block_times import Sizes
from tfopt.model import BertConfig
from tfopt.types import PathLike

# A product's rows are computed by tiles of 16: one token more begins the next.
TOKENS = (1, 8, 16, 17, 24, 32, 33, 48, 64, 65, 96, 128)
PLACES = ("inner", "last")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """Times of one kind of block.

    Attributes:
        sizes: S heads or neurons, ascending from 0.
        ms: <float>[S, N], at the table's N token counts; of size 0, zeros.
    """

    sizes: tuple[int, ...]
    ms: tuple[tuple[float, ...], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Times of blocks, on a machine as busy as when they were taken.

    A request's time has the change of length in it, as that of natural texts has.

    Attributes:
        environment: machine, runtime and sizes that the table is of.
        tokens: N token counts, ascending.
        first_ms: <float>[N], of a model with one layer, empty but for its LayerNorms.
        layer_ms: <float>[N], of each further empty layer.
        attention: "inner" and "last" -> times by heads.
        ffn: "inner" and "last" -> times by neurons.
        together: (weights of all blocks, ms beyond the blocks' sum), ascending.
    """

    environment: Mapping
    tokens: tuple[int, ...]
    first_ms: tuple[float, ...]
    layer_ms: tuple[float, ...]
    attention: Mapping[str, Curve]
    ffn: Mapping[str, Curve]
    together: tuple[tuple[float, float], ...]

    def predict(self, config: BertConfig, lengths: Sequence[int]) -> float:
        """Foretells the median time of requests.

        Args:
            config: of layers no larger than the table's, of its width, any number.
            lengths: token counts of the texts, within those of the table.

        Returns:
            Milliseconds.

        Raises:
            ValueError: the table has no such sizes or lengths.
        """
        return float(np.median(self.predict_each(config, lengths)))

    def predict_each(self, config: BertConfig, lengths: Sequence[int]) -> np.ndarray:
        """Foretells the time of each request: ms <float>[N]; else as `predict`."""
        self._check(config)
        ms = self._parts(Sizes.of(config), lengths)
        return ms + np.interp(_weights(config), *zip(*self.together, strict=True))

    def attention_ms(self, place: str, lengths: Sequence[int]) -> np.ndarray:
        """Mean time over texts of an attention block, by its heads.

        Args:
            place: of the layer, "inner" or "last".
            lengths: token counts of the texts.

        Returns:
            Milliseconds <float>[H + 1] of 0 to H heads, without `together`.

        Raises:
            ValueError: the table has no such place or lengths.
        """
        return self._mean_ms(self.attention, place, lengths)

    def ffn_ms(self, place: str, lengths: Sequence[int]) -> np.ndarray:
        """As `attention_ms`, of an ffn by its neurons: <float>[F + 1]."""
        return self._mean_ms(self.ffn, place, lengths)

    def to_json(self) -> str:
        """Returns the fields as a JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> LatencyTable:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: the text is no table.
        """
        try:
            fields = json.loads(text)
            for name in ("attention", "ffn"):
                fields[name] = {place: Curve(
                    sizes=tuple(fields[name][place]["sizes"]),
                    ms=_tuples(fields[name][place]["ms"])) for place in PLACES}
            for name in ("tokens", "first_ms", "layer_ms"):
                fields[name] = tuple(fields[name])
            return cls(**fields | {"together": _tuples(fields["together"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError("A latency table must be what `to_json` wrote. "
                             f"Received: {text[:60]!r}: {error!r}") from error

    def _parts(self, sizes: Sizes, lengths) -> np.ndarray:
        """Sum of a model's parts, without `together`: ms <float>[N]."""
        self._check_lengths(lengths)
        ms = np.interp(lengths, self.tokens, self.first_ms) + (
            len(sizes.heads) - 1) * np.interp(lengths, self.tokens, self.layer_ms)
        for curves, own in ((self.attention, sizes.heads), (self.ffn, sizes.neurons)):
            ms += self._at(curves["inner"], own[:-1], lengths).sum(axis=1)
            ms += self._at(curves["last"], own[-1:], lengths).sum(axis=1)
        return ms

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

    def _check(self, config: BertConfig) -> None:
        sizes = {"hidden_size": config.hidden_size}
        if any(config.num_heads):
            sizes["head_size"] = config.head_size
        if any(config.intermediate_sizes):
            sizes["activation"] = config.activation
        if sizes != (own := {name: self.environment[name] for name in sizes}):
            raise ValueError(f"The model must be of the table's {own}. "
                             f"Received: {sizes}")
        largest = {"num_heads": self.attention["inner"].sizes[-1],
                   "intermediate_sizes": self.ffn["inner"].sizes[-1]}
        for name, most in largest.items():
            if max(getattr(config, name)) > most:
                raise ValueError(f"`{name}` must be at most {most}, as the table's. "
                                 f"Received: {name}={getattr(config, name)}")


def load(
    config: BertConfig,
    *,
    path: PathLike | None = None,
    num_threads: int = 2,
    scheme: str = "dynamic_wi8_afp32",
    tokens: Sequence[int] = TOKENS,
    rounds: int = 60,
) -> LatencyTable:
    """Reads the table of a model on this machine; times and writes it if there is none.

    Args:
        config: the model before pruning; its layers are the largest of the table.
        path: JSON file; None for one under ~/.cache/tfopt, named by the environment. A
            table of another environment is told of, and replaced.
        num_threads: of a request.
        scheme: of the export, one that needs no calibration.
        tokens: token counts of the table, ascending; longer texts it cannot foretell.
        rounds: turns of each of some 40 files; one more warms up. By the default a
            MiniLM takes four minutes on two cores.

    Returns:
        The table.

    Raises:
        ValueError: an argument breaks its rule, or the file is no table.
    """
    tflite.check_scheme(scheme)
    if tflite.needs_calibration(scheme):
        raise ValueError("A table is of a scheme that needs no calibration. "
                         f"Received: scheme={scheme!r}")
    if list(tokens) != sorted(set(tokens)) or not tokens or tokens[0] < 1:
        raise ValueError("`tokens` must ascend from at least 1. "
                         f"Received: tokens={tokens}")
    for name, value in (("num_threads", num_threads), ("rounds", rounds)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1. Received: {name}={value}")
    wanted = block_times.environment(config, num_threads, scheme, tokens)
    path = Path(path) if path is not None else _default_path(wanted)
    if path.is_file():
        try:
            table = LatencyTable.from_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} cannot be read; remove it, and it is timed "
                             f"anew. {error}") from error
        differences = [f"{name} {table.environment.get(name)!r} there, {value!r} here"
                       for name, value in wanted.items()
                       if table.environment.get(name) != value]
        if not differences:
            return table
        logging.warning("The latency table in %s is timed anew, for it is of another "
                        "environment: %s", path, "; ".join(differences))
    table = _build(config, wanted, rounds)
    write_whole(path, table.to_json())
    logging.info("Wrote the latency table: %s", path)
    return table


def _build(config: BertConfig, environment: Mapping, rounds: int) -> LatencyTable:
    """Times all files, and takes the table apart."""
    grids = block_times.grids(config)
    mixed = Sizes.mixed(config)
    plan = {"one": Sizes.empty(1), "empty": Sizes.empty(block_times.REPEATS + 1),
            **{(*key, size): Sizes.of_block(*key, size)
               for key, grid in grids.items() for size in grid},
            **{sizes: sizes for scale in mixed for sizes in scale}}
    ms = block_times.measure(config, plan, tokens=environment["tokens"], rounds=rounds,
                             num_threads=environment["num_threads"],
                             scheme=environment["scheme"])

    def curve(kind, place):
        count = block_times.REPEATS if place == "inner" else 1
        rows = [(ms[kind, place, size] - ms["empty"]) / count
                for size in grids[kind, place]]
        return Curve(sizes=(0, *grids[kind, place]),
                     ms=_tuples([np.zeros_like(ms["empty"]), *rows]))

    table = LatencyTable(
        environment=environment, tokens=tuple(environment["tokens"]),
        first_ms=tuple(ms["one"].tolist()),
        layer_ms=tuple(((ms["empty"] - ms["one"]) / block_times.REPEATS).tolist()),
        attention={place: curve("heads", place) for place in PLACES},
        ffn={place: curve("neurons", place) for place in PLACES},
        together=((0.0, 0.0),))

    def beyond(sizes):  # at all token counts alike, but for noise
        weights = _weights(config.replace(num_heads=sizes.heads,
                                          intermediate_sizes=sizes.neurons))
        return weights, np.median(ms[sizes] - table._parts(sizes, table.tokens))

    together = [np.mean([beyond(sizes) for sizes in scale], axis=0) for scale in mixed]
    return dataclasses.replace(table, together=_tuples(
        sorted([*table.together, *map(tuple, together)])))


def _weights(config: BertConfig) -> int:
    """Weights of all blocks."""
    return config.hidden_size * (
        4 * config.head_size * sum(config.num_heads)
        + 2 * sum(config.intermediate_sizes))


def _default_path(environment: Mapping) -> Path:
    digest = hashlib.sha256(json.dumps(environment, sort_keys=True).encode())
    return Path.home() / ".cache" / "tfopt" / f"latency_{digest.hexdigest()[:16]}.json"


def _between(x, points, values: np.ndarray) -> np.ndarray:
    """Linear interpolation: values <float>[P, Q] at P points -> <float>[len(x), Q]."""
    columns = [np.interp(x, points, column) for column in values.T]
    return np.reshape(columns, [values.shape[1], len(x)]).T


def _tuples(rows) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(map(float, row)) for row in rows)
