"""AdamW against the algorithm in NumPy, and the learning rate by table."""

from __future__ import annotations

import numpy as np
import pytest

from tfopt.backend import keras, tf
from tfopt.train import AdamW, WarmupLinearDecay
from tfopt.train.distribute import strategy

STEPS = 5
RATE, DECAY = 1e-2, 0.1


def reference(w, gradients, decay, rate=RATE, beta_1=0.9, beta_2=0.999, epsilon=1e-8):
    """Algorithm 2 of Loshchilov & Hutter 2019 in float64.

    Epsilon is added to the root of the second moment before its bias is corrected, as
    in Kingma & Ba 2015, end of section 2.
    """
    w = np.array(w, np.float64)
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(np.asarray(gradients, np.float64), start=1):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g * g
        correction = np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        w = w - rate * (correction * m / (np.sqrt(v) + epsilon) + decay * w)
    return w


@pytest.fixture
def start() -> np.ndarray:
    return np.random.default_rng(1).normal(size=[4, 3]).astype(np.float32)


@pytest.fixture
def gradients() -> np.ndarray:
    """One <float>[4, 3] a step, large and small ones."""
    random = np.random.default_rng(2)
    return (random.normal(size=[STEPS, 4, 3])
            * 10.0 ** random.integers(-2, 2, [STEPS, 4, 3])).astype(np.float32)


def train(optimizer, start, gradients, name="kernel") -> np.ndarray:
    variable = tf.Variable(start, name=name)
    optimizer.build([variable])
    for gradient in gradients:
        optimizer.apply_gradients([(gradient if isinstance(gradient, tf.IndexedSlices)
                                    else tf.constant(gradient), variable)])
    return variable.numpy()


@pytest.mark.parametrize("decay", [0.0, DECAY])
def test_updates_are_those_of_the_algorithm(start, gradients, decay):
    trained = train(AdamW(RATE, weight_decay=decay), start, gradients)
    np.testing.assert_allclose(trained, reference(start, gradients, decay), atol=1e-6)
    assert np.abs(trained - start).min() > 1e-4  # the reference is not the start


@pytest.mark.parametrize("options", [{"beta_1": 0.5}, {"beta_2": 0.9},
                                     {"epsilon": 0.1}])
def test_betas_and_epsilon_are_used(start, gradients, options):
    trained = train(AdamW(RATE, weight_decay=0.0, **options), start, gradients)
    expected = reference(start, gradients, 0.0, **options)
    np.testing.assert_allclose(trained, expected, atol=1e-6)
    assert np.abs(expected - reference(start, gradients, 0.0)).max() > 1e-3


@pytest.mark.parametrize("name,decay", [("kernel", DECAY), ("bias", 0.0)])
def test_excluded_variables_do_not_decay(start, gradients, name, decay):
    optimizer = AdamW(RATE, weight_decay=DECAY)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    np.testing.assert_allclose(train(optimizer, start, gradients, name),
                               reference(start, gradients, decay), atol=1e-6)


@pytest.fixture(params=["cpu", "accelerator"])
def device(request, monkeypatch):
    """Gradients are summed as on either; the arithmetic is the CPU's."""
    if request.param == "accelerator":
        gpu = tf.config.LogicalDevice("/device:GPU:0", "GPU")
        monkeypatch.setattr(tf.config, "list_logical_devices", lambda: [gpu])


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("shape", [[4], [4, 3], [4, 3, 2], [70, 3]])
def test_a_table_of_any_shape_may_be_summed_densely(shape):
    """Few rows of vectors are summed by a product, all else is scattered."""
    table = np.random.default_rng(5).normal(size=shape).astype(np.float32)
    trained = []
    for dense in (False, True):
        variable = tf.Variable(table)
        optimizer = AdamW(RATE, weight_decay=0.0, dense=dense)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.gather(variable, [[2, 0], [2, 3]]) ** 2)
        gradient = tape.gradient(loss, variable)
        assert isinstance(gradient, tf.IndexedSlices)
        optimizer.apply_gradients([(gradient, variable)])
        trained.append(variable.numpy())
    np.testing.assert_allclose(trained[1], trained[0], atol=1e-6)
    assert np.any(trained[0] != table)


@pytest.mark.usefixtures("device")
def test_gradient_of_some_rows_updates_as_a_dense_one(start):
    # Row 1 twice, as a token that occurs twice: its gradients add up.
    rows, values = [1, 3, 1], np.arange(1.0, 10.0, dtype=np.float32).reshape([3, 3])
    dense = np.zeros([4, 3])
    np.add.at(dense, rows, values)
    slices = tf.IndexedSlices(tf.constant(values), tf.constant(rows),
                              tf.constant([4, 3]))
    trained = train(AdamW(RATE, weight_decay=0.0), start, [slices] * STEPS)
    np.testing.assert_allclose(
        trained, reference(start, [dense] * STEPS, 0.0), atol=1e-6)
    np.testing.assert_array_equal(trained[[0, 2]], start[[0, 2]])


def test_embedding_is_trained(start):
    layer = keras.layers.Embedding(4, 3, weights=[start])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(tf.constant([[2, 2]])))
    optimizer = AdamW(RATE, weight_decay=0.0)
    optimizer.build(layer.trainable_variables)
    optimizer.minimize(loss, layer.trainable_variables, tape)
    expected = start.copy()
    expected[2] -= RATE  # the first step of Adam is the rate, against the sign
    np.testing.assert_allclose(layer.get_weights()[0], expected, atol=1e-6)


