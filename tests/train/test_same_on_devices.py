"""The same training on one device, on two, in two processes, and compiled by XLA."""

from __future__ import annotations

import functools
from pathlib import Path

import local_workers
import numpy as np
import pytest
import same_run

from tfopt.train.distribute import strategy

STEPS = 24  # four epochs of six


@functools.cache
def on_one_device(kind):
    return same_run.run(kind, strategy.make("one_device"), dev=True)


@pytest.mark.parametrize("kind", same_run.KINDS)
def test_two_devices_train_to_the_same_weights(kind):
    both = strategy.make("mirrored")
    assert both.num_replicas_in_sync == 2
    weights, history, losses = same_run.run(kind, both, dev=True)
    expected, their_history, _ = on_one_device(kind)
    np.testing.assert_allclose(weights, expected, atol=1e-5, rtol=0)
    assert len(losses) == STEPS
    for ours, theirs in zip(history, their_history, strict=True):
        assert ours["val_accuracy"] == pytest.approx(theirs["val_accuracy"])
        # Rounded to integers, a last bit may become a step of the grid.
        assert ours["val_loss"] == pytest.approx(
            theirs["val_loss"], rel=2e-4 if kind == "quantization" else 1e-4)


def test_two_devices_train_to_them_by_several_steps_a_call():
    weights, history, losses = same_run.run(
        "plain", strategy.make("mirrored"), dev=True, steps_per_execution=4)
    expected, their_history, _ = on_one_device("plain")
    np.testing.assert_allclose(weights, expected, atol=1e-5, rtol=0)
    assert len(losses) == STEPS / 3  # calls of 4 and 2 steps
    for ours, theirs in zip(history, their_history, strict=True):
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=1e-4)


def test_training_moves_weights_far_beyond_that_tolerance():
    start = same_run.make("plain")[0].get_weights()
    moved = on_one_device("plain")[0] - np.concatenate([w.ravel() for w in start])
    assert np.abs(moved).max() > 3e-4


@pytest.mark.parametrize("kind", same_run.KINDS)
def test_xla_computes_the_same_losses(kind):
    losses = [same_run.run(kind, strategy.make("one_device"), examples=48,
                           jit_compile=jit_compile)[2] for jit_compile in (False, True)]
    assert len(losses[0]) == STEPS
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-3, rtol=0)
    assert np.any(losses[1] != losses[0])  # it was another program


def test_xla_takes_a_last_smaller_batch_as_any_other():
    weights = [same_run.run("plain", strategy.make("one_device"),
                            jit_compile=jit_compile)[0]
               for jit_compile in (False, True)]
    np.testing.assert_allclose(weights[1], weights[0], atol=1e-5, rtol=0)


# How far weights are from those of one process. Rounding makes of the last bit of a sum
# a step of the grid, and the trained weight is on the grid.
BY_TWO_PROCESSES = {"plain": 1e-5, "magnitude": 1e-5, "structured": 1e-5,
                    "quantized": 1e-5}


@functools.cache
def by_one_process(kind) -> np.ndarray:
    if kind in same_run.RECIPES:
        return same_run.run_recipe(kind, strategy.make("one_device"))
    return on_one_device(kind)[0]


def check_left(place: Path, kind: str) -> None:
    """Checks what two workers left of a kind: the weights of one process."""
    for index in range(2):
        with np.load(place / f"{index}" / f"{kind}.npz") as found:
            np.testing.assert_allclose(found["weights"], by_one_process(kind), rtol=0,
                                       atol=BY_TWO_PROCESSES[kind])
            assert (bool(found["chief"]), bool(found["helper"])) == (
                index == 0, index == 1)


@pytest.fixture(scope="module")
def by_two_processes(tmp_path_factory):
    """What two workers left, who trained one kind after another."""
    place = tmp_path_factory.mktemp("two_processes")
    ports = local_workers.free_ports(2)
    local_workers.end_of([local_workers.start(
        ports, i, same_run.__file__, ",".join(BY_TWO_PROCESSES), place / str(i),
        place / "state") for i in range(2)])
    return place


@pytest.mark.parametrize("kind", BY_TWO_PROCESSES)
def test_two_processes_train_to_the_same_weights(kind, by_two_processes):
    check_left(by_two_processes, kind)
    state, = (file.parent for file in
              (by_two_processes / "state" / kind).rglob("checkpoint"))
    left = sorted(p.name.split(".")[0].split("-")[0] for p in state.iterdir())
    chosen = ["kept"] * (kind == "structured")
    assert left == ["best", "checkpoint", "ckpt", "ckpt", *chosen]


def test_two_processes_have_the_figures_of_one(by_two_processes):
    _, history, _ = on_one_device("plain")
    for index in range(2):
        with np.load(by_two_processes / f"{index}" / "plain.npz") as found:
            np.testing.assert_allclose(
                found["val_loss"], [e["val_loss"] for e in history], rtol=1e-4)
            np.testing.assert_allclose(
                found["val_accuracy"], [e["val_accuracy"] for e in history], rtol=1e-6)


@pytest.mark.parametrize("kind, victim", [("magnitude", 0), *(
    pytest.param(kind, victim, marks=pytest.mark.slow)
    for kind in BY_TWO_PROCESSES for victim in (0, 1)
    if (kind, victim) != ("magnitude", 0))])
def test_a_worker_that_is_killed_and_started_again_goes_on(kind, victim, tmp_path):
    """The other one waits for it; nothing is lost, and the weights are the same."""
    ports = local_workers.free_ports(2)

    def start(index, *kill_at):
        return local_workers.start(
            ports, index, same_run.__file__, kind, tmp_path / f"{index}",
            tmp_path / "state", *kill_at)

    workers = [start(i, *["9"] * (i == victim)) for i in range(2)]
    try:
        workers[victim].communicate(timeout=300)
        assert workers[victim].returncode == -9
    finally:
        workers[victim].kill()
    workers[victim] = start(victim)
    said = local_workers.end_of(workers)
    assert "A worker is lost" in said[1 - victim]
    assert all("Resumed at step" in one for one in said)
    check_left(tmp_path, kind)
