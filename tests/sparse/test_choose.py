"""The choice of a form by timing: what is tried, what wins, what is remembered."""

from __future__ import annotations

import importlib
import json
import time

import numpy as np
import pytest

from tfopt.backend import keras, tf
from tfopt.sparse import Choice, SparseDense, choose

choosing = importlib.import_module("tfopt.sparse.choose")


@pytest.fixture
def timed(monkeypatch):
    """Seconds by name in place of the clock; each trial's names and rows."""
    trials = []

    def give(**seconds):
        def seconds_in_turn(products, rows, inputs, rounds, dtype="float32", lost=None):
            trials.append((list(products), rows, dtype))
            times = {name: seconds[name.split()[0]] for name in products}
            return {name: np.full(rounds, own[rows] if isinstance(own, dict) else own)
                    for name, own in times.items()}

        monkeypatch.setattr(choosing, "seconds_in_turn", seconds_in_turn)
        return trials

    return give


def test_the_fastest_by_a_margin_is_chosen_and_remembered(kernel, timed, tmp_path):
    path = tmp_path / "sub" / "choices.json"
    trials = timed(dense=1.0, block=0.5, block_unrolled=0.4, csr=0.8)
    found = choose(kernel, cache_file=path)
    assert found == Choice(backend="block_unrolled", block=16, speedup=2.5, tried={
        "block_unrolled 16": 2.5, "block 16": 2.0, "csr": 1.25}, milliseconds={
        "dense": 1000, "block_unrolled 16": 400, "block 16": 500, "csr": 800})
    assert trials == [(["dense", "block_unrolled 16", "block 16", "csr"], 128,
                       "float32"), (["dense", "block_unrolled 16"], 128, "float32")]
    assert choose(kernel * 2, cache_file=path) == found  # of the same zeros
    assert len(trials) == 2
    timed(dense=1.0, block=2.0, block_unrolled=2.0, csr=0.8)
    assert choose(kernel, cache_file=path, rows=64).backend == "csr"
    assert choose(kernel, cache_file=path, dtype="bfloat16").backend == "dense"
    assert trials[-1][0] == ["dense", "block_unrolled 16", "block 16"]  # no csr
    assert choose(kernel, cache_file=path) == found
    fields = json.loads(path.read_text())
    assert fields["environment"] == choosing.environment()
    assert len(fields["choices"]) == 3


def test_dense_stays_unless_it_is_beaten_by_the_margin_twice(kernel, timed, tmp_path,
                                                            monkeypatch):
    trials = timed(dense=1.0, block=0.95, block_unrolled=0.92, csr=3.0)
    found = choose(kernel, cache_file=tmp_path / "a.json")
    assert (found.backend, found.block, found.speedup) == ("dense", None, 1.0)
    assert len(trials) == 1 and found.tried["csr"] == pytest.approx(1 / 3)
    timed(dense=1.0, block=0.5, block_unrolled=0.6, csr=3.0)
    first = choosing.seconds_in_turn

    def luck(products, *arguments):
        seconds = first(products, *arguments)
        return seconds if len(products) > 2 else {name: np.ones(3) for name in seconds}

    monkeypatch.setattr(choosing, "seconds_in_turn", luck)
    found = choose(kernel, cache_file=tmp_path / "b.json")
    assert found.backend == "dense" and found.tried["block 16"] == 2.0


def test_of_several_numbers_of_rows_the_least_speedup_counts(kernel, timed, tmp_path):
    trials = timed(dense=1.0, block={1: 0.1, 128: 0.8}, csr={1: 0.2, 128: 1.5},
                   block_unrolled={1: 0.5, 128: 0.5})
    found = choose(kernel, rows=[128, 1, 1], cache_file=tmp_path / "a.json")
    assert (found.backend, found.speedup) == ("block_unrolled", 2.0)
    assert [rows for _, rows, _ in trials] == [1, 128, 1, 128]


def test_strips_are_tried_where_columns_hold_much(timed, tmp_path):
    trials = timed(dense=1.0, block_unrolled=0.7, block_strips=0.5, block=0.8, csr=2.0)
    kernel = np.random.default_rng(0).standard_normal([768, 64]).astype(np.float32)
    kernel[:384] = 0
    found = choose(kernel, block=64, cache_file=tmp_path / "a.json")
    assert (found.backend, found.block, found.speedup) == ("block_strips", 64, 2.0)
    kernel[:640] = 0  # of two blocks a column there would be one strip
    choose(kernel, block=64, cache_file=tmp_path / "a.json")
    assert "block_strips 64" not in trials[-2][0]