def test_global_clipnorm_scales_the_gradient(start, gradients):
    norms = np.sqrt((gradients.astype(np.float64) ** 2).sum(axis=(1, 2)))
    limit = float(np.median(norms))  # clips some steps and not others
    scale = np.minimum(1.0, limit / norms)[:, None, None]
    trained = train(AdamW(RATE, weight_decay=0.0, global_clipnorm=limit), start,
                    gradients)
    np.testing.assert_allclose(
        trained, reference(start, gradients * scale, 0.0), atol=1e-6)


@pytest.mark.usefixtures("device")
def test_the_norm_that_clips_is_of_a_tokens_summed_slices(start):
    # Two slices of 1 for one row: norm 2 as a sum, sqrt(2) as slices.
    def slices(size):
        return tf.IndexedSlices(tf.constant([[size, 0, 0]] * 2), tf.constant([1, 1]),
                                tf.constant([4, 3]))

    def dense(size):
        gradient = np.zeros([4, 3])
        gradient[1, 0] = size
        return gradient

    trained = train(AdamW(RATE, weight_decay=0.0, global_clipnorm=1.0), start,
                    [slices(0.1), slices(1.0)])
    np.testing.assert_allclose(
        trained, reference(start, [dense(0.2), dense(1.0)], 0.0), atol=1e-6)


def test_an_accelerator_is_asked_for_no_list_of_tokens(monkeypatch):
    def step(variable):
        slices = tf.IndexedSlices(tf.ones([2, 3]), tf.constant([1, 1]),
                                  tf.constant([4, 3]))
        optimizer.apply_gradients([(slices, variable)])

    operations = []
    for device_type in ("CPU", "TPU_SYSTEM", "GPU", "TPU"):
        device = tf.config.LogicalDevice("/device:0", device_type)
        monkeypatch.setattr(tf.config, "list_logical_devices", lambda d=device: [d])
        variable = tf.Variable(tf.zeros([4, 3]))
        optimizer = AdamW(RATE, global_clipnorm=1.0)
        optimizer.build([variable])
        graph = tf.function(step).get_concrete_function(variable).graph
        operations.append({operation.type for operation in graph.get_operations()})
    # Without a TPU, TensorFlow for TPUs lists a TPU_SYSTEM: no device to compute on.
    assert ["Unique" in found for found in operations] == [True, True, False, False]


def test_rate_follows_a_schedule(start, gradients):
    schedule = WarmupLinearDecay(RATE, 0, 1)  # the whole rate once, then none
    trained = train(AdamW(schedule, weight_decay=DECAY), start, gradients)
    np.testing.assert_allclose(
        trained, reference(start, gradients[:1], DECAY), atol=1e-6)


@pytest.mark.parametrize("rate", [3e-3, WarmupLinearDecay(3e-3, 2, 9)])
def test_config_makes_the_same_optimizer(start, gradients, rate):
    optimizer = AdamW(rate, weight_decay=0.2, beta_1=0.8, beta_2=0.99, epsilon=1e-6,
                      global_clipnorm=0.5)
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(copy, AdamW)
    assert copy.get_config() == optimizer.get_config()
    np.testing.assert_array_equal(train(copy, start, gradients),
                                  train(optimizer, start, gradients))


def test_two_devices_do_what_one_does(start, gradients):
    both = strategy.make("mirrored")
    with both.scope():
        variable = tf.Variable(start, name="kernel")
        optimizer = AdamW(RATE, weight_decay=DECAY)
        optimizer.build([variable])

    @tf.function
    def step(gradient):
        def on_one_device():
            # The two halves differ; added up over the devices they are the whole.
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            half = gradient * tf.where(index == 0, 0.25, 0.75)
            optimizer.apply_gradients([(half, variable)])

        both.run(on_one_device)

    for gradient in gradients:
        step(tf.constant(gradient))
    copies = both.experimental_local_results(variable)
    assert len(copies) == 2
    for copy in copies:
        np.testing.assert_allclose(
            copy.numpy(), reference(start, gradients, DECAY), atol=1e-6)
    assert optimizer.iterations.numpy() == STEPS


@pytest.mark.parametrize("warmup,total,rates", [
    (4, 10, [0.2, 0.4, 0.6, 0.8, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0.0, 0.0]),
    (0, 4, [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]),
    (1, 2, [0.5, 1.0, 0.0]),
])
def test_rate_rises_to_the_peak_and_falls_to_zero(warmup, total, rates):
    schedule = WarmupLinearDecay(3e-4, warmup, total)
    got = [float(schedule(step)) for step in range(len(rates))]
    np.testing.assert_allclose(got, 3e-4 * np.array(rates), rtol=1e-5, atol=1e-10)


def test_schedule_config_mirrors_its_arguments():
    config = {"peak": 1e-3, "warmup_steps": 2, "total_steps": 7}
    assert WarmupLinearDecay(**config).get_config() == config


@pytest.mark.parametrize("warmup,total", [(-1, 10), (10, 10), (11, 10), (0, 0)])
def test_steps_out_of_order_are_refused(warmup, total):
    with pytest.raises(ValueError, match=f"Received: warmup_steps={warmup}, "
                                         f"total_steps={total}$"):
        WarmupLinearDecay(1e-3, warmup, total)
