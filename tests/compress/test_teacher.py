"""A teacher in the context: every pass that trains distils."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tfopt import compress, data, model
from tfopt.backend import keras
from tfopt.compress import Context, Recipe, samples
from tfopt.compress.structure import importance
from tfopt.compress.teacher import taps
from tfopt.train import Distillation, Settings

CONFIG = model.EncoderConfig.uniform(
    hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32, vocab_size=103,
    max_positions=64, initializer_range=0.3)
ONE_LAYER = CONFIG.replace(num_heads=(2,), intermediate_sizes=(32,))
HEAD = model.Head(outputs=3)
LAYERS = Distillation(hidden_weight=1.0, relations_weight=1.0, hard_weight=0.0)


@pytest.fixture(scope="module")
def teacher():
    return model.build(CONFIG, HEAD, seed=7)


@pytest.fixture
def batches(tiny_examples):
    return data.Batches(*tiny_examples, batch_size=8, shuffle_seed=0)


def run(name, context):
    step = compress.all_passes()[name].example()
    outcome, = compress.run(model.build(ONE_LAYER, HEAD, seed=1),
                            Recipe(passes=(step,)), context)
    return outcome.model


def test_logits_are_kept_in_a_file_and_used(teacher, batches, tmp_path):
    context = Context(train=batches, teacher=teacher, teacher_logits_dir=tmp_path,
                      settings=Settings(epochs=1, learning_rate=3e-3))
    first = run("magnitude", context)
    file, = tmp_path.glob("*.float16")
    kept = np.fromfile(file, "<f2").reshape([-1, 3])
    for index, inputs in batches.each_once():
        np.testing.assert_allclose(kept[index], teacher(inputs), atol=5e-3)
    live = run("magnitude", dataclasses.replace(context, teacher_logits_dir=None))
    for a, b in zip(first.get_weights(), live.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=4e-3)  # a step's rate is 3e-3
        assert np.mean(np.abs(a - b)) < 3e-4


def test_texts_for_the_teacher_alone_are_learned_but_not_measured(
        teacher, batches, tiny_examples, monkeypatch):
    more = data.Batches(*tiny_examples, batch_size=6, shuffle_seed=0)
    context = Context(train=batches, transfer_set=more, teacher=teacher,
                      settings=Settings(epochs=1))
    assert context.training_set is more and context.training_inputs(teacher)[0] is more
    assert dataclasses.replace(context, teacher=None).training_set is batches
    assert dataclasses.replace(context, transfer_set=None).training_set is batches
    read, judged = [], samples.read
    monkeypatch.setattr(importance, "read",
                        lambda train, count: read.append(train) or judged(train, count))
    step = compress.from_fields({"pass": "structured", "keep": 0.5, "epochs": 0,
                                 "reconstruct": False, "neurons_multiple": 1})
    compress.run(model.build(CONFIG, HEAD, seed=1), Recipe(passes=(step,)), context)
    assert read == [batches]


@pytest.mark.parametrize("name", ["magnitude", "quantization_aware"])
def test_states_are_found_in_a_wrapped_model(name, batches):
    plain = model.build(CONFIG, HEAD, seed=1)
    wrapped = compress.all_passes()[name].example().wrap(plain)
    found, expected = taps(wrapped), taps(plain)
    assert len(found.hidden) == 2
    assert found.num_heads == expected.num_heads == 2
    for a, b in zip([*found.hidden, *found.projections.values()],
                    [*expected.hidden, *expected.projections.values()], strict=True):
        assert a.shape.as_list() == b.shape.as_list()


def test_a_student_may_lack_blocks(teacher, batches):
    student = model.build(CONFIG.replace(num_heads=(2, 0), intermediate_sizes=(0, 8)),
                          HEAD)
    context = Context(train=batches, teacher=teacher, distillation=LAYERS)
    _, goal = context.training_inputs(student)
    taught = goal.prepare(student)
    taught.compile("sgd", goal.loss())
    assert np.isfinite(taught.train_on_batch(*next(iter(batches.dataset()))))
    found = taps(student)
    assert len(found.hidden) == 2
    assert found.projections["query"] is student.get_layer("layer_0_query").output


@pytest.mark.parametrize("sizes", [
    {"num_heads": (0, 0)}, {"num_heads": (2, 0), "intermediate_sizes": (0, 8)},
    {"num_heads": (0, 0), "intermediate_sizes": (8, 0)}])
def test_a_student_learns_hidden_states_whatever_blocks_it_lacks(
        teacher, batches, sizes):
    student = model.build(CONFIG.replace(**sizes), HEAD, seed=2)
    _, goal = Context(train=batches, teacher=teacher, distillation=Distillation(
        soft_weight=0.0, hard_weight=0.0, hidden_weight=1.0)).training_inputs(student)
    taught = goal.prepare(student)
    taught.compile(keras.optimizers.legacy.Adam(1e-2), goal.loss())
    inputs, class_ids = next(iter(batches.dataset()))
    losses = [taught.train_on_batch(inputs, class_ids, reset_metrics=True)
              for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("whose", ["student", "teacher"])
def test_relations_need_attention_in_both(teacher, batches, whose):
    models = {"student": model.build(CONFIG, HEAD), "teacher": teacher,
              whose: model.build(CONFIG.replace(num_heads=(0, 0)), HEAD)}
    _, goal = Context(train=batches, teacher=models["teacher"],
                      distillation=LAYERS).training_inputs(models["student"])
    with pytest.raises(ValueError, match=f"Received: a {whose} that has none$"):
        goal.prepare(models["student"])


def test_layers_are_found_in_a_bert_alone():
    entry = keras.Input([4], name="x")
    with pytest.raises(ValueError, match="encoder made by tfopt"):
        taps(keras.Model(entry, keras.layers.ReLU()(entry)))


def test_what_does_not_fit_is_refused(teacher, batches, tmp_path):
    with pytest.raises(ValueError, match="Received: teacher=None, .*=logits$"):
        Context(teacher_logits_dir="logits")
    with pytest.raises(ValueError, match="hidden_weight=1.0, relations_weight=1.0, "):
        Context(train=batches, teacher=teacher, distillation=LAYERS,
                teacher_logits_dir="logits").training_inputs(teacher)
    with pytest.raises(ValueError, match="of its own are kept. Received: .*=None$"):
        Context(teacher=teacher, read_by_teacher=batches)
    context = Context(train=batches, teacher=teacher)
    with pytest.raises(ValueError, match="teacher of 103 and a student of 99 entries"):
        context.training_inputs(model.build(CONFIG.replace(vocab_size=99), HEAD))
    _, goal = context.training_inputs(model.build(CONFIG))
    with pytest.raises(ValueError, match="a teacher of 3 and a student of 2 classes"):
        goal.prepare(model.build(CONFIG))


@pytest.mark.parametrize("end", [
    keras.layers.Softmax(), keras.layers.Lambda(keras.activations.softmax)])
def test_a_teacher_of_probabilities_teaches_by_their_logarithms(end, teacher, batches):
    """By its layers, or by what it gives where these do not tell."""
    soft = keras.Model(teacher.inputs, end(teacher.output))
    context = Context(train=batches, settings=Settings(epochs=1, learning_rate=3e-3),
                      teacher=soft)
    taught = run("magnitude", context)
    plain = run("magnitude", dataclasses.replace(context, teacher=teacher))
    for a, b in zip(taught.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_teacher_of_sigmoids_is_refused(teacher, batches):
    end = keras.layers.Activation("sigmoid")
    context = Context(train=batches, settings=Settings(epochs=1), teacher=keras.Model(
        teacher.inputs, end(teacher.output)))
    with pytest.raises(ValueError, match="must give logits.*Received: .*probabilities"):
        run("magnitude", context)
    run("truncate", context)  # which learns nothing


def test_a_teacher_of_nan_is_refused_before_a_step(batches):
    spoilt = model.build(CONFIG, HEAD, seed=7)
    spoilt.get_layer("classifier").bias.assign([0.0, np.nan, 0.0])
    with pytest.raises(ValueError, match="finite numbers. Received: .* 8 of 8 texts$"):
        run("magnitude", Context(train=batches, teacher=spoilt))


def test_a_large_teacher_gives_logits_and_the_model_that_it_made_states(
        batches, tmp_path, monkeypatch):
    """The chain: its second pass learns from both."""
    large = model.build(CONFIG.replace(vocab_size=207), HEAD, seed=7)
    read = data.Batches(data.Encoded(
        ids=[[2 * token for token in ids] for ids in _ids(batches)],
        first_lengths=[len(ids) for ids in _ids(batches)]), batch_size=8)
    context = Context(train=batches, teacher=large, teacher_logits_dir=tmp_path,
                      read_by_teacher=read, settings=Settings(
                          epochs=1, learning_rate=3e-3))
    seen = []
    real = Context.training_inputs

    def inputs(self, student):
        source, goal = real(self, student)
        seen.append((self, goal))
        return source, goal

    monkeypatch.setattr(Context, "training_inputs", inputs)
    recipe = Recipe(
        passes=(compress.from_fields({"pass": "retrain"}),
                compress.from_fields({"pass": "student", "layers": 1})),
        distillation=Distillation(hidden_weight=1.0))
    first, _ = compress.run(model.build(CONFIG, HEAD, seed=1), recipe, context)
    (whole, logits), (_, both) = seen
    assert not whole.distillation.uses_layers and logits.teacher is None
    states = both.teacher
    for a, b in zip(states.get_weights(), first.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    # Of a batch that carries logits, these count, and of the other teacher the states.
    student = model.build(ONE_LAYER, HEAD, seed=2)
    taught = both.prepare(student)
    x, (_, given) = next(iter(real(seen[1][0], student)[0].dataset()))
    found = taught._distillation.teacher_outputs(x, given)
    np.testing.assert_array_equal(found["logits"], given)
    np.testing.assert_allclose(found["hidden"][-1], keras.Model(
        states.inputs, taps(states).hidden[-1])(x), atol=1e-5)
    assert np.abs(given - states(x)).max() > 1e-3


def _ids(batches) -> list[list[int]]:
    found = [None] * len(batches)
    for index, x in batches.each_once():
        for row, ids, visible in zip(index, x["input_ids"].numpy(),
                                     x["attention_mask"].numpy(), strict=True):
            found[row] = ids[:visible.sum()].tolist()
    return found


def test_a_chain_needs_its_first_link(teacher, batches, tmp_path):
    recipe = Recipe(passes=(compress.from_fields({"pass": "student", "layers": 1}),),
                    distillation=LAYERS)
    context = Context(train=batches, teacher=teacher, teacher_logits_dir=tmp_path)
    with pytest.raises(ValueError, match="let the pass 'retrain' make such a teacher"):
        compress.check(recipe, context)
    compress.check(dataclasses.replace(recipe, passes=(
        compress.from_fields({"pass": "retrain"}), *recipe.passes)), context)