def test_a_frozen_matrix_is_timed_as_such(kernel, monkeypatch, tmp_path):
    made = []

    def seconds_in_turn(calls, *_, **__):
        graph = calls["csr"].graph.as_graph_def() if "csr" in calls else None
        if graph is not None:
            made.append("SparseTensorToCSRSparseMatrix" in {node.op for node
                                                            in graph.node})
        return {name: np.full(3, 2.0 if name == "dense" else 1.0) for name in calls}

    monkeypatch.setattr(choosing, "seconds_in_turn", seconds_in_turn)
    for frozen in (False, True, True):
        choose(kernel, frozen=frozen, cache_file=tmp_path / "a.json")
    assert made == [True, False]  # and remembered apart


def test_few_zeros_are_not_timed(kernel, timed, tmp_path):
    trials = timed()
    full = np.where(kernel == 0, 1, kernel)
    assert choose(full, cache_file=tmp_path / "a.json") == Choice(backend="dense")
    assert not trials and not list(tmp_path.iterdir())


@pytest.mark.parametrize("contents", [
    "", "[]", '{"environment": {}, "choices": {}}',
    '{"environment": null, "choices": {"a": {"backend": "csr"}}}'])
def test_files_of_others_are_written_anew(kernel, timed, tmp_path, contents):
    path = tmp_path / "a.json"
    path.write_text(contents)
    trials = timed(dense=1.0, block=0.5, block_unrolled=0.6, csr=1.0)
    assert choose(kernel, cache_file=path).backend == "block"
    assert choose(kernel, cache_file=path).backend == "block" and len(trials) == 2


def test_the_file_is_in_the_home_directory(kernel, timed, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    timed(dense=1.0, block=0.5, block_unrolled=0.6, csr=1.0)
    choose(kernel)
    file, = (tmp_path / ".cache" / "tfopt").iterdir()
    assert file.name.startswith("sparse_") and file.suffix == ".json"


def test_products_take_turns_and_slow_ones_are_dropped():
    taken = []

    def product(name, seconds):
        def work():
            taken.append(name)
            time.sleep(seconds)

        def multiply(x):
            tf.py_function(work, [], [])
            return 2 * x

        return choosing.in_one_call(multiply, 8)

    seconds = choosing.seconds_in_turn(
        {"dense": product("dense", 0.001), "same": product("same", 0.001),
         "slow": product("slow", 0.05)}, 4, 8, 6, lost=5.0)
    assert set(seconds) == {"dense", "same"}
    assert all(len(own) == 6 and (own > 0).all() for own in seconds.values())
    # A call warms up, and two rounds are timed, of all products each.
    assert 3 * choosing.PRODUCTS == taken.count("slow") < taken.count("dense")
    assert np.median(seconds["dense"]) > 0.001
    assert choosing.speedup(np.array([2.0, 4, 6]), np.array([1.0, 1, 2])) == 3


def test_auto_builds_what_was_chosen(kernel, x, timed, tmp_path):
    layer = keras.layers.Dense(96, name="pruned")
    layer.build([None, 64])
    layer.kernel.assign(kernel)
    timed(dense=1.0, block=0.5, block_unrolled=0.6, csr=1.0)
    found = SparseDense.from_dense(layer, cache_file=tmp_path / "a.json")
    assert (found.backend, found.block) == ("block", 16)
    timed(dense=1.0, block=2.0, block_unrolled=2.0, csr=2.0)
    found = SparseDense.from_dense(layer, cache_file=tmp_path / "b.json", rows=7)
    assert (found.backend, found.block) == ("dense", None)
    np.testing.assert_allclose(found(x), layer(x), rtol=1e-5, atol=1e-5)


def test_by_the_clock_many_zeros_are_worth_leaving_out(tmp_path):
    # The one trial by the clock: 16 times fewer operations, and memory, are no luck.
    random = np.random.default_rng(0)
    kernel = random.standard_normal([1024, 2048]).astype(np.float32)
    kept = random.permutation(512).reshape(16, 32) < 16
    found = choose(kernel * kept.repeat(64, 0).repeat(64, 1),
                   cache_file=tmp_path / "a.json")
    assert found.backend != "dense" and found.speedup > 1.5
