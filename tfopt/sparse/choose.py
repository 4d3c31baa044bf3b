"""A kernel with zeros -> the form in which it is multiplied fastest, by timing.

What zeros save depends on the machine, the pattern and the number of rows; nothing
short of a trial tells. Candidates take turns with the dense product, several products a
call, so that neither the calls nor a drift of the machine count. Dense is left for what
is faster by a margin, twice. Each answer is kept in a file of this machine's.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from tfopt.backend import tf
from tfopt.files import read_json, to_json, write_whole
from tfopt.machine import cpu
from tfopt.sparse import storage
from tfopt.sparse.matmul import matmul
from tfopt.types import PathLike, check_types

MARGIN = 1.1  # times as fast as dense, in the first trial and in the second
_LEAST_ZEROS = 0.4  # below which nothing has been seen to pay
PRODUCTS = 8  # in a call: they share what calling costs, 0.1 ms or so
_ROUNDS = (9, 25)  # of the first trial, and of the second
_LOST = 1.5  # times as slow as dense in the first round: not tried further
_CALL_S = 2e-3  # the least that is timed at once
_TRIAL_S = 2.0  # after which a trial ends, with these rounds at least
_LEAST_ROUNDS = 7


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """The form that was chosen.

    Attributes:
        backend: one of `storage.BACKENDS`.
        block: b of a form of blocks.
        speedup: times as fast as dense, of several numbers of rows the least; 1 for
            dense itself.
        tried: name of each candidate -> its speedup in the first trial.
        milliseconds: of one product, of the largest number of rows: of "dense" and of
            each candidate that was not given up.
    """

    backend: str
    block: int | None = None
    speedup: float = 1.0
    tried: Mapping[str, float] = dataclasses.field(default_factory=dict)
    milliseconds: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        """Checks the types: a choice may come from a file.

        Raises:
            ValueError: a field is of another.
        """
        check_types(self)


def choose(kernel: np.ndarray, *, block: int | None = None,
           rows: int | Sequence[int] = 128, dtype: str = "float32",
           frozen: bool = False, cache_file: PathLike | None = None) -> Choice:
    """Chooses.

    Args:
        kernel: <float>[K, N], zeros where there is no weight.
        block: b; None for each of which the kernel's blocks are nine tenths full.
        rows: of x; of several numbers, each must be faster than dense.
        dtype: in which is computed.
        frozen: times a CSR matrix that is made once (`SparseDense.freeze`), not in each
            product.
        cache_file: JSON file that remembers; None for one under ~/.cache/tfopt, named
            by the environment. Another environment's file is written anew.

    Returns:
        The choice.

    Raises:
        ValueError: an argument breaks its rule; the kernel is not finite, or empty.
    """
    kernel = np.asarray(kernel, np.float32)
    storage.check_kernel(kernel)
    storage.check_backend("dense", dtype)
    rows = sorted({rows} if isinstance(rows, int) else set(rows))
    if not rows or rows[0] < 1:
        raise ValueError(f"`rows` must be at least 1. Received: rows={rows}")
    candidates = candidates_of(kernel, block, dtype)
    if not candidates:
        return Choice(backend="dense")
    here = environment()
    path = Path(cache_file) if cache_file is not None else _default_path(here)
    key = to_json(_about(kernel, candidates, rows, dtype) | {"frozen": frozen},
                     sort_keys=True)
    if (known := _read(path, here).get(key)) is not None:
        return known
    found = _try(kernel, candidates, rows, dtype, frozen)
    kept = {**_read(path, here), key: found}  # others may have written meanwhile
    write_whole(path, to_json({"environment": here, "choices": {
        name: dataclasses.asdict(value) for name, value in kept.items()}}, indent=1))
    logging.info("Sparse kernel %s, %.0f %% zeros, %s rows: %s", kernel.shape,
                 100 * np.mean(kernel == 0), rows, found)
    return found


def candidates_of(kernel: np.ndarray, block: int | None, dtype: str
                  ) -> list[tuple[str, int | None]]:
    """The forms to try beside dense: (backend, block) of each.

    `coo` is not among them: it was 10 to 50 times slower than dense.

    Raises:
        ValueError: the block is none of `storage.BLOCKS`, or divides not the kernel.
    """
    if block is not None:
        storage.check_backend("block", dtype, block)
        storage.kept_blocks(kernel, block)
    block = storage.fitting_block(kernel) if block is None else block
    found: list[tuple[str, int | None]] = []
    if block:
        kept = storage.kept_blocks(kernel, block)
        if 1 - np.mean(kept) >= _LEAST_ZEROS:
            found += [("block_unrolled", block), ("block", block)]
            if storage.strips_of(kept.sum(0).mean(), block) > 1:
                found.append(("block_strips", block))
    if dtype in storage.DTYPES["csr"] and np.mean(kernel == 0) >= _LEAST_ZEROS:
        found.append(("csr", None))
    return found


def in_one_call(product: Callable, inputs: int, dtype: str = "float32") -> Callable:
    """A graph of several products, one after another.

    Args:
        product: x <float>[M, inputs] -> <float>[M, N].
        inputs: K.
        dtype: of x.

    Returns:
        A function of `PRODUCTS` different x, for `seconds_in_turn`.
    """
    @tf.function(input_signature=[tf.TensorSpec([None, inputs], dtype)] * PRODUCTS,
                 autograph=False)
    def call(*xs):
        done = []
        for x in xs:
            with tf.control_dependencies(done[-1:]):
                # Needs all of y, for one operation: each takes 5 microseconds or so.
                done.append(product(x)[:1, :1])
        return tf.add_n(done)

    return call.get_concrete_function()


def seconds_in_turn(calls: Mapping[str, Callable], rows: int, inputs: int,
                    rounds: int, dtype: str = "float32", lost: float | None = None
                    ) -> dict[str, np.ndarray]:
    """Times products against one another.

    Args:
        calls: name -> what `in_one_call` made; the first is that which the others are
            held against.
        rows: M.
        inputs: K.
        rounds: of each, fewer if they take long; one more warms up.
        dtype: of x.
        lost: times as slow as the first, above which one is dropped after two rounds.

    Returns:
        name -> seconds of one product <float>[rounds], without those dropped.
    """
    random = np.random.default_rng(0)
    xs = [tf.constant(random.standard_normal([rows, inputs]), dtype)
          for _ in range(PRODUCTS)]
    first, *_ = names = list(calls)
    for name in names:
        calls[name](*xs)
    repeats = max(1, round(_CALL_S / _seconds(calls[first], xs, 2)))
    seconds: dict[str, list[float]] = {name: [] for name in names}
    start = time.perf_counter()
    for number in range(rounds):
        if number >= _LEAST_ROUNDS and time.perf_counter() - start > _TRIAL_S:
            break
        # What went before leaves its data in the caches, and its threads awake.
        for name in (names[i] for i in random.permutation(len(names))):
            seconds[name].append(_seconds(calls[name], xs, repeats) / PRODUCTS)
        if lost and number == 1:
            names = [name for name in names
                     if min(seconds[name]) <= lost * min(seconds[first])]
    return {name: np.array(seconds[name]) for name in names}


def speedup(reference: np.ndarray, seconds: np.ndarray) -> float:
    """Times as fast, of the rounds taken one by one: machines drift."""
    return float(np.median(reference / seconds))


def environment() -> dict[str, str | int]:
    """What a choice depends on, beside the kernel."""
    return {"cpu": cpu(), "cores": os.cpu_count() or 0, "tensorflow": tf.__version__,
            "intra_threads": tf.config.threading.get_intra_op_parallelism_threads(),
            "inter_threads": tf.config.threading.get_inter_op_parallelism_threads(),
            "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "")}


def _try(kernel, candidates, rows, dtype, frozen) -> Choice:
    """Times the candidates, and the best of them again."""
    # Variables, as a layer has them: of a constant the CSR matrix would be made once.
    dense = tf.Variable(tf.cast(kernel, dtype))
    products = {"dense": lambda x: tf.matmul(x, dense)}
    by_name = {f"{backend} {block}" if block else backend: (backend, block)
               for backend, block in candidates}
    for name, (backend, block) in by_name.items():
        stored = storage.store(kernel, backend, block)
        if backend == "csr" and frozen:
            products[name] = functools.partial(matmul, w=stored.constant())
        else:
            values = tf.Variable(tf.cast(stored.values, dtype))
            products[name] = _product(stored, values)
    calls = {name: in_one_call(product, len(kernel), dtype)
             for name, product in products.items()}
    tried = {name: float("inf") for name in by_name}
    for count in rows:
        seconds = seconds_in_turn(calls, count, len(kernel), _ROUNDS[0], dtype,
                                  _LOST)
        for name in by_name:
            tried[name] = min(tried[name], speedup(seconds["dense"], seconds[name])
                              if name in seconds else 0.0)
        milliseconds = _milliseconds(seconds)
    best = max(tried, key=tried.__getitem__)
    dense_left = Choice(backend="dense", tried=tried, milliseconds=milliseconds)
    if tried[best] < MARGIN:
        return dense_left
    pair = {name: calls[name] for name in ("dense", best)}
    again = []
    for count in rows:
        seconds = seconds_in_turn(pair, count, len(kernel), _ROUNDS[1], dtype)
        again.append(speedup(seconds["dense"], seconds[best]))
    if min(again) < MARGIN:
        return dense_left
    backend, block = by_name[best]
    return Choice(backend=backend, block=block, speedup=min(again), tried=tried,
                  milliseconds={**milliseconds, **_milliseconds(seconds)})


def _milliseconds(seconds: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {name: 1e3 * float(np.median(taken)) for name, taken in seconds.items()}


def _product(stored, values):
    return lambda x: matmul(x, dataclasses.replace(stored, values=values.read_value()))


def _seconds(call, xs, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        y = call(*xs)
    y.numpy()
    return (time.perf_counter() - start) / repeats


def _about(kernel, candidates, rows, dtype) -> dict:
    """What of a kernel the times depend on."""
    fields = {"shape": list(kernel.shape), "rows": rows, "dtype": dtype,
              # To a hundredth: layers pruned alike share a choice.
              "zeros": round(float(np.mean(kernel == 0)), 2),
              "candidates": [list(candidate) for candidate in candidates]}
    for _, block in candidates:
        if block:
            counts = storage.kept_blocks(kernel, block).sum(axis=0)
            fields["blocks"] = int(counts.sum())
            fields["block_counts"] = len(set(counts.tolist()))
    return fields


def _read(path: Path, here: Mapping) -> dict[str, Choice]:
    """The choices in a file that were made in this environment."""
    if not path.is_file():
        return {}
    try:
        fields = read_json(path)
        if fields["environment"] != here:
            return {}
        return {key: Choice(**value) for key, value in fields["choices"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        logging.warning("%s holds no choices, and is written anew", path)
        return {}


def _default_path(here: Mapping) -> Path:
    digest = hashlib.sha256(to_json(here, sort_keys=True).encode()).hexdigest()
    return Path.home() / ".cache" / "tfopt" / f"sparse_{digest[:16]}.json"
