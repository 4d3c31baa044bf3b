"""Students by construction: which layers stay, their weights, and their training."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tfopt import compress, data
from tfopt import model as models
from tfopt.backend import keras
from tfopt.compress import Context, Recipe
from tfopt.compress.passes.low_rank import LowRank
from tfopt.compress.passes.student import Student
from tfopt.compress.samples import with_targets
from tfopt.compress.structure.slicing import shorten
from tfopt.model.anatomy import Anatomy
from tfopt.train import Distillation, Settings, loop

CONFIG = models.EncoderConfig.uniform(
    hidden_size=16, num_layers=4, num_heads=2, intermediate_size=32, vocab_size=103,
    max_positions=64, initializer_range=0.3)
HEAD = models.Head(outputs=3)


@pytest.fixture
def batches(tiny_examples):
    return data.Batches(*tiny_examples, batch_size=16, shuffle_seed=0)


def deep(layers: int) -> models.EncoderConfig:
    return CONFIG.replace(num_heads=(2,) * layers, intermediate_sizes=(4,) * layers)


def run(before, step, **given):
    outcome, = compress.run(before, Recipe(passes=(step,)), Context(**given))
    return outcome


def inputs() -> dict[str, np.ndarray]:
    ids = np.random.default_rng(0).integers(4, 103, [3, 9])
    mask = np.ones_like(ids)
    mask[1, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask,
            "token_type_ids": np.zeros_like(ids)}


@pytest.mark.parametrize(("total", "layers", "which", "expected"), [
    (12, 6, "even", (1, 3, 5, 7, 9, 11)),
    (12, 4, "even", (2, 5, 8, 11)),
    (6, 4, "even", (1, 2, 3, 5)),
    (6, 5, "even", (0, 1, 3, 4, 5)),
    (4, 1, "even", (3,)),
    (6, 2, "first", (0, 1)),
    (6, 2, "last", (4, 5)),
])
def test_which_layers_stay(total, layers, which, expected):
    before = models.build(deep(total), HEAD)
    assert Student(layers=layers, which=which).choose(before) == expected


@pytest.mark.parametrize("total", range(2, 14))
def test_even_layers_are_distinct_and_end_with_the_last(total):
    before = models.build(CONFIG.replace(hidden_size=2, num_heads=(0,) * total,
                                         intermediate_sizes=(0,) * total), HEAD)
    for layers in range(1, total):
        kept = Student(layers=layers).choose(before)
        assert list(kept) == sorted(set(kept)) and len(kept) == layers
        assert kept[-1] == total - 1


@pytest.mark.parametrize("config", [
    CONFIG,
    # Layers of their own sizes, some without a block, one without both.
    CONFIG.replace(num_heads=(1, 0, 0, 2), intermediate_sizes=(8, 24, 0, 0)),
])
@pytest.mark.parametrize("kept", [(1, 3), (0, 2), (0, 1, 2), (2,)])
def test_the_student_computes_by_the_layers_that_stay(config, kept):
    before = models.build(config, HEAD, seed=1)
    small = shorten(before, kept)
    assert models.config_of(small).num_heads == tuple(
        config.num_heads[i] for i in kept)
    assert models.config_of(small).intermediate_sizes == tuple(
        config.intermediate_sizes[i] for i in kept)
    assert not {id(w) for w in small.weights} & {id(w) for w in before.weights}

    states = Anatomy.of(before).hidden_states
    x, mask = inputs(), before.get_layer("attention_mask").output
    expected = keras.Model(before.input, states[0])(x)
    for i in kept:
        entry = [states[i], mask] if config.num_heads[i] else states[i]
        expected = keras.Model(entry, states[i + 1])(
            [expected, x["attention_mask"]] if config.num_heads[i] else expected)
    expected = keras.Model([states[-1], mask], before.output)(
        [expected, x["attention_mask"]])
    np.testing.assert_allclose(small(x), expected, atol=1e-6)


def without(model, *kept) -> keras.Model:
    return shorten(model, kept)


def mean_loss(model, batches) -> float:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True,
                                                      reduction="none")
    return float(np.mean(np.concatenate(
        [loss(y, model(x)) for x, y in batches.dataset()])))


def test_the_cheapest_layers_go_one_at_a_time(batches):
    before = models.build(deep(3), HEAD, seed=5)
    kept = (0, 1, 2)
    for layers in (2, 1):
        rests = [tuple(i for i in kept if i != gone) for gone in kept]
        losses = [mean_loss(without(before, *rest), batches) for rest in rests]
        kept = rests[int(np.argmin(losses))]
        assert Student(layers=layers, which="cheapest").choose(before, batches) == kept


def test_examples_without_a_label_count_as_the_model_judges_them(tiny_examples):
    before = models.build(CONFIG, HEAD, seed=2)
    half = data.Batches(tiny_examples[0], [0] * 24 + [-1] * 24, batch_size=16)
    found = {}
    for given in (half, half.with_teacher_logits(np.zeros([48, 3]))):
        read = with_targets(before, given, 48)
        for (inputs, labels), (_, class_ids) in zip(read, given.dataset(), strict=True):
            own = class_ids[0] if isinstance(class_ids, tuple) else class_ids
            guesses = np.argmax(before(inputs), axis=1)
            np.testing.assert_array_equal(labels, np.where(own < 0, guesses, 0))
            found |= dict.fromkeys(labels[own < 0].numpy())
    assert len(found) > 1


@pytest.mark.parametrize(("examples", "read"), [(1, 1), (16, 1), (17, 2), (99, 3)])
def test_no_more_batches_are_read_than_asked_for(batches, examples, read):
    assert len(with_targets(models.build(CONFIG, HEAD), batches, examples)) == read


@pytest.mark.parametrize("which", ["even", "first", "last"])
def test_without_training_no_data_is_needed(which):
    before = models.build(CONFIG, HEAD, seed=1)
    step = Student(layers=2, which=which, epochs=0)
    outcome = run(before, step)
    expected = without(before, *step.choose(before))
    np.testing.assert_array_equal(outcome.model(inputs()), expected(inputs()))
    gone = set(range(4)) - set(step.choose(before))
    assert {int(name.split("_")[1]) for name in outcome.touched} == gone
    assert len(outcome.touched) == 2 * 8  # six products and two norms a layer


@pytest.mark.parametrize(("epochs", "expected"), [(None, [5]), (2, [2]), (0, [])])
def test_epochs_are_its_own_or_the_settings(batches, monkeypatch, epochs, expected):
    seen = []
    monkeypatch.setattr(loop, "fit",
                        lambda *given, **_: seen.append(given[3].epochs))
    run(models.build(CONFIG, HEAD), Student(layers=2, epochs=epochs), train=batches,
        settings=Settings(epochs=5))
    assert seen == expected


def test_training_from_the_teacher_recovers(tiny_batches):
    before = models.build(CONFIG, HEAD, seed=7)
    step = Student(layers=2, epochs=6)
    given = {"train": tiny_batches, "settings": Settings(learning_rate=3e-3)}
    cut = run(before, dataclasses.replace(step, epochs=0), **given)
    alone = run(before, step, **given)
    taught = run(before, step, teacher=before, **given,
                 distillation=Distillation(hard_weight=0.0, hidden_weight=1.0))

    def distance(model):
        return float(np.mean([np.mean((model(x) - before(x)) ** 2)
                              for x, _ in tiny_batches.dataset()]))

    assert mean_loss(alone.model, tiny_batches) < 0.9 * mean_loss(cut.model,
                                                                  tiny_batches)
    assert distance(taught.model) < 0.5 * distance(cut.model)
    assert distance(taught.model) < 0.5 * distance(alone.model)


@pytest.mark.parametrize(("fields", "received"), [
    ({"layers": 0}, "layers=0"),
    ({"layers": 2, "which": "odd"}, "which='odd'"),
    ({"layers": 2, "examples": 0}, "examples=0"),
    ({"layers": 2, "epochs": -1}, "epochs=-1"),
])
def test_fields_that_make_no_sense_are_refused(fields, received):
    with pytest.raises(ValueError) as error:
        Student(**fields)
    assert str(error.value).endswith(f"Received: {received}")


@pytest.mark.parametrize("layers", [4, 5])
def test_there_must_be_layers_to_drop(layers):
    with pytest.raises(ValueError, match=f"the model's 4. Received: layers={layers}$"):
        run(models.build(CONFIG, HEAD), Student(layers=layers, epochs=0))


@pytest.mark.parametrize("step", [
    Student(layers=1, which="cheapest", epochs=0), Student(layers=1)])
def test_missing_data_is_told_before_any_work(step):
    with pytest.raises(ValueError, match="needs train .* Received: train=None, which="):
        compress.check(Recipe(passes=(step,)), Context())


def test_a_model_of_other_layers_is_refused():
    before = models.build(CONFIG, HEAD)
    thin = LowRank(rank=2).apply(before, Context()).model
    with pytest.raises(ValueError, match="Received: layer_1_query of type LowRankDen"):
        run(thin, Student(layers=2, epochs=0))
    entry = keras.Input([4])
    with pytest.raises(ValueError, match="encoder made by tfopt. Received: "):
        run(keras.Model(entry, keras.layers.Dense(2)(entry)),
            Student(layers=1, epochs=0))
