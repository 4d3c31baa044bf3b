"""The callbacks of pruning, in `model.fit` calls as users write them."""

from __future__ import annotations

import logging as std_logging

import numpy as np
import pytest

import tfopt
from tfopt.backend import keras, tf, tfmot
from tfopt.compress.passes.magnitude import Magnitude


def model() -> keras.Model:
    entry = keras.Input([4])
    x = keras.layers.Dense(8, "relu", name="hidden")(entry)
    return keras.Model(entry, keras.layers.Dense(2, name="head")(x))


def train(trained, *callbacks, epochs=3):
    trained.compile(keras.optimizers.Adam(0.05), "mse")
    trained.fit(np.eye(4), np.eye(4)[:, :2], epochs=epochs, verbose=0,
                callbacks=list(callbacks))


def kernels(trained) -> list[np.ndarray]:
    return [weight for weight in trained.get_weights() if weight.ndim == 2]


@pytest.fixture
def pruned():
    return Magnitude(final_sparsity=0.5, only=("hidden",)).prune_at_once(model())


def test_without_it_training_revives_pruned_weights(pruned):
    train(pruned)
    assert np.mean(kernels(pruned)[0] == 0) < 0.5


def test_keep_mask_revives_none(pruned):
    before = kernels(pruned)
    train(pruned, tfopt.callbacks.KeepMask())
    after = kernels(pruned)
    np.testing.assert_array_equal(after[0] == 0, before[0] == 0)
    assert np.abs(after[0] - before[0]).max() > 0.01
    assert np.any(after[1] != before[1])  # the head has no zeros, and trains on


def test_keep_mask_through_tfmots_quantization_aware_training(pruned):
    before = kernels(pruned)[0]
    aware = tfmot.quantization.keras.quantize_model(pruned)
    train(aware, tfopt.callbacks.KeepMask())
    after, = (v.numpy() for v in aware.trainable_variables if v.shape == (4, 8))
    np.testing.assert_array_equal(after == 0, before == 0)
    assert np.abs(after - before).max() > 0.01


def test_keep_mask_under_a_strategy_of_two():
    with tfopt.train.distribute.strategy.make("mirrored").scope():
        trained = model()
        kernel = trained.get_layer("hidden").kernel
        kernel.assign(kernel * np.tile([0.0, 1.0], [4, 4]))
        trained.compile(keras.optimizers.Adam(0.05), "mse")
    trained.fit(np.eye(4), np.eye(4)[:, :2], epochs=3, verbose=0,
                callbacks=[tfopt.callbacks.KeepMask()])
    np.testing.assert_array_equal(kernels(trained)[0] == 0,
                                  np.tile([True, False], [4, 4]))


def test_keep_mask_takes_fresh_zeros_for_fresh(pruned):
    head = pruned.get_layer("head")
    head.kernel.assign(tf.zeros_like(head.kernel))
    train(pruned, tfopt.callbacks.KeepMask())
    assert np.any(kernels(pruned)[1] != 0)


def test_keep_mask_of_a_dense_model_is_refused():
    with pytest.raises(ValueError, match="Received: 'model.*', all of whose"):
        train(model(), tfopt.callbacks.KeepMask())


def test_pruning_step_of_an_unwrapped_model_is_refused():
    pruning = Magnitude(final_sparsity=0.5, end_step=2)
    with pytest.raises(ValueError, match="`wrap`.*Received: layers"):
        train(model(), *pruning.callbacks())


@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_pruning_that_did_not_reach_its_end_is_not_stripped(allocation):
    pruning = Magnitude(final_sparsity=0.5, end_step=6, frequency=1,
                        allocation=allocation)
    wrapped = pruning.wrap(model())
    with pytest.raises(ValueError, match="`callbacks.. *.*Received: 0 zeros of 2.$"):
        pruning.strip(wrapped)
    train(wrapped)  # without its callbacks
    with pytest.raises(ValueError, match="Received: 0 zeros of 2. after 3 steps$"):
        pruning.strip(wrapped)
    train(wrapped, *pruning.callbacks())  # compiled anew: 3 steps of 6
    with pytest.raises(ValueError, match="6 steps or more. Received: 21 zeros of 2. "
                       "after 3 steps$"):
        pruning.strip(wrapped)
    stop = keras.callbacks.EarlyStopping("loss", patience=0, min_delta=9.0)
    train(wrapped, *pruning.callbacks(), stop)
    with pytest.raises(ValueError, match="to the end"):
        pruning.strip(wrapped)


def test_several_steps_in_one_call_miss_no_pruning():
    pruning = Magnitude(final_sparsity=0.5, end_step=5, frequency=5)
    wrapped = pruning.wrap(model())
    wrapped.compile(keras.optimizers.Adam(0.05), "mse", steps_per_execution=4)
    dataset = tf.data.Dataset.from_tensors((np.eye(4), np.eye(4)[:, :2])).repeat(8)
    wrapped.fit(dataset, verbose=0, callbacks=pruning.callbacks())
    assert [np.mean(k == 0) for k in kernels(pruning.strip(wrapped))] == [0.5, 0.5]


def test_sparsity_is_logged_for_each_layer_and_for_all(tmp_path, caplog):
    pruning = Magnitude(final_sparsity=0.5, end_step=2, frequency=1, leave=("head",))
    wrapped = pruning.wrap(model())
    with caplog.at_level(std_logging.INFO, logger="absl"):
        train(wrapped, *pruning.callbacks(), tfopt.callbacks.SparsityLog(tmp_path))
    last = [record.getMessage() for record in caplog.records
            if "Sparsity" in record.getMessage()][-1]
    assert last == "Sparsity after epoch 3: 0.3333 of all kernels; hidden 0.500"
    found = {}
    for file in tmp_path.glob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(
                    float(tf.make_ndarray(value.tensor)))
    # 0.5 (1 - (1 - 1/2)^3) of 32 is 14.
    assert found["sparsity/hidden"] == [14 / 32, 0.5, 0.5]
    assert found["sparsity/head"] == [0, 0, 0]
    assert found["sparsity"][-1] == pytest.approx(1 / 3)
