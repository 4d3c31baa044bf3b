"""The same training on one device, on two, in two processes, and compiled by XLA."""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import same_run

import tfopt
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


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    try:
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def start_worker(ports, index: int, *arguments) -> subprocess.Popen:
    home = Path(tfopt.__file__).parents[1]
    environment = {**os.environ, "TF_CONFIG": json.dumps({
        "cluster": {"worker": [f"localhost:{port}" for port in ports]},
        "task": {"type": "worker", "index": index}}),
        "PYTHONPATH": f"{home}:{home / 'experiments'}", "CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.Popen([sys.executable, same_run.__file__, *map(str, arguments)],
                            env=environment, stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE, text=True)


def end_of(workers, timeout: float = 240.0) -> list[str]:
    """What workers said on stderr, once they ended; none is left behind."""
    try:
        return [worker.communicate(timeout=timeout)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()


# Of pruning, the run with a worker that is killed tells as much.
BY_TWO_PROCESSES = [kind for kind in same_run.KINDS if kind != "pruning"]


@pytest.fixture(scope="module")
def by_two_processes(tmp_path_factory):
    """What two workers left, who trained one kind after another."""
    place = tmp_path_factory.mktemp("two_processes")
    ports = free_ports(2)
    workers = [start_worker(ports, i, ",".join(BY_TWO_PROCESSES), place / str(i),
                            place / "state") for i in range(2)]
    said = end_of(workers)
    assert [worker.returncode for worker in workers] == [0, 0], said[0][-3000:]
    return place


@pytest.mark.parametrize("kind", BY_TWO_PROCESSES)
def test_two_processes_train_to_the_same_weights(kind, by_two_processes):
    expected, history, _ = on_one_device(kind)
    for index in range(2):
        with np.load(by_two_processes / f"{index}" / f"{kind}.npz") as found:
            np.testing.assert_allclose(found["weights"], expected, atol=1e-5, rtol=0)
            np.testing.assert_allclose(
                found["val_loss"], [e["val_loss"] for e in history], rtol=1e-4)
            np.testing.assert_allclose(
                found["val_accuracy"], [e["val_accuracy"] for e in history], rtol=1e-6)
            assert (bool(found["chief"]), bool(found["helper"])) == (
                index == 0, index == 1)
    assert sorted(p.name.split(".")[0].split("-")[0] for p in
                  (by_two_processes / "state" / kind).iterdir()) == [
                      "best", "checkpoint", "ckpt", "ckpt"]


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_worker_that_is_killed_and_started_again_goes_on(victim, tmp_path):
    """The other one waits for it; nothing is lost, and the weights are the same."""
    ports = free_ports(2)

    def start(index, *kill_at):
        return start_worker(ports, index, "pruning", tmp_path / f"{index}",
                            tmp_path / "state", *kill_at)

    workers = [start(i, *["9"] * (i == victim)) for i in range(2)]
    try:
        workers[victim].communicate(timeout=120)
        assert workers[victim].returncode == -9
    finally:
        workers[victim].kill()
    workers[victim] = start(victim)
    said = end_of(workers)
    assert [worker.returncode for worker in workers] == [0, 0], said[0][-3000:]
    assert "A worker is lost" in said[1 - victim]
    assert all("Resumed at step" in one for one in said)
    expected, history, _ = on_one_device("pruning")
    for index in range(2):
        with np.load(tmp_path / f"{index}" / "pruning.npz") as found:
            np.testing.assert_allclose(found["weights"], expected, atol=1e-5, rtol=0)
            np.testing.assert_allclose(
                found["val_loss"], [e["val_loss"] for e in history], rtol=1e-4)
