"""The file of a latency table -> the table; timed on this machine if there is none.

The files of single blocks and of whole models (`measure.block_benchmark`) are timed,
and their times taken apart into what a `measure.latency_table` has.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from tfopt.export import tflite
from tfopt.files import to_json, write_whole
from tfopt.measure import block_benchmark, latency, latency_table
from tfopt.measure.block_benchmark import Sizes
from tfopt.measure.latency_table import (
    FIRST_EDITION,
    PLACES,
    TOKENS,
    Curve,
    LatencyTable,
)
from tfopt.model import EncoderConfig, Head
from tfopt.types import PathLike


def load(
    config: EncoderConfig,
    *,
    path: PathLike | None = None,
    num_threads: int = 2,
    scheme: str = "dynamic_wi8_afp32",
    tokens: Sequence[int] = TOKENS,
    rounds: int = 60,
    as_is: bool = False,
    note: Callable[[str], object] | None = None,
    head: Head = Head(),
    retime: bool = False,
    exports: PathLike | None = None,
    title: str = "Latency table",
) -> LatencyTable:
    """Reads the table of a model on this machine; times and writes it if there is none.

    The rounds timed so far are beside it, in `.rounds`: a killed run goes on there.

    Args:
        config: the model before pruning; its layers are the largest of the table.
        path: JSON file; None for one under ~/.cache/tfopt, named by the environment. A
            table of another environment is replaced, with a warning.
        num_threads: of a request.
        scheme: of the export, one that needs no calibration.
        tokens: token counts of the table, ascending; longer texts it cannot predict.
        rounds: turns of each of some 40 files; one more warms up. By the default a
            MiniLM takes four minutes on two cores.
        as_is: takes the table in `path`, which must be there, of whatever machine and
            runtime: that of a machine that serves, where another one trains.
        note: is given sentences for a reader, on spread and on a file that is replaced.
        head: of the model.
        retime: times the table anew, where there is one.
        exports: directory of the exported files, which tables of the same model and
            other numbers of threads share; None for none.
        title: what the progress is of.

    Raises:
        ValueError: an argument breaks its rule, or the file is no table; as it is, it
            is not there, or of other models, requests or exports.
    """
    _check(scheme, tokens, num_threads=num_threads, rounds=rounds)
    wanted = block_benchmark.environment(config, num_threads, scheme, tokens, head)
    if as_is:
        return _told(path, _read_as_is(path, config, wanted, note), note)
    path = Path(path) if path is not None else _default_path(wanted)
    if path.is_file() and not retime:
        table = read(path)
        differences = _differences(table, wanted)
        if not differences:
            return _told(path, table, note)
        _say(f"The latency table in {path} was timed anew, for it was of another "
             f"environment: {'; '.join(differences)}.", note, logging.warning)
    record = path.with_name(path.name + ".rounds")
    table = _build(config, head, wanted, rounds, record, exports, title)
    write_whole(path, table.to_json())
    record.unlink(missing_ok=True)
    logging.info("Wrote the latency table: %s", path)
    return _told(path, table, note)


def _check(scheme: str, tokens: Sequence[int], **counts: int) -> None:
    """Checks what a table is to be of."""
    tflite.check_scheme(scheme)
    if tflite.needs_calibration(scheme):
        raise ValueError("A table is of a scheme that needs no calibration. "
                         f"Received: scheme={scheme!r}")
    if list(tokens) != sorted(set(tokens)) or not tokens or tokens[0] < 1:
        raise ValueError("`tokens` must ascend from at least 1. "
                         f"Received: tokens={tokens}")
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1. Received: {name}={value}")


def _say(text: str, note: Callable[[str], object] | None,
         log: Callable[[str, str], object]) -> None:
    """Logs a sentence, and hands it to who wants to keep it."""
    log("%s", text)
    if note is not None:
        note(text)


def _told(path: PathLike | None, table: LatencyTable,
          note: Callable[[str], object] | None) -> LatencyTable:
    """The table, once it is said how far it can be held to what it has."""
    threads = table.environment.get("num_threads")
    of = f"The latency table in {path} ({threads} thread{'s' * (threads != 1)})"
    if table.medians_spread is None or table.disturbance is None:
        _say(f"{of} does not say how far its medians were apart.", note, logging.info)
        return table
    found = (f"{of}: medians of a fifth of its rounds differ by "
             f"{table.medians_spread:.0%}, and the median request took "
             f"{table.disturbance:.2f} times as long as one that nothing disturbs")
    if table.is_wide:
        _say(f"{found}: the machine had other work. Its predictions are as far off; "
             "--retime times it anew.", note, logging.warning)
    else:
        _say(f"{found}.", note, logging.info)
    return table


def read(path: Path) -> LatencyTable:
    """Reads a table's file.

    Raises:
        ValueError: it is no table.
    """
    try:
        return LatencyTable.from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError("A latency table cannot be read; remove it, and it is timed "
                         f"anew. Received: {path}: {error}") from error


def _read_as_is(path: PathLike | None, config: EncoderConfig,
                wanted: Mapping, note: Callable[[str], object] | None
                ) -> LatencyTable:
    """Reads a table of any machine that can predict what is wanted."""
    if path is None or not Path(path).is_file():
        raise ValueError("A table that is taken as it is must be there. "
                         f"Received: path={path}")
    table = read(Path(path))
    request = {name: wanted[name] for name in ("num_threads", "scheme", "head")}
    differences = _differences(table, request)
    try:
        table.check(config, wanted["tokens"])
    except ValueError as error:
        differences.append(str(error))
    if differences:
        raise ValueError(f"The latency table in {path} must fit model, texts and "
                         f"export. Received: {'; '.join(differences)}")
    of = "; ".join(_differences(table, wanted)) or "of this environment"
    _say(f"The latency table in {path} is taken as it is: {of}.", note, logging.info)
    return table


def _differences(table: LatencyTable, wanted: Mapping) -> list[str]:
    """What of an environment the table is not of."""
    given = {**FIRST_EDITION, **table.environment}
    if "head" in wanted and _is_first_editions(wanted):
        given.setdefault("head", wanted["head"])
    return [f"{name} {given.get(name)!r} there, {value!r} here"
            for name, value in wanted.items() if given.get(name) != value]


def _is_first_editions(environment: Mapping) -> bool:
    """Whether the head is that of the first edition, but for the number of outputs."""
    usual = block_benchmark.key_of(Head(outputs=environment["head"]["outputs"]))
    return environment["head"] == usual


def _build(config: EncoderConfig, head: Head, environment: Mapping, rounds: int,
           record: Path, exports: PathLike | None, title: str) -> LatencyTable:
    """Times all files, and takes the table apart."""
    grids = block_benchmark.grids(config)
    mixed = Sizes.mixed(config)
    plan: dict[Any, Sizes] = {
        "one": Sizes.empty(1), "empty": Sizes.empty(block_benchmark.REPEATS + 1),
        **{(*key, size): Sizes.of_block(*key, size)
           for key, grid in grids.items() for size in grid},
        **{sizes: sizes for scales in mixed.values() for scale in scales
           for sizes in scale}}
    times = block_benchmark.measure(
        config, plan, tokens=environment["tokens"], rounds=rounds, record=record,
        head=head, num_threads=environment["num_threads"],
        scheme=environment["scheme"], exports=exports, title=title)
    ms = times.ms

    def curve(kind, place):
        count = block_benchmark.REPEATS if place == "inner" else 1
        rows = [(ms[kind, place, size] - ms["empty"]) / count
                for size in grids[kind, place]]
        return Curve(sizes=(0, *grids[kind, place]),
                     ms=_tuples([np.zeros_like(ms["empty"]), *rows]))

    table = LatencyTable(
        environment=environment, tokens=tuple(environment["tokens"]),
        first_ms=tuple(ms["one"].tolist()),
        layer_ms=tuple(((ms["empty"] - ms["one"]) / block_benchmark.REPEATS).tolist()),
        attention={place: curve("heads", place) for place in PLACES},
        ffn={place: curve("neurons", place) for place in PLACES},
        interaction=((0, ((0.0, 0.0),)),), spread=tuple(times.spread.tolist()),
        medians_spread=times.medians_spread, disturbance=times.disturbance)

    def beyond(sizes):  # at all token counts alike, but for noise
        sized = config.replace(num_heads=sizes.heads, intermediate_sizes=sizes.neurons)
        rest = ms[sizes] - table.predict_each(sized, table.tokens)
        return latency_table.weights(sized), np.median(rest)

    def points(scales):
        taken = [np.mean([beyond(sizes) for sizes in scale], axis=0)
                 for scale in scales]
        return _tuples(sorted([(0.0, 0.0), *map(tuple, taken)]))

    return dataclasses.replace(table, interaction=tuple(
        (2 * layers, points(scales)) for layers, scales in mixed.items()))


def _default_path(environment: Mapping) -> Path:
    def of(fields):
        digest = hashlib.sha256(to_json(fields, sort_keys=True).encode()).hexdigest()
        return latency.cache() / f"latency_{digest[:16]}.json"

    first = of({name: value for name, value in environment.items()
                if name not in ("family", "head")})
    if (environment["family"] == FIRST_EDITION["family"]
            and _is_first_editions(environment) and first.is_file()):
        return first
    return of(environment)


def _tuples(rows) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(map(float, row)) for row in rows)
