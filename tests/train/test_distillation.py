"""Distillation: who learns what from whom, under every way to train."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tfopt import data, model
from tfopt.backend import keras, tf
from tfopt.compress.teacher import taps
from tfopt.model import layer_names
from tfopt.train import Distillation, Settings, callbacks, fit, loop
from tfopt.train.distill import losses
from tfopt.train.distill.config import RELATIONS
from tfopt.train.distribute import strategy

TEACHER = model.EncoderConfig.uniform(
    hidden_size=16, num_layers=2, num_heads=4, intermediate_size=32, vocab_size=103,
    max_positions=64, initializer_range=0.3)
# Another width, fewer layers, one head less than the width would give.
STUDENT = model.EncoderConfig(
    vocab_size=103, hidden_size=8, num_heads=(1,), intermediate_sizes=(12,),
    head_size=4, max_positions=64, hidden_dropout=0.0,
    attention_dropout=0.0, initializer_range=0.3)
HEAD = model.Head(outputs=3, dropout=0.0)
EVERYTHING = Distillation(hidden_weight=1.0, relations_weight=1.0)


@pytest.fixture(scope="module")
def teacher():
    return model.build(TEACHER, HEAD, seed=1)


@pytest.fixture
def batches(tiny_examples):
    return data.Batches(*tiny_examples, batch_size=8, shuffle_seed=0, pad_to=16)


def weights(trained) -> np.ndarray:
    return np.concatenate([w.ravel() for w in trained.get_weights()])


def divergence(student, teacher, batches) -> float:
    """Mean soft loss of a student, by the definition."""
    values = [losses.soft(student(x), teacher(x), 1.0) for x, _ in batches.dataset()]
    return float(np.mean(np.concatenate(values)))


def first_loss(settings, student, teacher, batches) -> float:
    """The loss that Keras reports of the first step."""
    goal = settings.goal(teacher, taps)
    taught = goal.prepare(student)
    taught.compile("sgd", goal.loss())
    inputs, class_ids = next(iter(batches.dataset()))
    return taught.train_on_batch(inputs, class_ids)


class Heard(keras.callbacks.Callback):
    """Whether the last layer was computed for the first token alone."""

    def on_train_batch_end(self, batch, logs=None):
        self.alone = self.model.get_layer(layer_names.HEAD_TOKENS).first_alone


@pytest.mark.parametrize("settings,alone", [
    (Distillation(), True), (Distillation(hidden_weight=1.0), False),
    (Distillation(relations_weight=1.0), False), (None, True)])
def test_all_tokens_are_computed_where_they_are_compared(settings, alone, teacher,
                                                         batches):
    student, heard = model.build(STUDENT, HEAD, seed=2), Heard()
    goal = None if settings is None else settings.goal(teacher, taps)
    fit(student, batches, settings=Settings(epochs=1), goal=goal, callbacks=[heard])
    assert heard.alone == alone
    assert not student.get_layer(layer_names.HEAD_TOKENS).first_alone


def test_the_loss_is_the_weighted_sum_of_the_terms(teacher, batches):
    student = model.build(TEACHER.replace(
        hidden_dropout=0.0, attention_dropout=0.0), HEAD, seed=2)
    inputs, class_ids = next(iter(batches.dataset()))
    visible = tf.cast(inputs["attention_mask"], tf.float32)

    def said(m):
        found = taps(m)
        return keras.Model(m.inputs, {"logits": m.outputs[0], "hidden": found.hidden,
                                      "qkv": found.projections})(inputs)

    own, theirs = said(student), said(teacher)
    expected = 0.1 * losses.hard(own["logits"], class_ids)
    expected += 0.2 * losses.soft(own["logits"], theirs["logits"], 3.0)
    for a, b in zip(own["hidden"], theirs["hidden"], strict=True):
        expected += 0.3 / 2 * losses.distance(a, b, visible)
    for name in RELATIONS:
        a, b = (losses.relation(x["qkv"][name], x["qkv"][name], 4, visible)
                for x in (own, theirs))
        expected += 0.4 / 3 * losses.relation_loss(a, b, visible)
    found = first_loss(Distillation(
        temperature=3.0, hard_weight=0.1, soft_weight=0.2, hidden_weight=0.3,
        relations_weight=0.4), student, teacher, batches)
    assert found == pytest.approx(float(tf.reduce_mean(expected)), rel=1e-5)


def test_losses_of_the_layers_are_added(teacher, batches):
    def student(rate):
        inputs = {name: keras.Input([None], dtype="int32", name=name) for name in
                  ("input_ids", "attention_mask", "token_type_ids")}
        x = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(
            103, 4, embeddings_initializer="ones")(inputs["input_ids"]))
        return keras.Model(inputs, keras.layers.Dense(
            3, kernel_initializer="ones",
            kernel_regularizer=keras.regularizers.L2(rate))(x))

    taught = [Distillation().goal(teacher).prepare(student(rate)) for rate in (0, 1.0)]
    inputs, class_ids = next(iter(batches.dataset()))
    kernels = []
    for one in taught:
        one.compile(keras.optimizers.SGD(0.1))
        one.train_on_batch(inputs, class_ids)
        kernels.append(one.layers[-1].kernel.numpy())
    np.testing.assert_allclose(kernels[0] - kernels[1], 0.1 * 2 * 1.0, rtol=1e-4)


@pytest.mark.parametrize("layers", ["even", "nearest"])
def test_only_the_student_learns(teacher, batches, layers):
    before, student = weights(teacher), model.build(STUDENT, HEAD)
    names = [w.name for w in student.weights]
    start = divergence(student, teacher, batches)
    fit(student, batches, settings=Settings(epochs=4, learning_rate=1e-2),
        goal=Distillation(hidden_weight=0.1, relations_weight=1.0, layers=layers,
                          hard_weight=0.0).goal(teacher, taps))
    np.testing.assert_array_equal(weights(teacher), before)
    assert divergence(student, teacher, batches) < 0.7 * start
    # Neither the teacher nor the matrix between the widths is left in it.
    assert [w.name for w in student.weights] == names


def test_the_optimizer_holds_the_student_and_the_matrix_alone(teacher):
    student = model.build(STUDENT, HEAD)
    goal = EVERYTHING.goal(teacher, taps)
    taught = goal.prepare(student)
    learned = goal.trained_variables(taught)
    assert len(learned) == len(student.trainable_variables) + 1
    assert tuple(learned[-1].shape) == (8, 16)
    assert len(taught.weights) == len(student.weights)
    same_width = goal.prepare(model.build(TEACHER, HEAD))
    trained = goal.trained_variables(same_width)
    assert len(trained) == len(same_width.trainable_variables)


def test_the_matrix_between_the_widths_learns(teacher, batches):
    goal = EVERYTHING.goal(teacher, taps)
    taught = goal.prepare(model.build(STUDENT, HEAD))
    taught.compile(keras.optimizers.SGD(0.1), goal.loss())
    before = goal.trained_variables(taught)[-1].numpy()
    taught.train_on_batch(*next(iter(batches.dataset())))
    assert np.abs(goal.trained_variables(taught)[-1].numpy() - before).max() > 1e-4


def test_dev_judges_the_student_alone(teacher, batches):
    student = model.build(STUDENT, HEAD)
    history = fit(student, batches, batches, Settings(epochs=2),
                  goal=EVERYTHING.goal(teacher, taps))
    values, hits = [], []
    for inputs, class_ids in batches.dataset():
        logits = student(inputs)
        values += losses.hard(logits, class_ids).numpy().tolist()
        hits += (np.argmax(logits, -1) == class_ids.numpy()).tolist()
    best = max(history, key=lambda entry: entry["val_accuracy"])
    assert best["val_accuracy"] == pytest.approx(np.mean(hits))
    assert best["val_loss"] == pytest.approx(np.mean(values), rel=1e-5)
    assert all(entry["loss"] > entry["val_loss"] for entry in history)


def test_texts_without_labels_teach_by_the_teacher(teacher, tiny_examples):
    encoded, class_ids = tiny_examples
    goal = Distillation(hard_weight=0.0, temperature=1.0).goal(teacher)
    trained = []
    for labels in (None, [-1] * len(class_ids)):
        source = data.Batches(encoded, labels, batch_size=8, shuffle_seed=0)
        student = model.build(STUDENT, HEAD)
        start = divergence(student, teacher, data.Batches(encoded, class_ids))
        history = fit(student, source, settings=Settings(epochs=3, learning_rate=1e-2),
                      goal=goal)
        assert divergence(student, teacher,
                          data.Batches(encoded, class_ids)) < 0.7 * start
        assert history[-1]["loss"] < history[0]["loss"]
        trained.append(weights(student))
    np.testing.assert_array_equal(*trained)


def test_accuracy_counts_labelled_examples_alone(teacher, tiny_examples):
    encoded, class_ids = tiny_examples
    half = [label if i % 2 else -1 for i, label in enumerate(class_ids)]
    accuracies = []
    for examples in ((encoded, half), (data.Encoded(
            ids=encoded.ids[1::2], first_lengths=encoded.first_lengths[1::2]),
            class_ids[1::2])):
        source = data.Batches(*examples, batch_size=48, shuffle_seed=0)
        history = fit(model.build(STUDENT, HEAD), source, settings=Settings(epochs=1),
                      goal=Distillation().goal(teacher))
        accuracies.append(history[0]["accuracy"])
    assert accuracies[0] == pytest.approx(accuracies[1])


def test_compiled_by_xla_it_gives_the_same_weights(teacher, batches):
    trained = {}
    for jit_compile in (False, True):
        student = model.build(STUDENT, HEAD)
        fit(student, batches, settings=Settings(epochs=1, jit_compile=jit_compile),
            goal=EVERYTHING.goal(teacher, taps))
        trained[jit_compile] = weights(student)
    np.testing.assert_allclose(trained[True], trained[False], atol=1e-5)
    assert np.abs(trained[True] - weights(model.build(STUDENT, HEAD))).max() > 1e-4


def test_in_bfloat16_student_and_teacher_compute_about_the_same(teacher, batches):
    losses = {}
    for name in ("float32", "mixed_bfloat16"):
        student = model.build(STUDENT, HEAD)
        history = fit(student, batches, goal=EVERYTHING.goal(teacher, taps),
                      settings=Settings(epochs=2, mixed_precision=name))
        losses[name] = [entry["loss"] for entry in history]
        assert all(w.dtype == tf.float32 for w in student.weights)
    np.testing.assert_allclose(losses["mixed_bfloat16"], losses["float32"], rtol=0.05)
    assert losses["mixed_bfloat16"] != losses["float32"]


def test_two_devices_do_what_one_does(teacher, batches):
    results = []
    for name in ("one_device", "mirrored"):
        with strategy.make(name).scope():
            student = model.build(STUDENT, HEAD)
        history = fit(student, batches, batches, Settings(epochs=2),
                      goal=EVERYTHING.goal(teacher, taps))
        results.append((weights(student), [[*entry.values()] for entry in history]))
    assert student.distribute_strategy.num_replicas_in_sync == 2
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(two, one, atol=1e-4)


class _Kill(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if callbacks.steps_done(self.model) == self.step:
            raise KeyboardInterrupt


def test_a_killed_run_goes_on_to_the_same_weights(teacher, batches, tmp_path,
                                                  monkeypatch):
    monkeypatch.setattr(loop, "SaveRunState",
                        functools.partial(callbacks.SaveRunState, every_s=0))
    settings = Settings(epochs=2, learning_rate=1e-2)

    def run(**others):
        student = model.build(STUDENT.replace(hidden_dropout=0.1), HEAD)
        fit(student, batches, settings=settings,
            goal=EVERYTHING.goal(teacher, taps), **others)
        return weights(student)

    with pytest.raises(KeyboardInterrupt):
        run(state_dir=tmp_path, callbacks=[_Kill(4)])
    np.testing.assert_array_equal(run(state_dir=tmp_path), run())


@pytest.mark.parametrize("changes, received", [
    ({"temperature": 0.0}, "temperature=0.0"),
    ({"temperature": -1.0}, "temperature=-1.0"),
    ({"temperature": float("nan")}, "temperature=nan"),
    ({"soft_weight": -0.1}, "soft_weight=-0.1"),
    ({"hidden_weight": -1}, "hidden_weight=-1"),
    ({"layers": "odd"}, "layers='odd'"),
    ({"relations": ()}, "relations=()"),
    ({"relations": (("query", "x"),)}, "relations=(('query', 'x'),)"),
    ({"relation_heads": 0}, "relation_heads=0"),
    ({"soft_weight": 0, "hard_weight": 1.0}, "soft_weight=0, hidden_weight=0.0, "
     "relations_weight=0.0, hard_weight=1.0"),
])
def test_settings_out_of_range_are_refused(changes, received):
    with pytest.raises(ValueError) as error:
        Distillation(**changes)
    assert str(error.value).endswith(f"Received: {received}")


def test_a_goal_that_cannot_be_made_is_refused(teacher, batches):
    with pytest.raises(ValueError, match="need the teacher itself.*teacher=None"):
        EVERYTHING.goal()
    with pytest.raises(ValueError, match="`taps`.*taps=None$"):
        EVERYTHING.goal(teacher)
    with pytest.raises(ValueError, match="functional.*Received: Subclassed '"):
        Distillation().goal(type("Subclassed", (keras.Model,), {})())
    with pytest.raises(ValueError, match="classes.*teacher of 3 and a student of 2"):
        Distillation().goal(teacher).prepare(model.build(STUDENT))
    with pytest.raises(ValueError, match=r"\[4, 16\].*Received: relation_heads=3"):
        Distillation(relations_weight=1.0, relation_heads=3).goal(
            teacher, taps).prepare(model.build(STUDENT, HEAD))
    with pytest.raises(ValueError, match="encoder made by tfopt"):
        taps(keras.Sequential([keras.layers.Dense(1, input_shape=[1])]))


@pytest.mark.parametrize("labels, logits, settings, message", [
    (None, None, Distillation(hard_weight=0.0), "needs a teacher.*Received: neither"),
    (None, None, Distillation(), "hard_weight=0. Received: hard_weight=0.5"),
    ([0] * 48, np.zeros([48, 2]), Distillation(), "teacher of 2 and a student of 3"),
])
def test_batches_that_lack_something_are_refused(
        teacher, tiny_examples, labels, logits, settings, message):
    source = data.Batches(tiny_examples[0], labels, batch_size=8)
    if logits is not None:
        source = source.with_teacher_logits(logits)
    goal = settings.goal(None if settings.hard_weight == 0 or labels else teacher)
    with pytest.raises(ValueError, match=message):
        fit(model.build(STUDENT, HEAD), source, goal=goal)
