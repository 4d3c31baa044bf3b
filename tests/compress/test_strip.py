"""`strip` holds a model against what its pass was to do, however it was trained."""

from __future__ import annotations

import numpy as np
import pytest

import tfopt
from tfopt.backend import keras, tf
from tfopt.compress.base import Pass
from tfopt.compress.registry import all_passes

TRAINING = sorted(name for name, kind in all_passes().items()
                  if kind.apply is Pass.apply)
PRUNING = [name for name in TRAINING if name != "quantization_aware"]
STEPS = 4  # of an epoch
STATIC = ("static_wi8_ai8", "integer_wi8_ai8")

x = np.random.default_rng(0).normal(size=[16, 16]).astype(np.float32)
y = np.arange(16) % 3
BATCHES = tf.data.Dataset.from_tensor_slices((x, y)).batch(16 // STEPS)
loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def model() -> keras.Model:
    return keras.Sequential([
        keras.Input([16]), keras.layers.Dense(32, "relu", name="first"),
        keras.layers.Dense(3, name="last")])


def own_loop(wrapped: keras.Model, steps: int) -> None:
    """Trains as a script does that knows no callbacks."""
    optimizer = keras.optimizers.legacy.SGD(0.1)
    for inputs, targets in BATCHES.repeat().take(steps):
        with tf.GradientTape() as tape:
            loss = loss_of(targets, wrapped(inputs, training=True))
        variables = wrapped.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables,
                                      strict=True))


def fitted(step: Pass, epochs: int, callbacks=(), **options) -> keras.Model:
    wrapped = step.wrap(model())
    wrapped.compile(keras.optimizers.SGD(0.1), loss_of)
    wrapped.fit(BATCHES, epochs=epochs, verbose=0, callbacks=list(callbacks), **options)
    return wrapped


def refused(step: Pass, wrapped: keras.Model) -> str:
    with pytest.raises(ValueError) as caught:
        step.strip(wrapped)
    return str(caught.value)


def pruning(name: str, **fields) -> Pass:
    return all_passes()[name](**{"final_sparsity": 0.5, "begin_step": 1,
                                 "end_step": 3 * STEPS, "frequency": 1, **fields})


WAYS = [{}, {"allocation": "global"}, {"allocation": "erdos_renyi_kernel"},
        {"pattern": "2:4", "leave": ("last",)},
        {"pattern": "4x4", "leave": ("last",)}, {"pattern": "rows"},
        {"schedule": "one_shot", "begin_step": 2 * STEPS}, {"schedule": "exponential"},
        {"schedule": "constant", "begin_step": 2 * STEPS},
        {"initial_sparsity": 0.2}, {"sparsities": {"first": 0.75}}]


@pytest.mark.parametrize("name", PRUNING)
def test_pruning_that_was_never_told_to_prune(name):
    step = pruning(name)
    wrapped = step.wrap(model())
    assert "Received: 0 zeros of 304" in refused(step, wrapped)
    own_loop(wrapped, 6 * STEPS)
    assert "Received: 0 zeros of 304" in refused(step, wrapped)
    told = refused(step, fitted(step, epochs=4))
    assert "12 steps or more" in told
    assert told.endswith("Received: 0 zeros of 304 after 16 steps")


@pytest.mark.parametrize("fields", WAYS, ids=str)
def test_a_ramp_that_did_not_come_to_its_end(fields):
    fields = {**fields, "final_sparsity": None if fields.get("pattern") == "2:4"
              else 0.5}
    step = pruning("magnitude", **fields)
    # As early stopping leaves it, within the ramp.
    halfway = fitted(step, 9, [*step.callbacks(), Stop()])
    told = refused(step, halfway)
    assert told.endswith("after 4 steps") and f"{step.first_valid_step()} steps" in told
    step.strip(fitted(step, 4, step.callbacks()))


class Stop(keras.callbacks.Callback):
    """Ends training with the first epoch."""

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


@pytest.mark.parametrize("name", ["movement", "taylor", "fisher"])
def test_scores_that_are_gathered_come_to_the_end(name):
    step = pruning(name)
    small = step.strip(fitted(step, 3, step.callbacks()))
    kernel = small.get_layer("first").kernel.numpy()
    assert np.mean(kernel == 0) == 0.5
    told = refused(step, fitted(step, 2, step.callbacks()))
    assert told.endswith("after 8 steps")


@pytest.mark.parametrize("scheme", STATIC)
def test_ranges_that_were_not_seen(scheme):
    step = tfopt.QuantizationAware(scheme=scheme, begin_step=STEPS)
    wrapped = step.wrap(model())
    assert "Received: ranges that saw no batch, in layer" in refused(step, wrapped)
    own_loop(wrapped, 6)
    assert "Received: ranges that never rounded, in layer" in refused(step, wrapped)
    told = refused(step, fitted(step, epochs=1, callbacks=step.callbacks()))
    assert "more than begin_step=4 steps" in told
    assert "ranges that never rounded after 4 steps" in told
    assert refused(step, fitted(step, epochs=2)).count("after 8 steps") == 1
    step.strip(fitted(step, epochs=2, callbacks=step.callbacks()))


def test_zeros_that_training_with_quantization_lost():
    before = tfopt.compress_model(model(), 0.5)
    step = tfopt.QuantizationAware()
    for callbacks, kept in ((step.callbacks(), True), ((), False)):
        wrapped = step.wrap(before)
        wrapped.compile(keras.optimizers.SGD(0.1), loss_of)
        wrapped.fit(BATCHES, verbose=0, callbacks=list(callbacks))
        if kept:
            assert np.mean(step.strip(wrapped).get_layer("first").kernel == 0) >= 0.5
        else:
            told = refused(step, wrapped)
            assert "zeros of 256 after 4 steps, in layer 'first'" in told
