"""Magnitude pruning: which weights go, when, in which layers; and by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import tfopt
from tfopt import model as models
from tfopt.backend import keras, tf
from tfopt.compress import Context
from tfopt.compress.passes.magnitude import Magnitude
from tfopt.measure import cost
from tfopt.train import Settings


class Points:
    """Random points of 2 classes, the same batch over and over."""

    batch_size = 4

    def __init__(self, steps_per_epoch=4, shape=(4,)):
        self.steps_per_epoch = steps_per_epoch
        random = np.random.default_rng(0)
        self.x = random.normal(size=[4, *shape]).astype(np.float32)
        self.y = np.array([0, 1, 0, 1])

    def dataset(self, epochs=1, first_step=0):
        steps = self.steps_per_epoch * epochs - first_step
        return tf.data.Dataset.from_tensors((self.x, self.y)).repeat(steps)


def dense(kernel) -> keras.Model:
    """One Dense layer of this kernel <float>[4, units]."""
    layer = keras.layers.Dense(np.shape(kernel)[1], name="only")
    made = keras.Sequential([keras.Input([4]), layer])
    layer.kernel.assign(kernel)
    return made


def convolutional() -> keras.Model:
    """Conv, BatchNorm and Dense: functional, and no BERT."""
    inputs = keras.Input([6, 6, 2])
    x = keras.layers.Conv2D(5, 3, name="conv", kernel_initializer="random_normal")(
        inputs)
    x = keras.layers.Flatten()(keras.layers.BatchNormalization(name="norm")(x))
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(x))


def prune(model, pruning, steps=None, callbacks=()) -> keras.Model:
    """Wraps, takes `steps` steps at rate 0 (weights move by pruning alone), strips."""
    wrapped = pruning.wrap(model)
    wrapped.compile(keras.optimizers.SGD(0.0), "mse")
    x = np.ones([1, *model.input_shape[1:]])
    y = np.zeros([1, *model.output_shape[1:]])
    wrapped.fit(x, y, epochs=steps or pruning.end_step, verbose=0,
                callbacks=[*pruning.callbacks(), *callbacks])
    return pruning.strip(wrapped)


KERNEL = np.array([[0.1, -0.9, 0.3],
                   [-0.4, 0.05, -0.6],
                   [0.7, -0.2, 0.8],
                   [0.25, 0.5, -0.01]], np.float32)


@pytest.mark.parametrize("sparsity,survivors", [
    (0.5, [-0.9, -0.4, -0.6, 0.7, 0.8, 0.5]),
    (0.25, [-0.9, 0.3, -0.4, -0.6, 0.7, -0.2, 0.8, 0.25, 0.5]),
    (0.75, [-0.9, 0.7, 0.8]),
    (0.9, [-0.9]),
])
def test_weights_of_largest_magnitude_survive(sparsity, survivors):
    pruning = Magnitude(final_sparsity=sparsity, end_step=1, frequency=1)
    kernel = prune(dense(KERNEL), pruning).get_layer("only").get_weights()[0]
    np.testing.assert_array_equal(kernel[kernel != 0], np.float32(survivors))
    np.testing.assert_array_equal(kernel, np.where(np.isin(KERNEL, kernel), KERNEL, 0))


class CountZeros(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.zeros = []

    def on_train_batch_end(self, batch, logs=None):
        self.zeros.append(int(np.sum(self.model.layers[-1].mask.numpy() == 0)))


@pytest.mark.parametrize("options,zeros", [
    # Of 16 weights 8 (1 - (1 - t/4)^3): 4.6, 7, 7.9, 8.
    ({"end_step": 4}, [5, 7, 8, 8, 8, 8]),
    ({"end_step": 4, "power": 1.0}, [2, 4, 6, 8, 8, 8]),
    ({"end_step": 4, "initial_sparsity": 0.25, "power": 1.0}, [5, 6, 7, 8, 8, 8]),
    ({"end_step": 4, "initial_sparsity": 0.5}, [8, 8, 8, 8, 8, 8]),
    ({"begin_step": 2, "end_step": 4, "power": 1.0}, [0, 0, 4, 8, 8, 8]),
    ({"end_step": 4, "frequency": 2, "power": 1.0}, [0, 4, 4, 8, 8, 8]),
    # The end is no multiple of the frequency, and reached all the same.
    ({"end_step": 5, "frequency": 4, "power": 1.0}, [0, 0, 0, 6, 8, 8]),
    ({"begin_step": 3, "end_step": 3}, [0, 0, 8, 8, 8, 8]),
    ({"schedule": "one_shot", "begin_step": 2, "end_step": 5}, [0, 8, 8, 8, 8, 8]),
    # Of 16 weights 8 are left after 4 halvings of the rest: 16 * 2^(-t/4).
    ({"schedule": "exponential", "end_step": 4}, [3, 5, 6, 8, 8, 8]),
    ({"schedule": "constant", "begin_step": 1, "end_step": 4}, [8, 8, 8, 8, 8, 8]),
])
def test_sparsity_rises_along_the_ramp(options, zeros):
    count = CountZeros()
    kernel = np.linspace(1, 2, 16).reshape([4, 4])
    pruning = Magnitude(**{"final_sparsity": 0.5, "frequency": 1, **options})
    prune(dense(kernel), pruning, steps=6, callbacks=[count])
    assert count.zeros == zeros


@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.99])
def test_claimed_nonzeros_are_those_left_in_kernels_of_odd_size(sparsity):
    """Half of 15 weights is not half of 16, and at least one is left."""
    before = keras.Sequential([keras.Input([3])] + [
        keras.layers.Dense(units, kernel_initializer="random_normal",
                           bias_initializer="ones") for units in (1, 3, 5)])
    pruning = Magnitude(final_sparsity=sparsity, end_step=1, frequency=1)
    outcome = pruning.outcome(before, prune(before, pruning))
    assert outcome.figures["nonzeros"] == cost.of_model(outcome.model)["nonzeros"]


@pytest.fixture(scope="module")
def pruned_bert(tiny_examples):
    """A small BERT before and after: (model, outcome)."""
    before = models.build(models.EncoderConfig.uniform(
        hidden_size=8, num_layers=2, num_heads=2, intermediate_size=12, vocab_size=103,
        max_positions=64), models.Head(outputs=3))
    train = tfopt.data.Batches(*tiny_examples, batch_size=16, shuffle_seed=0)
    return before, Magnitude(final_sparsity=0.75).apply(
        before, Context(train=train, settings=Settings(epochs=2)))


def test_every_encoder_kernel_of_a_bert_has_the_sparsity(pruned_bert):
    _, outcome = pruned_bert
    roles = ("query", "key", "value", "attention_output", "intermediate", "ffn_output")
    assert outcome.touched == tuple(
        f"layer_{i}_{role}" for i in range(2) for role in roles)
    for name in outcome.touched:
        kernel, bias = outcome.model.get_layer(name).get_weights()
        assert np.mean(kernel == 0) == 0.75
        assert np.any(bias != 0)


@pytest.mark.parametrize("name", [
    "token_embedding", "segment_embedding", "position_embedding", "pooler",
    "classifier", "embedding_norm"])
def test_embeddings_head_and_norms_of_a_bert_are_left_dense(pruned_bert, name):
    _, outcome = pruned_bert
    assert np.all(outcome.model.get_layer(name).get_weights()[0] != 0)
    assert outcome.skipped[name]


def test_pruned_model_has_the_layers_of_the_original(pruned_bert):
    before, outcome = pruned_bert
    assert ([(layer.name, type(layer)) for layer in outcome.model.layers]
            == [(layer.name, type(layer)) for layer in before.layers])
    assert models.config_of(outcome.model) == models.config_of(before)


def test_of_another_model_every_dense_and_conv_is_pruned():
    before = convolutional()
    pruning = Magnitude(final_sparsity=0.5, end_step=2, frequency=1)
    outcome = pruning.outcome(before, prune(before, pruning))
    assert outcome.touched == ("conv", "head")
    assert set(outcome.skipped) == {"norm"}
    for name, size in (("conv", 3 * 3 * 2 * 5), ("head", 4 * 4 * 5 * 2)):
        kernel, _ = outcome.model.get_layer(name).get_weights()
        assert (kernel.size, np.sum(kernel == 0)) == (size, size // 2)


@pytest.mark.parametrize("sequential", [True, False])
def test_in_a_script_of_ones_own(sequential):
    """The three calls round `model.fit`; the model given stays as it was."""
    points = Points(20)
    layers = [keras.layers.Dense(8, "relu", name="hidden"),
              keras.layers.Dense(2, name="head")]
    inputs = keras.Input([4])
    model = (keras.Sequential([inputs, *layers]) if sequential
             else keras.Model(inputs, layers[1](layers[0](inputs))))
    before = model.get_weights()

    pruning = tfopt.Magnitude(final_sparsity=0.5, end_step=20, frequency=5)
    wrapped = pruning.wrap(model)
    wrapped.compile(keras.optimizers.Adam(0.05), keras.losses
                    .SparseCategoricalCrossentropy(from_logits=True))
    history = wrapped.fit(points.dataset(4), epochs=4, steps_per_epoch=20, verbose=0,
                          validation_data=(points.x, points.y),
                          callbacks=pruning.callbacks())
    small = pruning.strip(wrapped)

    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert type(small) is type(model)
    assert [layer.name for layer in small.layers] == [
        layer.name for layer in model.layers]
    for layer in small.layers[-2:]:
        assert np.mean(layer.get_weights()[0] == 0) == 0.5
    assert history.history["loss"][-1] < 0.5 * history.history["loss"][0]
    # What was judged is what is left, not a kernel that has just been updated.
    small.compile(loss=wrapped.loss)
    assert history.history["val_loss"][-1] == pytest.approx(
        small.evaluate(points.x, points.y, verbose=0), rel=1e-5)
    np.testing.assert_array_equal(small(points.x),
                                  wrapped(points.x, training=False))


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_mixed_precision_masks_and_keeps_weights_in_float32(precision):
    """As bfloat16 these weights are all 1: none would be pruned, and all rounded."""
    kernel = np.linspace(1.0, 1.003, 16, dtype=np.float32).reshape([4, 4])
    before = keras.Sequential([keras.Input([4]), keras.layers.Dense(4, name="hidden"),
                               keras.layers.Dense(2)])
    before.layers[0].kernel.assign(kernel)
    outcome = Magnitude(final_sparsity=0.5, end_step=2, frequency=1).apply(
        before, Context(train=Points(), settings=Settings(
            epochs=1, learning_rate=1e-12, mixed_precision=precision)))
    np.testing.assert_array_equal(outcome.model.get_layer("hidden").get_weights()[0],
                                  np.where(kernel > np.median(kernel), kernel, 0))
    assert outcome.model.get_layer("hidden").compute_dtype == "float32"


@pytest.mark.parametrize("begin_step,frequency", [(0, 20), (0, 1), (0, 3), (7, 20)])
def test_ramp_left_open_is_finished_within_any_run(begin_step, frequency):
    pruning = Magnitude(final_sparsity=0.8, begin_step=begin_step, frequency=frequency)
    for total in range(begin_step + 1, 201):
        chosen = pruning.resolve(Context(train=Points(total),
                                         settings=Settings(epochs=1)))
        assert chosen.begin_step == begin_step
        # The rest is for recovery.
        assert chosen.first_valid_step() == max(round(total / 2), begin_step)
        assert chosen.frequency <= frequency


def test_fractions_of_the_run_become_steps():
    pruning = Magnitude(final_sparsity=0.8, begin_fraction=0.1, end_fraction=0.75)
    chosen = pruning.resolve(Context(train=Points(50), settings=Settings(epochs=4)))
    assert (chosen.begin_step, chosen.end_step) == (20, 150)
    # A step that is given counts before the fraction.
    fixed = dataclasses.replace(pruning, begin_step=3, end_step=9)
    chosen = fixed.resolve(Context(train=Points(50), settings=Settings(epochs=4)))
    assert (chosen.begin_step, chosen.end_step) == (3, 9)


@pytest.mark.parametrize("begin_step", [6, 20])
def test_run_that_ends_before_pruning_begins_is_refused(begin_step):
    pruning = Magnitude(final_sparsity=0.5, begin_step=begin_step)
    with pytest.raises(ValueError, match=f"Received: begin_step={begin_step}, "):
        pruning.resolve(Context(train=Points(5), settings=Settings(epochs=1)))


def test_end_beyond_the_run_is_refused():
    context = Context(train=Points(5), settings=Settings(epochs=2))
    last = Magnitude(final_sparsity=0.5, end_step=10, frequency=1)
    assert last.resolve(context) == dataclasses.replace(last, begin_step=0)
    with pytest.raises(ValueError, match="run's 10 steps. Received: begin_step=0, "
                                         "end_step=11$"):
        dataclasses.replace(last, end_step=11).resolve(context)


@pytest.mark.parametrize("name,value", [
    ("final_sparsity", 0.0), ("final_sparsity", 1.0), ("final_sparsity", -0.5),
    ("final_sparsity", 50), ("final_sparsity", float("nan")),
    ("initial_sparsity", -0.1), ("initial_sparsity", 0.6),
    ("begin_step", -1), ("end_step", -1), ("frequency", 0),
    ("power", 0.0), ("power", -1.0),
    ("begin_fraction", -0.1), ("end_fraction", 1.5), ("end_fraction", -0.1),
    ("pooling", "sum"), ("allocation", "fair"), ("sparsities", {"head": 1.0}),
])
def test_values_out_of_range_are_refused(name, value):
    good = {"final_sparsity": 0.5, "end_step": 10, "frequency": 5}
    with pytest.raises(ValueError) as error:
        Magnitude(**{**good, name: value})
    assert str(error.value).startswith(f"`{name}` must be ")
    assert str(error.value).endswith(f"Received: {name}={value!r}")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = keras.layers.Dense(2)

    def call(self, x):
        return self.head(x)


def activation_only() -> keras.Model:
    return keras.Sequential([keras.Input([4]), keras.layers.ReLU()])


@pytest.mark.parametrize("options,build,message", [
    ({}, activation_only, "must have a Dense or Conv layer"),
    ({}, Subclassed, "must be functional or Sequential"),
    ({}, lambda: keras.Sequential([keras.layers.Dense(2)]), "and built"),
    ({"end_step": None}, lambda: dense(KERNEL), "`end_step` must be given"),
])
def test_models_that_cannot_be_wrapped_are_refused(options, build, message):
    pruning = Magnitude(**{"final_sparsity": 0.5, "end_step": 20, **options})
    with pytest.raises(ValueError, match=f"{message}.* Received: "):
        pruning.wrap(build())


def test_only_a_wrapped_model_can_be_stripped():
    pruning = Magnitude(final_sparsity=0.5, end_step=20)
    with pytest.raises(ValueError, match=r"`wrap`.* Received: layers \['only'\]$"):
        pruning.strip(dense(KERNEL))


def test_a_wrapped_model_is_not_wrapped_again(tiny_model):
    pruning = Magnitude.example()
    with pytest.raises(ValueError, match="must be stripped.*Received: "):
        pruning.wrap(pruning.wrap(tiny_model))
