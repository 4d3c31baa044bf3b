"""What every task must keep, whichever it is; a new task is tested by being there."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from tfopt import data, tasks
from tfopt.backend import tf
from tfopt.train import objective
from tfopt.types import is_labelled

TASKS = tasks.all_tasks()
CORPUS = data.Corpus(path="train.tsv", texts=["a", "b", "c", "d"], pairs=None,
                     labels=["1", "2", "0", "2"], lines=[2, 3, 4, 5])


@pytest.fixture(params=sorted(TASKS))
def task(request) -> tasks.Task:
    return TASKS[request.param].from_corpus(CORPUS)


@pytest.fixture
def targets(task) -> tf.Tensor:
    """Those of the corpus, <int32>[4] or <float32>[4]."""
    values = np.asarray(task.targets(CORPUS))
    return tf.constant(values, tf.int32 if values.dtype.kind == "i" else tf.float32)


@pytest.fixture
def outputs(task) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).normal(size=[4, task.outputs]),
                       tf.float32)


def best_outputs(task, targets) -> np.ndarray:
    """Outputs that are right, by way of gradient descent on the task's own loss."""
    found = tf.Variable(tf.zeros([len(targets), task.outputs]))
    for _ in range(200):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(task.objective().hard_loss(found, targets))
        found.assign_sub(0.4 * tape.gradient(loss, found))
    return found.numpy()


def test_json_gives_it_back(task):
    fields = json.loads(json.dumps(task.to_fields()))
    assert fields["task"] == task.name() == type(task).__module__.rpartition(".")[2]
    assert tasks.from_fields(fields) == task


def test_other_names_and_fields_are_refused(task):
    with pytest.raises(ValueError, match=r"one of .*Received: task='sorting'"):
        tasks.from_fields({"task": "sorting"})
    for wrong in ({"colour": 1}, {"labels": "abc"}, {"labels": [1, 2]}):
        with pytest.raises(ValueError, match="Received: "):
            tasks.from_fields({**task.to_fields(), **wrong})


def test_its_metrics_hold_the_monitor(task):
    name, better = task.monitor
    assert {metric.name: metric.better for metric in task.metrics}[name] == better
    assert better in ("higher", "lower")


def test_the_head_gives_its_outputs(task):
    assert task.head().outputs == task.outputs
    task.check_head(task.head())


def test_the_objective_is_the_mean_of_the_losses_of_examples(task, outputs, targets):
    plain = task.objective()
    assert isinstance(plain, objective.Objective) and plain.monitor == task.monitor
    each = plain.hard_loss(outputs, targets)
    assert each.shape == [4]
    np.testing.assert_allclose(plain.loss()(targets, outputs), np.mean(each), rtol=1e-5)
    np.testing.assert_allclose(task.example_loss(outputs, targets), each, rtol=1e-5)


def test_the_monitor_is_among_the_metrics_of_training(task, outputs, targets):
    metrics = {metric.name: metric for metric in task.objective().metrics()}
    metric = metrics[task.monitor[0]]
    metric.update_state(targets, outputs)
    assert float(metric.result()) == pytest.approx(
        task.value(task.quality(outputs.numpy(), targets.numpy())), rel=1e-5)


def test_a_missing_target_has_no_hard_loss_and_the_models_guess(task, outputs, targets):
    missing = tf.fill([4], tf.cast(task.no_target, targets.dtype))
    assert not is_labelled(missing).numpy().any()
    assert is_labelled(targets).numpy().all()
    np.testing.assert_array_equal(task.objective().hard_loss(outputs, missing), 0.0)
    assert task.guess(outputs).shape == [4]
    assert np.all(np.isfinite(task.example_loss(outputs, missing)))


def test_gradients_of_single_examples_tell_something_with_and_without_a_target(
        task, outputs, targets):
    for own in (targets, tf.fill([4], tf.cast(task.no_target, targets.dtype))):
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            loss = tf.reduce_sum(task.example_loss(outputs, own))
        assert np.all(np.abs(tape.gradient(loss, outputs)).sum(axis=1) > 1e-4)


def test_a_student_equal_to_its_teacher_has_no_soft_loss(task, outputs):
    soft = task.objective().soft_loss
    np.testing.assert_allclose(soft(outputs, outputs, 2.0), np.zeros(4), atol=1e-6)
    # Turned round, the outputs are others, whatever is added to all of a row.
    assert np.all(soft(outputs, -3.0 * outputs, 2.0).numpy() > 1e-3)


def test_right_answers_are_better_than_others(task, outputs, targets):
    right = task.quality(best_outputs(task, targets), targets.numpy())
    other = task.quality(outputs.numpy(), targets.numpy())
    assert set(right) == {metric.name for metric in task.metrics}
    assert {type(value) for value in right.values()} == {float}
    assert task.better(task.value(right), task.value(other))
    assert not task.better(task.value(other), task.value(right))
    assert task.drop(task.value(right), task.value(other)) > 0
    assert task.drop(task.value(other), task.value(right)) < 0


def test_other_numbers_of_targets_and_none_are_refused(task, outputs, targets):
    for count in (3, 0):
        with pytest.raises(ValueError, match=f"Received: {count} outputs, 4 targets"):
            task.quality(outputs.numpy()[:count], targets.numpy())
    with pytest.raises(ValueError, match="Received: 0 outputs, 0 targets"):
        task.quality(outputs.numpy()[:0], targets.numpy()[:0])


def test_answers_are_json(task, outputs):
    answers = json.loads(json.dumps(task.decode(outputs.numpy())))
    assert len(answers) == 4 and all("score" in answer for answer in answers)
    assert answers[0] != answers[1]


def test_no_task_imports_tensorflow():
    code = ("import sys; from tfopt import tasks; tasks.all_tasks(); "
            "sys.exit('tensorflow' in sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True)
