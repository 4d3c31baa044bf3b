"""The callbacks one by one, driven by hand and in a user's own `model.fit`."""

from __future__ import annotations

import math
import types

import numpy as np
import pytest

from tfopt.backend import keras, tf
from tfopt.train import callbacks, run_state
from tfopt.train.callbacks import KeepBest, SaveRunState, StopOnNonFinite, TrainingLog


class FakeModel:
    """As much of a model as the callbacks look at; its one weight is the step."""

    def __init__(self):
        self.optimizer = types.SimpleNamespace(iterations=tf.Variable(0))
        self.distribute_strategy = tf.distribute.get_strategy()
        self.stop_training = False

    @property
    def step(self):
        return int(self.optimizer.iterations.numpy())

    @step.setter
    def step(self, value):
        self.optimizer.iterations.assign(value)

    def get_weights(self):
        return [np.array(self.step)]

    def set_weights(self, weights):
        self.step = weights[0]


@pytest.fixture
def fake() -> FakeModel:
    return FakeModel()


def keep_best(fake, values, steps_per_epoch=10, metric="val_accuracy", **options):
    """Runs epochs of these values on dev; returns (epochs run, the run's state)."""
    state = run_state.RunState(fake)
    callback = KeepBest(state, **options)
    callback.set_model(fake)
    for epoch, value in enumerate(values):
        fake.step = (epoch + 1) * steps_per_epoch
        callback.on_epoch_end(epoch, {metric: value})
        if fake.stop_training:
            break
    return epoch + 1, state


@pytest.mark.parametrize("accuracies,best", [
    ([0.5, 0.9, 0.7], 1),
    ([0.1, 0.2, 0.3], 2),
    ([0.9, 0.9, 0.8], 0),  # of equals the first
    ([0.0, 0.0, 0.0], 0),
])
def test_best_epoch_is_kept(fake, accuracies, best):
    epochs, state = keep_best(fake, accuracies)
    assert (epochs, state.best_epoch) == (3, best)
    assert state.best_value == accuracies[best]
    state.load_best()
    assert fake.step == (best + 1) * 10


@pytest.mark.parametrize("monitor,values,best,epochs", [
    (("rmse", "lower"), [0.9, 0.5, 0.7], 1, 3),
    (("rmse", "lower"), [3.0, 2.0, 1.0], 2, 3),
    (("rmse", "lower"), [0.5, 0.5, 0.6, 0.1], 0, 3),  # of equals the first; stalled
    (("spearman", "higher"), [-0.5, -0.6, -0.2], 2, 3),
])
def test_the_monitor_says_which_epoch_is_better(fake, monitor, values, best, epochs):
    ran, state = keep_best(fake, values, metric=f"val_{monitor[0]}", monitor=monitor,
                           patience=2)
    assert (ran, state.best_epoch, state.best_value) == (epochs, best, values[best])


def test_the_value_of_another_metric_does_not_count(fake):
    _, state = keep_best(fake, [0.5], monitor=("rmse", "lower"))
    assert (state.best_epoch, state.best_value) == (-1, None)


@pytest.mark.parametrize("patience,accuracies,epochs", [
    (None, [0.5, 0.4, 0.3, 0.2], 4),
    (1, [0.5, 0.4, 0.9, 0.9], 2),
    (2, [0.5, 0.4, 0.3, 0.9], 3),
    (2, [0.5, 0.4, 0.6, 0.5, 0.5, 0.9], 5),  # a better one starts the count anew
    (1, [0.1, 0.2, 0.3, 0.4], 4),
])
def test_patience_ends_training(fake, patience, accuracies, epochs):
    assert keep_best(fake, accuracies, patience=patience)[0] == epochs


@pytest.mark.parametrize("first_valid_step,best", [(0, 0), (10, 0), (11, 1), (21, 2)])
def test_epochs_before_the_first_valid_step_do_not_count(fake, first_valid_step, best):
    epochs, state = keep_best(fake, [0.9, 0.8, 0.7], first_valid_step=first_valid_step)
    assert (epochs, state.best_epoch) == (3, best)


def test_patience_starts_at_the_first_valid_step(fake):
    epochs, _ = keep_best(fake, [0.9, 0.1, 0.2, 0.3, 0.2], first_valid_step=25,
                          patience=1)
    assert epochs == 5


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_no_number_is_never_the_best(fake, bad):
    """A NaN would stay so for good: nothing is above it."""
    _, state = keep_best(fake, [bad, 0.4, bad, 0.6])
    assert (state.best_epoch, state.best_value) == (3, 0.6)
    _, state = keep_best(fake, [bad, bad])
    assert state.best_epoch == -1


def test_the_saved_history_keeps_what_json_has_not(tmp_path):
    layers = [keras.Input([2]), keras.layers.Dense(1)]
    trained = keras.Sequential(layers)
    trained.compile("sgd", "mse")
    state = run_state.RunState(trained, tmp_path)
    state.history = [{"loss": 0.5, "val_loss": math.inf}]
    state.save()
    again = run_state.RunState(trained, tmp_path)
    assert again.restore()
    assert again.history == [{"loss": 0.5, "val_loss": math.inf}]


def test_without_dev_nothing_is_kept(fake):
    state = run_state.RunState(fake)
    callback = KeepBest(state, patience=1)
    callback.set_model(fake)
    for epoch in range(3):
        callback.on_epoch_end(epoch, {"loss": 1.0})
    assert (state.best_epoch, fake.stop_training) == (-1, False)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_names_its_step(fake, loss):
    callback = StopOnNonFinite()
    callback.set_model(fake)
    fake.step = 7
    callback.on_train_batch_end(6, {"loss": 1e30})
    with pytest.raises(FloatingPointError, match=f"at step 7;.*Received: loss={loss}$"):
        callback.on_train_batch_end(6, {"loss": loss})


