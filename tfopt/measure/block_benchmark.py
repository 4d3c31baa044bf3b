"""Random BERTs of given sizes -> the times of their exported files, taken in turn.

The files that a latency table is made of (`measure.latency_table`): of single blocks,
several layers with the block and nothing else; and of whole models of mixed sizes.
Times do not depend on the values of weights, nor on the words of a vocabulary. A killed
measurement goes on with the rounds that it had not timed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from tfopt import model
from tfopt.export import tflite
from tfopt.files import to_json, write_whole
from tfopt.machine import cpu
from tfopt.measure import latency
from tfopt.measure.latency_table import ABSENT
from tfopt.measure.rounds import Rounds
from tfopt.model import EncoderConfig, Head
from tfopt.types import PathLike

REPEATS = 4  # layers of a file that have its block
_SCALES = (0.125, 0.25, 0.5)  # of the whole models of mixed sizes; two of each
_SEQUENCES = 3  # of all token counts, in a turn
_SAVE_ROUNDS = 5  # between two savings of the record
_SETTLE_S = 0.02  # thread pools spin on when their work is done
# Other programs only slow a request down: the least disturbed ones tell sizes apart.
_QUIET_PERCENTILE = 15
_PERCENTILES = range(5, 100, 10)  # of the requests of one file and length
_PARTS = 5  # of the rounds, whose medians are held against one another
_VOCABULARY = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a model's layers.

    Attributes:
        heads: of each layer; 0 for no attention block.
        neurons: of each layer; 0 for no ffn.
    """

    heads: tuple[int, ...]
    neurons: tuple[int, ...]

    @classmethod
    def of(cls, config: EncoderConfig) -> Sizes:
        """The sizes of a model."""
        return cls(heads=config.num_heads, neurons=config.intermediate_sizes)

    @classmethod
    def empty(cls, layers: int) -> Sizes:
        """Layers without blocks, but for their LayerNorms."""
        return cls(heads=(0,) * layers, neurons=(0,) * layers)

    @classmethod
    def of_block(cls, kind: str, place: str, size: int) -> Sizes:
        """Sizes of the file by which a block is timed.

        Args:
            kind: "heads" or "neurons", what the size is of.
            place: "inner": the first `REPEATS` layers have it; "last": one behind them.
            size: of the block.

        Returns:
            The sizes of `REPEATS` + 1 layers, which have no other blocks.
        """
        sizes = ((size,) * REPEATS + (0,) if place == "inner"
                 else (0,) * REPEATS + (size,))
        return dataclasses.replace(cls.empty(REPEATS + 1), **{kind: sizes})

    @classmethod
    def mixed(cls, config: EncoderConfig) -> dict[int, list[tuple[Sizes, ...]]]:
        """Whole models of random sizes, each block of one of the `grids`.

        Returns:
            Number of layers, a third of the model's or all -> models by scale; the last
            has the largest blocks throughout.
        """
        random = np.random.default_rng(0)
        by_kind = {kind: np.array(grid) for (kind, place), grid in grids(config).items()
                   if place == "inner"}

        def some(grid, scale, layers):
            wanted = grid[-1] * scale * random.uniform(0.2, 1.8, layers)
            return tuple(grid[np.abs(grid - size).argmin()].item() for size in wanted)

        def of(scale, layers):
            return cls(**{kind: some(grid, scale, layers)
                          for kind, grid in by_kind.items()})

        return {layers: [*((of(scale, layers), of(scale, layers)) for scale in _SCALES),
                         (cls(**{kind: (grid[-1].item(),) * layers
                                 for kind, grid in by_kind.items()}),)]
                for layers in sorted({max(1, config.num_layers // 3),
                                      config.num_layers})}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Times:
    """What files took.

    Attributes:
        ms: name -> <float>[N]: of requests that nothing disturbs, times what the median
            request of all files was disturbed.
        spread: <float>[10], how many times as long as that the tenth least disturbed of
            the requests takes, the next, and so on.
        medians_spread: as of `LatencyTable`.
        disturbance: the same.
    """

    ms: Mapping[Any, np.ndarray]
    spread: np.ndarray
    medians_spread: float
    disturbance: float


def environment(config: EncoderConfig, num_threads: int, scheme: str,
                tokens: Sequence[int], head: Head = Head()) -> dict:
    """What the times depend on, as JSON has it."""
    return {
        "family": config.family, "head": key_of(head), **parts_of(config),
        "cpu": cpu(), "cores": len(os.sched_getaffinity(0)),
        "num_threads": num_threads, "scheme": scheme,
        "ai_edge_litert": importlib.metadata.version("ai-edge-litert"),
        "hidden_size": config.hidden_size, "head_size": config.head_size,
        "activation": config.activation, "num_heads": list(config.num_heads),
        "intermediate_sizes": list(config.intermediate_sizes),
        "tokens": list(tokens)}


def parts_of(config: EncoderConfig) -> dict:
    """What an encoder has that not every one has, and that takes time."""
    return {name: value for name, absent in ABSENT.items()
            if (value := getattr(config, name)) != absent}


def key_of(head: Head) -> dict:
    """What of a head the times depend on."""
    fields = dataclasses.asdict(head)
    del fields["dropout"]
    return fields


def grids(config: EncoderConfig) -> dict[tuple[str, str], list[int]]:
    """The sizes that are timed: (kind, place), as of `Sizes.of_block` -> ascending.

    Raises:
        ValueError: no layer has the block.
    """
    heads, neurons = max(config.num_heads), max(config.intermediate_sizes)
    if not heads or not neurons:
        raise ValueError("A table is of a model with attention and ffn. Received: "
                         f"num_heads={config.num_heads}, "
                         f"intermediate_sizes={config.intermediate_sizes}")
    return {("heads", "inner"): list(range(1, heads + 1)),
            ("heads", "last"): _fractions(heads, 4, 1),
            ("neurons", "inner"): sorted({*(n for n in (32, 64, 128) if n < neurons),
                                          *_fractions(neurons, 8, 32)}),
            ("neurons", "last"): _fractions(neurons, 4, 32)}


def measure(
    config: EncoderConfig,
    plan: Mapping[str, Sizes],
    *,
    tokens: Sequence[int],
    num_threads: int,
    scheme: str,
    rounds: int,
    head: Head = Head(),
    record: PathLike | None = None,
    exports: PathLike | None = None,
    title: str = "Latency table",
) -> Times:
    """Exports models, and times them in turn.

    Args:
        config: all but the sizes of the layers.
        plan: name -> sizes.
        tokens: N token counts, in random order; a change of length is in the times.
        num_threads: of a request.
        scheme: of the export.
        rounds: turns of each file; one more warms up.
        head: of all files.
        record: file of the rounds done so far, for a run that follows a killed one to
            go on with; ignored if they are of anything else. Who calls removes it.
        exports: directory of the exported files, where they stay for another number of
            threads; None for a temporary one.
        title: what the progress is of.

    Returns:
        The times.
    """
    of = [environment(config, num_threads, scheme, tokens, head), _SEQUENCES,
          [dataclasses.asdict(sizes) for sizes in plan.values()]]
    done = Rounds(record, hashlib.sha256(to_json(of).encode()).hexdigest())
    with contextlib.ExitStack() as stack:
        place = Path(exports or stack.enter_context(tempfile.TemporaryDirectory()))
        files = _exported(config, plan, place, tokens, scheme, head, title)
        running = stack.enter_context(latency.started(
            {name: (file, num_threads) for name, file in files.items()}))
        turns = _in_turn(list(running.values()), tokens, rounds, done, title)
    seconds = np.concatenate(turns, axis=1)  # [P, rounds * sequences, N]
    quiet = np.percentile(seconds, _QUIET_PERCENTILE, axis=1)
    median = np.median(seconds, axis=1)
    usual = float(np.median(median / quiet))
    spread = np.median(np.percentile(seconds, _PERCENTILES, axis=1) / median,
                       axis=(1, 2))
    return Times(
        ms={name: 1e3 * usual * value for name, value in zip(plan, quiet, strict=True)},
        spread=spread, medians_spread=_medians_spread(turns, median),
        disturbance=usual)


def _medians_spread(turns: Sequence[list], median: np.ndarray) -> float:
    """How far apart medians of consecutive rounds are, of the usual file and length."""
    parts = np.array_split(np.arange(len(turns)), min(_PARTS, len(turns)))
    medians = [np.median(np.concatenate([turns[i] for i in part], axis=1), axis=1)
               for part in parts]
    return float(np.median(np.ptp(medians, axis=0) / median))


def _exported(config: EncoderConfig, plan: Mapping[str, Sizes], place: Path,
              tokens: Sequence[int], scheme: str, head: Head, title: str
              ) -> dict[str, Path]:
    """Name -> file of a model with random weights; those that are there stay."""
    files, begun = {}, time.monotonic()
    for number, (name, sizes) in enumerate(plan.items()):
        files[name] = place / f"{number}.tflite"
        if not files[name].exists():
            write_whole(files[name], tflite.convert(model.build(config.replace(
                num_heads=sizes.heads, intermediate_sizes=sizes.neurons,
                vocab_size=_VOCABULARY, max_positions=max(tokens)), head), scheme))
            if number % 10 == 9:
                logging.info("%s: exported %d of %d, %s left", title, number + 1,
                             len(plan), _left(begun, number + 1, len(plan)))
    return files


def _left(begun: float, done: int, total: int) -> str:
    """What is left of some work, such as "some 3 min"."""
    seconds = (time.monotonic() - begun) / done * (total - done)
    return f"some {seconds / 60:.0f} min" if seconds > 90 else f"some {seconds:.0f} s"


def _in_turn(running: Sequence[latency.TimedArtifact], tokens: Sequence[int],
             rounds: int, record: Rounds, title: str) -> list[list]:
    """Times P files: seconds of each round, [P, sequences of all token counts, N]."""
    done = record.read((len(running), _SEQUENCES, len(tokens)))[:rounds]
    before, begun = len(done), time.monotonic()
    if done:
        logging.info("%s: goes on after round %d of %d", title, before, rounds)
    for number in (-1, *range(len(done), rounds)):  # round -1 warms up
        # Of its own seed: a killed run goes on with the orders it would have had.
        taken = _round(running, tokens, np.random.default_rng(number + 1))
        if number < 0:
            continue
        done.append(taken.tolist())
        if len(done) % _SAVE_ROUNDS == 0:
            record.save(done)
            logging.info("%s: timed round %d of %d, %s left", title, len(done), rounds,
                         _left(begun, len(done) - before, rounds - before))
    return done


def _round(running: Sequence[latency.TimedArtifact], tokens: Sequence[int],
           random: np.random.Generator) -> np.ndarray:
    """One turn of each of P files, in random order: seconds [P, sequences, N]."""
    seconds = np.zeros([len(running), _SEQUENCES, len(tokens)])
    for i in random.permutation(len(running)):
        orders = [random.permutation(len(tokens)) for _ in range(_SEQUENCES)]
        # The first request wakes the threads, and is not counted.
        lengths = [max(tokens), *(tokens[k] for order in orders for k in order)]
        time.sleep(_SETTLE_S)
        taken = running[i].time([[1] * n for n in lengths], lengths)[1:]
        for row, part, order in zip(seconds[i], np.split(taken, _SEQUENCES), orders,
                                    strict=True):
            row[order] = part
    return seconds


def _fractions(size: int, count: int, multiple: int) -> list[int]:
    """The fractions 1 / count ... 1 of a size, rounded, without 0."""
    parts = {multiple * round(size * i / count / multiple) for i in range(1, count)}
    return sorted({part for part in parts if 0 < part < size} | {size})
