"""What a model of somebody's own is checked for, and models within it unfolded."""

from __future__ import annotations

import re

import keras as keras_3
import numpy as np
import pytest

import tfopt
from tfopt import checks, compress, functional, model
from tfopt.backend import keras, tf
from tfopt.train import Settings, fit
from tfopt.train.precision import retype

Dense = keras.layers.Dense
ONE_EPOCH = Settings(epochs=1)


def sequential(*layers, width: int = 8) -> keras.Sequential:
    return keras.Sequential([keras.Input([width]), *layers])


def batches(classes: int = 3, width: int = 8) -> tf.data.Dataset:
    x = np.random.default_rng(0).normal(size=[24, width]).astype(np.float32)
    return tf.data.Dataset.from_tensor_slices((x, np.arange(24) % classes)).batch(8)


def refused(call, *arguments, **named) -> str:
    with pytest.raises(ValueError) as caught:
        call(*arguments, **named)
    assert "Received: " in str(caught.value)
    return str(caught.value)


DOORS = {
    "compress_model": lambda given: tfopt.compress_model(given, 0.5),
    "compress_model, trained": lambda given: tfopt.compress_model(
        given, 0.5, train=batches(), settings=ONE_EPOCH),
    "quantize_model": tfopt.quantize_model,
    "quantize_model, trained": lambda given: tfopt.quantize_model(
        given, train=batches(), settings=ONE_EPOCH),
    "convert": tfopt.convert,
    "convert, float": lambda given: tfopt.convert(given, "float32"),
    "wrap": tfopt.Magnitude(final_sparsity=0.5, end_step=2).wrap,
    "wrap, quantized": tfopt.QuantizationAware().wrap,
    "fit": lambda given: fit(given, tfopt.api._batches(batches())),
    "teacher": tfopt.Distillation().goal,
    "saved model": lambda given: tfopt.export.saved_model.write(given, "/nowhere"),
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_says_what_it_cannot_read(door):
    def told(given) -> str:
        return refused(DOORS[door], given)

    assert "of Keras 3" in told(keras_3.Sequential(
        [keras_3.Input([8]), keras_3.layers.Dense(3)]))
    assert told("model.keras").endswith("a Keras model. Received: str")

    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    assert told(Own(name="own")).endswith("Received: Own 'own'")
    assert "functional or Sequential (and built)" in told(keras.Sequential([Dense(3)]))
    inputs = keras.Input([8])
    within = told(keras.Model(inputs, Dense(3)(Own(name="inner")(inputs))))
    assert within.endswith("Received: Own 'inner'")


TWO = ("fit", "teacher", "convert", "convert, float", "quantize_model",
       "quantize_model, trained", "compress_model, trained", "saved model")


@pytest.mark.parametrize("door", TWO)
def test_a_second_output_is_refused(door):
    inputs = keras.Input([8])
    x = Dense(4)(inputs)
    for outputs in ([Dense(3, name="a")(x), Dense(3, name="b")(x)],
                    {"p": Dense(3, name="a")(x), "q": Dense(3, name="b")(x)}):
        told = refused(DOORS[door], keras.Model(inputs, outputs))
        assert "one output" in told
        assert re.search(r"\['(pruned_)?a', '(pruned_)?b'\]$", told)


@pytest.mark.parametrize("end", [
    lambda x: Dense(3, "softmax")(x), lambda x: Dense(3, "sigmoid")(x),
    lambda x: keras.layers.Softmax()(Dense(3)(x)),
    lambda x: keras.layers.Activation("softmax")(Dense(3)(x)),
    lambda x: tf.nn.softmax(Dense(3)(x)), lambda x: tf.sigmoid(Dense(3)(x)),
    lambda x: keras.layers.Dropout(0.1)(keras.layers.Softmax()(Dense(3)(x))),
    lambda x: keras.layers.Activation("linear")(Dense(3, "softmax")(x)),
    lambda x: keras.layers.Reshape([3])(Dense(3, "softmax")(x)),
    lambda x: sequential(Dense(3, "softmax"))(x)])
def test_probabilities_are_no_logits(end):
    inputs = keras.Input([8])
    given = keras.Model(inputs, end(inputs))
    doors = ["fit", "compress_model, trained", "quantize_model, trained"]
    if not checks.ends_in_softmax(given):
        doors.append("teacher")
    for door in doors:
        assert "gives probabilities" in refused(DOORS[door], given)
    tfopt.compress_model(given, 0.5)  # of which no loss is taken


def test_of_a_teachers_softmax_the_logarithm_is_taken():
    inputs, numbers = keras.Input([8]), np.random.default_rng(0).normal(size=[5, 8])
    logits = Dense(3)(inputs)
    for end in (keras.layers.Softmax(), tf.nn.softmax,
                keras.layers.Activation("softmax")):
        given = keras.Model(inputs, end(logits))
        assert checks.ends_in_softmax(given)
        teacher = tfopt.Distillation().goal(given).teacher
        np.testing.assert_allclose(
            teacher(numbers), tf.nn.log_softmax(keras.Model(inputs, logits)(numbers)),
            atol=1e-5)
    assert not checks.ends_in_softmax(keras.Model(inputs, Dense(3, "sigmoid")(inputs)))


@pytest.mark.parametrize("end", [
    lambda x: Dense(3)(x), lambda x: Dense(3)(Dense(4, "softmax")(x)),
    lambda x: tf.nn.log_softmax(Dense(3)(x)),
    lambda x: keras.layers.Add()([Dense(3, "softmax")(x), Dense(3)(x)]),
    lambda x: Dense(3, "tanh")(x)])
def test_other_ends_are(end):
    inputs = keras.Input([8])
    checks.check_logits(keras.Model(inputs, end(inputs)))


def test_the_way_out_that_is_told_is_one():
    given = sequential(Dense(3, "softmax"))
    given.layers[-1].activation = keras.activations.linear
    checks.check_logits(given)
    assert not checks.are_probabilities(given(np.ones([4, 8], np.float32)))


def test_one_number_is_no_class():
    for end in (Dense(1), Dense(1, "sigmoid")):
        told = refused(tfopt.compress_model, sequential(end), 0.5, train=batches(2))
        assert "probabilities" in told or "regression" in told


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_not_exported(bad, tmp_path):
    given = sequential(Dense(3, name="only"))
    kernel = given.get_layer("only").kernel
    kernel.assign(tf.tensor_scatter_nd_update(kernel, [[2, 1]], [bad]))
    for door in ("convert", "convert, float", "quantize_model", "saved model"):
        told = refused(DOORS[door], given)
        assert "only/kernel:0 with 1 of 24 NaN or infinite" in told
    model.save(given, tmp_path)
    assert str(tmp_path) in refused(model.load, tmp_path)


def test_what_is_wrapped_is_not_exported():
    given = sequential(Dense(16, name="first"), Dense(3, name="last"))
    for wrap in (DOORS["wrap"], DOORS["wrap, quantized"]):
        wrapped = wrap(given)
        for door in ("convert", "wrap", "saved model", "compress_model"):
            assert "stripped" in refused(DOORS[door], wrapped)


def test_a_lambda_is_copied_by_what_copies():
    given = sequential(Dense(16), keras.layers.Lambda(lambda x: x * 2.0), Dense(3))
    x = np.ones([2, 8], np.float32)
    for copy in (functional.copy_model(given), retype(given, "float32")):
        np.testing.assert_array_equal(copy(x), given(x))
    assert tfopt.compress_model(given, 0.5, train=batches(), settings=ONE_EPOCH)
    assert tfopt.quantize_model(given, train=batches(), settings=ONE_EPOCH)


def test_inputs_in_a_dictionary_keep_its_keys():
    first, second = keras.Input([8]), keras.Input([8])
    given = keras.Model({"first": first, "other": second}, Dense(3)(
        keras.layers.Concatenate()([first, Dense(8, "relu")(second)])))
    x = {"first": np.ones([1, 8], np.float32), "other": -np.ones([1, 8], np.float32)}
    for scheme in ("float32", "dynamic_wi8_afp32", "static_wi8_ai8"):
        contents = tfopt.convert(given, scheme, calibration=[
            x, {name: value / 2 for name, value in x.items()}])
        from ai_edge_litert.interpreter import Interpreter

        run = Interpreter(model_content=contents).get_signature_runner()
        np.testing.assert_allclose(run(**x)["logits"], given(x), atol=0.1)


# Models within models.

def nested(inner: keras.Model, *layers) -> keras.Model:
    inputs = keras.Input(inner.input_shape[1:])
    x = inner(inputs)
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x, name="outer")


