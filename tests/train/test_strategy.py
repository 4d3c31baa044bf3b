"""Strategies by name: what is chosen, what follows, and what is refused at once."""

from __future__ import annotations

import json
import logging as std_logging
import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tfopt
from tfopt import data, model
from tfopt.backend import tf
from tfopt.train import Settings, fit, precision
from tfopt.train.distribute import cluster, sharding, strategy, workers


def tf_config(task=("worker", 0), **jobs) -> str:
    return json.dumps({"cluster": jobs, "task": {"type": task[0], "index": task[1]}})


def test_nothing_is_read_where_nothing_is_set():
    assert cluster.read({}) is None
    assert cluster.read({"TF_CONFIG": " "}) is None
    assert cluster.read({"TF_CONFIG": "{}"}) is None


@pytest.mark.parametrize("task,chief", [
    (("worker", 0), True), (("worker", 1), False), (("ps", 0), False)])
def test_who_writes(task, chief):
    found = cluster.read({"TF_CONFIG": tf_config(
        task, worker=["a:1", "b:2"], ps=["c:3"])})
    assert found.is_chief is chief
    assert found.workers == 2
    assert found.address == {"worker": ["a:1", "b:2"], "ps": ["c:3"]}[task[0]][task[1]]
    assert len(found.others) == 2 and found.address not in found.others


def test_a_chief_writes_where_there_is_one():
    jobs = {"chief": ["a:1"], "worker": ["b:2"]}
    assert cluster.read({"TF_CONFIG": tf_config(("chief", 0), **jobs)}).is_chief
    assert not cluster.read({"TF_CONFIG": tf_config(**jobs)}).is_chief


@pytest.mark.parametrize("text,rule,received", [
    ("{cluster", "be a JSON object", "{cluster"),
    ("[1]", "be a JSON object", "[1]"),
    ('{"cluster": {}}', 'have "cluster"', '{"cluster": {}}'),
    ('{"cluster": {"worker": ["a"]}}', 'have "cluster"', '["a"]'),
    ('{"cluster": {"worker": "a:1"}}', 'have "cluster"', '"a:1"'),
    (tf_config(worker=["a:1", "a:1"]), "name each address once", "a:1"),
    ('{"cluster": {"worker": ["a:1"]}}', 'have "task"', "task=None"),
    (tf_config(("evaluator", 0), worker=["a:1"]), "one of ('worker',)", "evaluator"),
    (tf_config(("worker", 1), worker=["a:1"]), "of which there are 1", "1}"),
    (tf_config(("worker", "x"), worker=["a:1"]), "of which there are 1", "'x'}"),
    *((tf_config(("worker", index), worker=["a:1"]), "of which there are 1", "index")
      for index in (None, True, 0.0, [], {}, -1, "1" * 5000, "\u00b2")),
    (tf_config(("worker", float("inf")), worker=["a:1"]), "be a JSON object",
     "Infinity is no number"),
    *((tf_config((job, 0), worker=["a:1"]), "of a job of its cluster", "type")
      for job in (None, 3, [], ["worker"], {})),
    *((tf_config(worker=[address]), 'have "cluster"', "worker")
      for address in ("a:0", "a:65536", "a:" + "1" * 5000, "a:\u00b2", ":1", "a b:1",
                      "a:1\n", "[a:1", 3, None)),
    ('{"cluster": {"worker": ["a:1"]}, "rpc_layer": 3}', '"rpc_layer"', "3}"),
    ("[" * 100_000, "be a JSON object", "nested too deeply"),
])
def test_a_wrong_tf_config_is_refused_in_one_sentence(text, rule, received):
    with pytest.raises(ValueError) as error:
        cluster.read({"TF_CONFIG": text})
    said = str(error.value)
    assert said.startswith("TF_CONFIG must ") and rule in said
    assert received in said.partition("Received: ")[2]
    assert "\n" not in said


def test_a_task_may_be_counted_in_words():
    found = cluster.read({"TF_CONFIG": tf_config(("worker", "1"),
                                                 worker=["a:1", "[::1]:2"])})
    assert (found.index, found.address) == (1, "[::1]:2")


