"""Several steps a call: the same run as one by one, and nothing late."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tfopt import data, model
from tfopt.backend import keras, tf
from tfopt.compress.passes.magnitude import Magnitude
from tfopt.compress.passes.quantization_aware import QuantizationAware
from tfopt.compress.pruning.callbacks import KeepMask
from tfopt.compress.pruning.schedules import Schedule
from tfopt.train import Distillation, Settings, callbacks, fit, loop
from tfopt.train.steps_per_execution import StepsPerExecution

CONFIG = model.EncoderConfig.uniform(
    hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32, vocab_size=103,
    max_positions=64, initializer_range=0.2)
HEAD = model.Head(outputs=3)


class Calls(keras.callbacks.Callback):
    """Notes the step behind each call, and the loss there."""

    def __init__(self):
        super().__init__()
        self.steps, self.losses = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(callbacks.steps_done(self.model))
        self.losses.append(logs["loss"])


class EachStep(Calls):
    """Has every call be of one step, in the same program as calls of several."""

    def next_step(self, done):
        return done + 1


def weights(trained) -> np.ndarray:
    return np.concatenate([w.ravel() for w in trained.get_weights()])


@pytest.mark.parametrize("begin,end,frequency,kind", [
    (0, 10, 4, "polynomial"), (3, 3, 1, "polynomial"), (2, 30, 7, "constant"),
    (5, 20, 3, "one_shot")])
def test_next_due_names_each_step_that_is_due(begin, end, frequency, kind):
    schedule = Schedule(kind=kind, final_sparsity=0.5, begin_step=begin, end_step=end,
                        frequency=frequency)
    step, found = -1, []
    while (step := schedule.next_due(step)) is not None:
        found.append(step)
    assert found == [step for step in range(50) if schedule.due(step)]


def pruning():
    passed = Magnitude(final_sparsity=0.6, begin_step=2, end_step=9, frequency=3)
    return passed, {}


def quantization():
    return QuantizationAware(scheme="static_wi8_ai8", begin_step=3, freeze_step=10), {}


def distillation():
    teacher = model.build(CONFIG, HEAD, seed=5)
    return None, {"goal": Distillation().goal(teacher)}


def plain():
    return None, {}


@pytest.mark.parametrize("make,calls", [
    (plain, [4, 6, 10, 12]),
    (distillation, [4, 6, 10, 12]),
    (pruning, [2, 5, 6, 8, 9, 12]),
    (quantization, [3, 6, 10, 12]),
])
def test_a_run_is_the_same_as_step_by_step(make, calls, tiny_batches):
    """Six steps an epoch, up to four a call; the dropout's masks are the same."""
    found = []
    for steps, count in ((1, Calls()), (4, EachStep()), (4, Calls())):
        passed, options = make()
        trained = model.build(CONFIG, HEAD, seed=1)
        if passed is not None:
            trained = passed.wrap(trained)
            options["callbacks"] = passed.callbacks()
        history = fit(trained, tiny_batches, tiny_batches, Settings(
            epochs=2, learning_rate=1e-2, steps_per_execution=steps), **{
                **options, "callbacks": [*options.get("callbacks", []), count]})
        found.append((weights(trained), history, count))
    (by_keras, *_), (one, history, each), (several, their_history, count) = found
    assert each.steps == list(range(1, 13)) and count.steps == calls
    np.testing.assert_allclose(several, one, atol=1e-6)
    # Keras' function for one step rounds in another way, and Adam moves by it what has
    # no gradient but rounding, such as keys' biases.
    np.testing.assert_allclose(one, by_keras, atol=1e-3)
    assert len(set(each.losses)) == 12  # it did train
    for ours, theirs in zip(history, their_history, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-5)
    assert count.losses == pytest.approx(
        [each.losses[step - 1] for step in count.steps], rel=1e-5)