class FakeState:
    def __init__(self):
        self.saved, self.history, self.finished = [], [], False

    def save(self):
        self.saved.append(len(self.history))


@pytest.fixture
def clock(monkeypatch):
    """Seconds, to be moved on by hand."""
    now = types.SimpleNamespace(time=100.0)
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now.time)
    return now


def test_the_state_is_saved_as_time_goes_by_and_at_the_epochs_end(fake, clock):
    state = FakeState()
    callback = SaveRunState(state, every_s=60)
    callback.set_model(fake)
    callback.set_params({"steps": 9})
    saves = []
    for batch in range(5):
        clock.time += 25
        callback.on_train_batch_end(batch)
        saves.append(len(state.saved))
    assert saves == [0, 0, 1, 1, 1]
    callback.on_epoch_end(0, {"loss": np.float32(0.5)})
    assert state.saved[1:] == [1]  # the epoch's figures are in
    assert state.history == [{"loss": 0.5}]
    clock.time += 59  # the clock starts anew with each save
    callback.on_train_batch_end(0)
    assert len(state.saved) == 2


def test_an_epochs_last_step_is_saved_with_its_evaluation_only(fake):
    """Else a run killed in between would go on without that epoch's figures."""
    state = FakeState()
    callback = SaveRunState(state, every_s=0)
    callback.set_model(fake)
    callback.set_params({"steps": 3})
    for batch in range(3):
        callback.on_train_batch_end(batch)
    assert state.saved == [0, 0]


@pytest.mark.parametrize("stop", [False, True])
def test_a_run_that_was_stopped_is_saved_as_finished(fake, stop):
    """Else, killed right then, it would train on when started again."""
    state = FakeState()
    callback = SaveRunState(state)
    callback.set_model(fake)
    fake.stop_training = stop
    callback.on_epoch_end(0, {})
    assert state.finished is stop


@pytest.fixture
def line() -> keras.Model:
    """One weight w, to be fitted so that w * 1 is 1."""
    inputs = keras.Input([1])
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False)(inputs))
    model.set_weights([np.zeros([1, 1])])
    return model


def entries(log_dir) -> dict[str, list[tuple[int, float]]]:
    """Tag -> [(step, value)] of the event files in a directory."""
    found: dict[str, list] = {}
    for file in sorted(log_dir.glob("events.*")):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                number = float(tf.make_ndarray(value.tensor))
                found.setdefault(value.tag, []).append((event.step, number))
    return found


def test_log_holds_the_figures_of_training(line, tmp_path):
    rate = keras.optimizers.schedules.PolynomialDecay(0.1, 4, 0.0)
    line.compile(keras.optimizers.SGD(rate), "mse")
    ones = np.ones([8, 1], np.float32)
    line.fit(ones, ones, batch_size=4, epochs=2, verbose=0,
             callbacks=[TrainingLog(tmp_path, batch_size=4, every=1)])
    found = entries(tmp_path)
    assert set(found) == {"train/loss", "train/learning_rate", "train/examples_per_s"}
    steps, losses = zip(*found["train/loss"], strict=True)
    assert steps == (1, 2, 3, 4)
    # w is 0, then 0.2, then 0.2 + 2 * 0.075 * 0.8 = 0.32: Keras logs an epoch's mean.
    np.testing.assert_allclose(
        losses, [1.0, (1 + 0.64) / 2, 0.68**2, (0.68**2 + 0.612**2) / 2], rtol=1e-5)
    rates = [value for _, value in found["train/learning_rate"]]
    np.testing.assert_allclose(rates, [0.1, 0.075, 0.05, 0.025], rtol=1e-6)
    # The first step of an epoch has nothing to be timed against.
    assert [step for step, _ in found["train/examples_per_s"]] == [2, 4]
    assert all(value > 0 for _, value in found["train/examples_per_s"])


def test_examples_per_s_counts_the_examples_between_two_entries(
        line, tmp_path, monkeypatch):
    seconds = iter(range(100))
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: next(seconds) * 0.5)
    line.compile("sgd", "mse")
    ones = np.ones([24, 1], np.float32)
    line.fit(ones, ones, batch_size=4, verbose=0,
             callbacks=[TrainingLog(tmp_path, batch_size=4, every=2)])
    found = entries(tmp_path)["train/examples_per_s"]
    assert found == [(4, 16.0), (6, 16.0)]  # 2 batches of 4 in half a second


def test_log_holds_the_dev_figures(line, tmp_path):
    line.compile("sgd", "mse", metrics=["mae"])
    ones = np.ones([4, 1], np.float32)
    history = line.fit(ones, ones, validation_data=(ones, 3 * ones), epochs=2,
                       verbose=0, callbacks=[TrainingLog(tmp_path, batch_size=4)])
    found = entries(tmp_path)
    assert set(found) == {"dev/loss", "dev/mae"}  # steps 1 and 2 are below `every`
    np.testing.assert_allclose(
        found["dev/mae"], list(zip([1, 2], history.history["val_mae"], strict=True)),
        rtol=1e-6)


def test_progress_line_names_step_and_speed(monkeypatch, caplog):
    clock = iter([0.0, 10.0, 40.0])
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: next(clock))
    line = callbacks.ProgressLine(batch_size=8, every_s=30.0)
    line.set_params({"steps": 10})
    line.on_epoch_begin(0)
    with caplog.at_level("INFO", logger="absl"):
        line.on_train_batch_end(0, {"loss": 0.9})  # too early for a line
        line.on_train_batch_end(3, {"loss": 0.5})
    assert [record.getMessage() for record in caplog.records] == [
        "Epoch 1: step 4 of 10, loss 0.5000, 1 examples/s, 60 s left of it"]