def test_a_name_that_cannot_be_looked_up_is_one_that_does_not_come():
    found = cluster.read({"TF_CONFIG": tf_config(
        worker=[f"localhost:{free_port()}", "a..b:1"])})
    with pytest.raises(ValueError, match="Received: nothing at a..b:1$"):
        cluster.meet(found, wait_s=0)


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as one:
        return one.getsockname()[1]


def test_a_worker_that_does_not_come_is_named_in_time():
    here, there = free_port(), free_port()
    found = cluster.read({"TF_CONFIG": tf_config(
        worker=[f"localhost:{here}", f"localhost:{there}"])})
    start = time.monotonic()
    with pytest.raises(ValueError, match=f"Received: nothing at localhost:{there}$"):
        cluster.meet(found, wait_s=0.5)
    assert time.monotonic() - start < 5


def test_workers_meet():
    here = free_port()
    with socket.create_server(("localhost", 0)) as other:
        found = cluster.read({"TF_CONFIG": tf_config(worker=[
            f"localhost:{here}", f"localhost:{other.getsockname()[1]}"])})
        cluster.meet(found, wait_s=5)
    with socket.create_server(("localhost", here)):  # it is free again
        pass


def test_a_port_that_is_taken_is_refused():
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        found = cluster.read({"TF_CONFIG": tf_config(worker=[f"localhost:{port}"])})
        with pytest.raises(ValueError, match=f"free. Received: localhost:{port}"):
            cluster.meet(found, wait_s=1)


def test_an_answer_that_does_not_come_is_not_waited_for():
    start = time.monotonic()
    with pytest.raises(ValueError, match="must answer. Received: no answer in 0.2 s$"):
        cluster.answer_of(lambda: time.sleep(3), 0.2, "It must answer.")
    assert time.monotonic() - start < 2
    assert cluster.answer_of(lambda: 7, 1, "") == 7