def test_zeros_are_kept_within_a_call(tiny_batches):
    """Else one that moved in a call's first step would have a say in its second."""
    trained = []
    for calls in (EachStep(), Calls()):
        trained.append(Magnitude(final_sparsity=0.5).prune_at_once(
            model.build(CONFIG, HEAD, seed=1)))
        before = weights(trained[-1])
        fit(trained[-1], tiny_batches, settings=Settings(
            epochs=1, learning_rate=1e-2, steps_per_execution=6),
            callbacks=[KeepMask(), calls])
        assert len(calls.steps) == (6 if isinstance(calls, EachStep) else 1)
        for name in Magnitude(final_sparsity=0.5).targets(trained[-1]):
            kernel = trained[-1].get_layer(name).kernel.numpy()
            assert np.mean(kernel == 0) == 0.5
        assert np.abs(weights(trained[-1]) - before).max() > 1e-3
    one, several = map(weights, trained)
    np.testing.assert_allclose(several, one, atol=1e-6)


def test_a_run_killed_between_two_calls_goes_on_to_the_same_weights(
        tiny_batches, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SaveRunState",
                        functools.partial(callbacks.SaveRunState, every_s=0))
    settings = Settings(epochs=3, learning_rate=1e-2, steps_per_execution=4)

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if callbacks.steps_done(self.model) == 16:  # of steps 4, 6, 10, 12, 16, 18
                raise KeyboardInterrupt

    unbroken, killed, resumed = (model.build(CONFIG, HEAD, seed=1) for _ in range(3))
    fit(unbroken, tiny_batches, tiny_batches, settings)
    with pytest.raises(KeyboardInterrupt):
        fit(killed, tiny_batches, tiny_batches, settings, state_dir=tmp_path,
            callbacks=[Kill()])
    count = Calls()
    fit(resumed, tiny_batches, tiny_batches, settings, state_dir=tmp_path,
        callbacks=[count])
    assert count.steps == [16, 18]  # saved at step 12, with that epoch's figures
    np.testing.assert_allclose(weights(resumed), weights(unbroken), atol=1e-6)


def test_a_loss_that_is_no_number_names_the_steps_of_its_call(tiny_batches):
    with pytest.raises(FloatingPointError, match="at step 1 to 4; lower the learning"):
        fit(model.build(CONFIG, HEAD), tiny_batches, settings=Settings(
            learning_rate=1e38, warmup=0.0, steps_per_execution=4))


def test_the_log_has_an_entry_at_the_first_call_behind_each_beat(
        tiny_examples, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "TrainingLog",
                        functools.partial(callbacks.TrainingLog, every=3))
    batches = data.Batches(*tiny_examples, batch_size=4, shuffle_seed=0)
    fit(model.build(CONFIG, HEAD), batches, log_dir=tmp_path,
        settings=Settings(epochs=1, steps_per_execution=4))
    steps = [event.step for file in tmp_path.glob("events.*")
             for event in tf.compat.v1.train.summary_iterator(str(file))
             for value in event.summary.value if value.tag == "train/loss"]
    assert sorted(steps) == [4, 8, 12]


class Asks:
    def __init__(self, *steps):
        self.steps = steps

    def next_step(self, done):
        return min((step for step in self.steps if step > done), default=None)


@pytest.mark.parametrize("steps,calls", [
    ((), [5, 10, 12]), ((7,), [5, 7, 12]), ((1, 2, 11), [1, 2, 7, 11, 12]),
    ((20,), [5, 10, 12])])
def test_calls_end_where_a_callback_asks(steps, calls):
    class Model:
        steps_per_execution, done = 5, 0

    fake, found = Model(), []
    executions = StepsPerExecution(5, [Asks(*steps), object()])
    executions.set_model(fake)
    executions.set_params({"steps": 12})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tfopt.train.steps_per_execution.steps_done", lambda m: m.done)
        executions.on_epoch_begin(0)
        while fake.done < 12:
            fake.done += fake.steps_per_execution
            found.append(fake.done)
            executions.on_train_batch_end(fake.done - 1)
    assert found == calls
    assert fake.steps_per_execution == 5  # for the evaluation