def names_of(given: keras.Model) -> list[str]:
    return [layer.name for layer in given.layers
            if not isinstance(layer, keras.layers.InputLayer)]


def test_models_within_a_model_are_unfolded():
    deepest = sequential(Dense(5, "relu", name="c"), width=6)
    inner = keras.Sequential([keras.Input([8]), Dense(6, name="b"), deepest])
    given = nested(inner, Dense(3, name="a"))
    x = np.random.default_rng(0).normal(size=[4, 8]).astype(np.float32)
    before = given.get_weights()
    flat = functional.copy_model(given)
    assert names_of(flat) == ["b", "c", "a"] and flat.name == "outer"
    np.testing.assert_array_equal(flat(x), given(x))
    for layer in flat.layers:
        assert len(layer.inbound_nodes) == 1
    flat.get_layer("b").kernel.assign(tf.zeros([8, 6]))
    for now, then in zip(given.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert len(names_of(given)) == 2  # and as it was


def test_of_two_layers_of_one_name_the_inner_is_renamed():
    inner = sequential(Dense(6, name="dense"), Dense(6, name="other"))
    inner._name = "inner"
    assert names_of(functional.copy_model(nested(inner, Dense(3, name="dense")))) == [
        "inner_dense", "other", "dense"]


def test_what_is_told_of_training_stays_so():
    inner = sequential(keras.layers.Dropout(0.5), Dense(4))
    inputs = keras.Input([8])
    given = keras.Model(inputs, Dense(3)(inner(inputs, training=False)))
    x = np.ones([4, 8], np.float32)
    np.testing.assert_array_equal(functional.copy_model(given)(x, training=True),
                                  given(x, training=False))


def test_inner_models_of_several_inputs_and_outputs():
    inputs = {name: keras.Input([4], name=name) for name in ("p", "q")}
    inner = keras.Model(inputs, [Dense(2, name="left")(inputs["q"]),
                                 Dense(2, name="right")(inputs["p"])])
    x, y = keras.Input([4]), keras.Input([4])
    left, right = inner({"q": x, "p": y})
    given = keras.Model([x, y], Dense(3)(left - 2.0 * right))
    values = [np.random.default_rng(i).normal(size=[3, 4]).astype(np.float32)
              for i in (0, 1)]
    np.testing.assert_array_equal(functional.copy_model(given)(values), given(values))


def test_a_frozen_model_stays_frozen():
    inner = sequential(Dense(6, name="frozen"))
    inner.trainable = False
    flat = functional.copy_model(nested(inner, Dense(3, name="free")))
    assert [layer.trainable for layer in flat.layers[1:]] == [False, True]


def test_a_model_called_twice_keeps_its_weights_once():
    inner = sequential(Dense(4, name="shared"))
    x, y = keras.Input([8]), keras.Input([8])
    given = keras.Model([x, y], Dense(3)(inner(x) * inner(y)))
    values = [np.ones([2, 8], np.float32), -np.ones([2, 8], np.float32)]
    flat = functional.copy_model(given)
    np.testing.assert_array_equal(flat(values), given(values))
    assert len(flat.weights) == len(given.weights)
    assert "'shared'" in refused(tfopt.compress_model, given, 0.5)


def test_flat_leaves_others_as_they_are():
    given = sequential(Dense(3))
    assert functional.flat(given) is given
    assert compress.copy_model is functional.copy_model