@pytest.mark.parametrize("options,rule", [
    ({"name": "tpu_pod"}, "A strategy must be one of .* Received: 'tpu_pod'$"),
    ({"name": "mirrored", "gpus": 2},
     "as many GPUs as are asked for. Received: gpus=2, 0 found$"),
    ({"name": "auto", "gpus": 1}, "Received: gpus=1, 0 found$"),
    ({"name": "multi_worker"}, "needs TF_CONFIG.* Received: no TF_CONFIG$"),
    ({"name": "parameter_server"}, "needs TF_CONFIG.* Received: no TF_CONFIG$"),
    ({"name": "tpu", "tpu": "local"}, "The TPU 'local' must answer.* Received: "),
    ({"name": "tpu", "tpu": "nobody", "wait_s": 2.0},
     "The TPU 'nobody' must answer.* Received: "),
    ({"name": "tpu", "tpu": "grpc://localhost:9", "wait_s": 0.5},
     "Received: nothing at grpc://localhost:9 in 0.5 s$"),
    ({"name": "auto", "tpu": "grpc://localhost:9", "wait_s": 0.4},
     "Received: nothing at grpc://localhost:9 in 0.4 s$"),
    ({"rate_rule": "cubic"}, "Received: rate_rule='cubic'$"),
])
def test_what_is_not_here_is_refused_in_one_sentence(options, rule, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    start = time.monotonic()
    with pytest.raises(ValueError, match=rule) as error:
        strategy.strategy(**options)
    assert "\n" not in str(error.value)
    assert time.monotonic() - start < 20


def test_a_cluster_without_servers_is_no_parameter_server(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config(worker=["localhost:1"]))
    with pytest.raises(ValueError, match=r"jobs 'chief', .* Received: \('worker',"):
        strategy.make("parameter_server")


def test_a_server_is_no_worker(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config(("ps", 0), ps=["localhost:1"]))
    with pytest.raises(ValueError, match="Received: 'ps'$"):
        strategy.make("multi_worker")


@pytest.mark.parametrize("environment,chosen", [
    ({}, "auto"),
    ({"TF_CONFIG": tf_config(worker=["a:1"])}, "auto"),
    ({"TF_CONFIG": tf_config(worker=["a:1", "b:1"])}, "multi_worker"),
    ({"TF_CONFIG": tf_config(("chief", 0), chief=["a:1"], worker=["b:1"], ps=["c:1"])},
     "parameter_server"),
    ({"TPU_NAME": "local"}, "tpu"),
    ({"COLAB_TPU_ADDR": "10.0.0.1:8470"}, "tpu"),
])
def test_auto_follows_the_environment(environment, chosen, monkeypatch):
    for name in ("TF_CONFIG", "TPU_NAME", "COLAB_TPU_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert strategy._choose("auto", None)[0] == chosen
    assert strategy._choose("one_device", None) == ("one_device", "asked for")


def test_one_line_says_what_was_chosen_and_why(caplog):
    strategy._say.cache_clear()
    with caplog.at_level(std_logging.INFO, logger="absl"):
        for _ in range(2):
            strategy.strategy("auto")
            strategy.strategy("mirrored")
    assert [record.getMessage() for record in caplog.records] == [
        "Strategy one_device, since neither TF_CONFIG nor a TPU is set, and there are "
        "not several GPUs; 1 replica; on this machine 1 CPU; best arithmetic: float32",
        "Strategy mirrored, since asked for; 2 replicas; on this machine 1 CPU; best "
        "arithmetic: float32"]


def test_the_facade_builds_in_its_scope():
    with tfopt.strategy("mirrored") as s:
        built = model.build(model.EncoderConfig.uniform(
            hidden_size=8, num_layers=1, num_heads=1, intermediate_size=8,
            vocab_size=30, max_positions=8), model.Head(outputs=3))
        # Asked for within another's scope, it is still itself.
        assert strategy.make("one_device").num_replicas_in_sync == 1
    assert built.distribute_strategy is s.strategy is strategy.make("mirrored")
    assert (s.name, s.replicas, s.is_chief) == ("mirrored", 2, True)
    assert tf.distribute.get_strategy() is not s.strategy


@pytest.mark.parametrize("per_replica,rule,batch,rate", [
    (False, "none", 8, 1e-3), (False, "linear", 8, 1e-3), (True, "none", 16, 1e-3),
    (True, "linear", 16, 2e-3), (True, "sqrt", 16, 1e-3 * math.sqrt(2))])
def test_batch_and_rate_follow_the_replicas(per_replica, rule, batch, rate):
    placed = strategy.strategy("mirrored", per_replica=per_replica, rate_rule=rule)
    assert placed.batch_size(8) == batch
    assert placed.learning_rate(1e-3) == pytest.approx(rate)


def test_a_batch_that_the_replicas_do_not_divide_is_refused(tiny_examples):
    placed = strategy.strategy("mirrored")
    with pytest.raises(ValueError, match="multiple of the 2 replicas. "
                                         "Received: batch_size=7$"):
        placed.batch_size(7)
    with placed:
        built = model.build(model.EncoderConfig.uniform(
            hidden_size=8, num_layers=1, num_heads=1, intermediate_size=8,
            vocab_size=103, max_positions=16), model.Head(outputs=3))
    with pytest.raises(ValueError, match="Received: batch_size=9$"):
        fit(built, data.Batches(*tiny_examples, batch_size=9))


@pytest.mark.parametrize("details,found", [
    ([], "float32"),
    ([{"compute_capability": (9, 0)}], "mixed_bfloat16"),
    ([{"compute_capability": (8, 0)}] * 2, "mixed_bfloat16"),
    ([{"compute_capability": (8, 0)}, {"compute_capability": (7, 5)}], "float32"),
    ([{}], "float32"),
])
def test_bfloat16_is_chosen_where_every_gpu_has_it(details, found, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices",
                        lambda kind=None: list(range(len(details))))
    monkeypatch.setattr(tf.config.experimental, "get_device_details",
                        lambda gpu: details[gpu])
    assert precision.best() == found


def test_nothing_is_left_open_on_this_machine(monkeypatch):
    settings = Settings().on_this_machine()
    assert (settings.jit_compile, settings.steps_per_execution,
            settings.mixed_precision) == (False, 1, "float32")
    monkeypatch.setattr("tfopt.train.settings.accelerated", lambda: True)
    monkeypatch.setattr(precision, "best", lambda: "mixed_bfloat16")
    settings = Settings().on_this_machine()
    assert (settings.jit_compile, settings.steps_per_execution,
            settings.mixed_precision) == (True, 50, "mixed_bfloat16")
    asked = Settings(jit_compile=False, steps_per_execution=3,
                     mixed_precision="float32")
    assert asked.on_this_machine() == asked


def numbers(size):
    """Batches of 0, 1, 2...: inputs, labels ten times as large."""
    values = tf.data.Dataset.range(7).batch(size)
    return values.map(lambda x: ({"x": x}, 10 * x))


@pytest.mark.parametrize("mean,weights", [(True, [4 / 3] * 3 + [0]),
                                          (False, [1, 1, 1, 0])])
def test_a_smaller_batch_is_filled_with_rows_that_weigh_nothing(mean, weights):
    one = tf.distribute.get_strategy()
    first, last = sharding.of(numbers(4), 4, one, mean).as_numpy_iterator()
    np.testing.assert_array_equal(first[2], [1, 1, 1, 1])
    inputs, labels, given = last
    np.testing.assert_array_equal(inputs["x"], [4, 5, 6, 4])
    np.testing.assert_array_equal(labels, [40, 50, 60, 40])
    np.testing.assert_allclose(given, weights, rtol=1e-6)


def test_whole_batches_have_no_weights():
    whole = tf.data.Dataset.range(8).batch(4, drop_remainder=True)
    found = sharding.of(whole.map(lambda x: (x, x)), 4, tf.distribute.get_strategy())
    assert [spec.shape for spec in found.element_spec] == [[4], [4]]


def test_each_replica_has_its_rows_of_the_same_batch():
    both = strategy.make("mirrored")
    rows = [[element[0]["x"].numpy().tolist() for element in elements_of(both, batch)]
            for batch in sharding.of(numbers(4), 4, both)]
    assert rows == [[[0, 1], [2, 3]], [[4, 5], [6, 4]]]


def elements_of(both, batch):
    """The elements of the replicas, of a distributed one."""
    flat = [both.experimental_local_results(x) for x in tf.nest.flatten(batch)]
    return [tf.nest.pack_sequence_as(batch, [x[i] for x in flat]) for i in range(2)]


def test_texts_without_labels_are_told_so():
    only = tf.data.Dataset.range(4).batch(2).map(lambda x: ({"x": x},))
    inputs, labels, _ = next(iter(sharding.of(only, 2, tf.distribute.get_strategy())))
    np.testing.assert_array_equal(labels, [-1, -1])


SCRIPT = """
import sys
from tfopt.train.distribute import strategy, workers
try:
    placed = strategy.strategy("multi_worker", wait_s=60)
    workers.check_same(placed.strategy, sys.argv[1], "All must do the same.")
except ValueError as error:
    print(error, flush=True)
"""


@pytest.mark.parametrize("texts,said", [
    (("same", "same"), ("", "")),
    (("one", "other"), (
        "All must do the same. Received: here one; of 2 replicas 1 have another",
        "All must do the same. Received: here other; of 2 replicas 1 have another")),
])
def test_workers_that_differ_say_so_and_do_not_hang(texts, said):
    ports = [free_port(), free_port()]
    home = Path(tfopt.__file__).parents[1]
    processes = [subprocess.Popen(
        [sys.executable, "-c", SCRIPT, text], stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL, env={
            **os.environ, "PYTHONPATH": str(home), "TF_CONFIG": tf_config(
                ("worker", i), worker=[f"localhost:{port}" for port in ports])})
        for i, text in enumerate(texts)]
    try:
        assert tuple(one.communicate(timeout=120)[0].strip()
                     for one in processes) == said
    finally:
        for one in processes:
            one.kill()


def test_one_process_agrees_with_itself():
    one = tf.distribute.get_strategy()
    workers.check_same(one, "anything", "")
    workers.wait(one)
    assert workers.count(one) == 1 and workers.is_chief(one)


def test_fit_refuses_parameter_servers_before_any_work(tiny_model, monkeypatch):
    servers = object.__new__(tf.distribute.ParameterServerStrategy)
    monkeypatch.setattr(type(tiny_model), "distribute_strategy", servers)
    with pytest.raises(ValueError, match="use the strategy 'multi_worker'. Received: "):
        fit(tiny_model, None)
