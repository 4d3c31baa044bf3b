"""A narrower residual stream: what stays, slices, least squares, training."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tfopt import compress, data
from tfopt import model as models
from tfopt.backend import keras
from tfopt.compress import Context, Recipe
from tfopt.compress.passes.hidden_width import HiddenWidth
from tfopt.compress.passes.low_rank import LowRank
from tfopt.compress.structure import hidden_width
from tfopt.export import interpreter, tflite
from tfopt.train import Distillation, Settings, loop

CONFIG = models.EncoderConfig.uniform(
    hidden_size=12, num_layers=2, num_heads=2, intermediate_size=10, vocab_size=103,
    max_positions=64, initializer_range=0.4)
HEAD = models.Head(outputs=3)
# Layers of their own sizes, one of them without products.
UNEVEN = CONFIG.replace(num_heads=(1, 0, 0), intermediate_sizes=(0, 5, 0))
UNTRAINED = HiddenWidth(width=6, multiple=1, epochs=0, examples=48)
CUT = dataclasses.replace(UNTRAINED, reconstruct=False)
KEPT, POOLED = (0, 3, 4, 7, 8, 11), (1, 2, 5, 6, 9, 10)


@pytest.fixture
def batches(tiny_examples):
    return data.Batches(*tiny_examples, batch_size=16, pad_to=16)


def fresh(config, seed=1) -> keras.Model:
    """A model whose LayerNorms and biases are not all alike."""
    model = models.build(config, HEAD, seed)
    random = np.random.default_rng(seed)
    for layer in model.layers:
        layer.set_weights([w + random.normal(0, 0.3, w.shape) if w.ndim == 1 else w
                           for w in layer.get_weights()])
    return model


def run(before, step, **given):
    outcome, = compress.run(before, Recipe(passes=(step,)), Context(**given))
    return outcome


def inputs(batch=3) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(0).integers(4, 103, [batch, 9]).astype(np.int32)
    mask = np.ones_like(ids)
    mask[-1, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask,
            "token_type_ids": np.zeros_like(ids)}


def distance(model, whole, batches) -> float:
    """The mean square by which logits differ; what all classes gain is none."""
    found = []
    for batch in batches.dataset():
        x = batch[0] if isinstance(batch, tuple) else batch
        apart = (model(x) - whole(x)).numpy()
        found.append(apart - apart.mean(axis=1, keepdims=True))
    return float(np.mean(np.concatenate(found) ** 2))


def losses(model, batches) -> np.ndarray:
    """The cross-entropy of each example."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True,
                                                      reduction="none")
    return np.concatenate([loss(y, model(x)) for x, y in batches.dataset()])


@pytest.mark.parametrize("config", [CONFIG, UNEVEN])
def test_gradients_are_those_of_masks(config, tiny_examples):
    model = fresh(config)
    batches = data.Batches(*tiny_examples, batch_size=48)
    found = hidden_width.mask_gradients(model, batches, 48)
    norms = [layer for layer in model.layers if layer.name.endswith("_norm")]
    assert len(norms) == 1 + 2 * config.num_layers
    for masked, gradients in zip((norms, [model.get_layer("classifier")]), found,
                                 strict=True):
        whole = [layer.get_weights() for layer in masked]
        for unit in (0, 5, 11):
            there = []
            for factor in (0.998, 1.002):
                for layer, weights in zip(masked, whole, strict=True):
                    scaled = [w.copy() for w in weights]
                    # The classifier's bias comes after the pooler's mask.
                    for weight in scaled[:1] if layer.name == "classifier" else scaled:
                        weight[unit] *= factor
                    layer.set_weights(scaled)
                there.append(losses(model, batches))
            for layer, weights in zip(masked, whole, strict=True):
                layer.set_weights(weights)
            expected = (there[1] - there[0]) / 0.004
            assert np.abs(expected).max() > 0.01
            np.testing.assert_allclose(gradients[:, unit], expected, rtol=0.03,
                                       atol=2e-3)


def test_examples_without_a_label_count_as_the_model_judges_them(tiny_examples):
    model = fresh(CONFIG)
    encoded, _ = tiny_examples
    whole = data.Batches(encoded, [-1] * 48, batch_size=48)
    logits, = (model(x).numpy() for x, _ in whole.dataset())
    means = logits.mean(axis=0)  # without them, each class is given
    guesses = np.argmax(logits - means, axis=1)
    kernel, bias = model.get_layer("classifier").get_weights()
    model.get_layer("classifier").set_weights([kernel, bias - means])
    labels = np.zeros(48, int)
    labels[whole.epoch_plan(0)[0]] = guesses
    assert len(set(guesses)) > 1
    judged = data.Batches(encoded, labels.tolist(), batch_size=48)
    found = (hidden_width.mask_gradients(model, batches, 48)
             for batches in (whole, judged))
    for ours, expected in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(("score", "dims", "pooled"), [
    # Of two examples' g: (1, -3, 2), (1, 3, 0); and (0, 1, 4), (0, 1, 0).
    ("taylor", (1, 3, 1), (0, 1, 2)), ("fisher", (1, 9, 2), (0, 1, 8))])
def test_scores_by_hand(monkeypatch, score, dims, pooled):
    found = (np.array([[1.0, -3, 2], [1, 3, 0]]), np.array([[0.0, 1, 4], [0, 1, 0]]))
    monkeypatch.setattr(hidden_width, "mask_gradients", lambda *_: found)
    scores = hidden_width.scores(None, score, train=object())
    for ours, expected in zip(scores, (dims, pooled), strict=True):
        np.testing.assert_allclose(ours, expected)


def test_gradients_need_batches():
    with pytest.raises(ValueError, match="'taylor' needs batches. Received: train=Non"):
        hidden_width.scores(None, "taylor")


def test_magnitudes_are_of_the_rows_that_read():
    model = fresh(UNEVEN)
    rows = [model.get_layer(name).kernel.numpy() for name in (
        "layer_0_query", "layer_0_key", "layer_0_value", "layer_1_intermediate",
        "pooler")]
    dims, pooled = hidden_width.scores(model, "magnitude")
    np.testing.assert_allclose(dims, (np.hstack(rows) ** 2).sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(
        pooled, (model.get_layer("classifier").kernel.numpy() ** 2).sum(axis=1),
        rtol=1e-5)


@pytest.mark.parametrize("score", hidden_width.WIDTH_SCORES)
def test_what_stays_scores_highest(batches, score):
    model = fresh(CONFIG)
    step = dataclasses.replace(CUT, score=score)
    for kept, own in zip(step.choose(model, batches),
                         hidden_width.scores(model, score, batches, 48), strict=True):
        assert list(kept) == sorted(set(kept)) and len(kept) == 6
        gone = sorted(set(range(12)) - set(kept))
        assert own[list(kept)].min() > own[gone].max()


@pytest.mark.parametrize("config", [CONFIG, UNEVEN])
def test_every_weight_is_sliced_where_it_is_as_wide_as_the_stream(config):
    model = fresh(config)
    small = hidden_width.narrow(model, KEPT, POOLED)
    kept, pooled = list(KEPT), list(POOLED)
    seen = set()
    for layer in small.layers:
        given = model.get_layer(layer.name).get_weights()
        if not given or "dropout" in layer.name:
            continue
        role = layer.name.split("_", 2)[2] if "layer_" in layer.name else layer.name
        seen.add(role)
        if "embedding" in role and "norm" not in role:
            expected = [given[0][:, kept]]
        elif "norm" in role:
            expected = [given[0][kept], given[1][kept]]
        elif role in ("query", "key", "value", "intermediate"):
            expected = [given[0][kept], given[1]]
        elif role in ("attention_output", "ffn_output"):
            expected = [given[0][:, kept], given[1][kept]]
        elif role == "pooler":
            expected = [given[0][np.ix_(kept, pooled)], given[1][pooled]]
        else:
            assert role == "classifier"
            expected = [given[0][pooled], given[1]]
        for ours, theirs in zip(layer.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert len(seen) == 14
    assert models.config_of(small) == models.config_of(model).replace(hidden_size=6)
    assert not {id(w) for w in small.weights} & {id(w) for w in model.weights}


def doubled(model, share: float) -> keras.Model:
    """A model twice as wide whose dimensions come in pairs: one computes as the other.

    Args:
        model: what it computes.
        share: of the kernel rows that read the first of a pair; the other has the rest.
    """
    config = models.config_of(model)
    wide = models.build(config.replace(hidden_size=2 * config.hidden_size), HEAD)
    pair = np.repeat(np.arange(config.hidden_size), 2)
    shares = np.tile([share, 1 - share], config.hidden_size)[:, None]
    for layer in wide.layers:
        given = model.get_layer(layer.name).get_weights()
        if layer.name.endswith(("query", "key", "value", "intermediate", "pooler",
                                "classifier")):
            given[0] = given[0][pair] * shares
        weights = []
        for weight, wider in zip(given, layer.get_weights(), strict=True):
            for axis, size in enumerate(wider.shape):
                weight = weight if weight.shape[axis] == size else np.take(
                    weight, pair, axis)
            weights.append(weight)
        layer.set_weights(weights)
    return wide


@pytest.mark.parametrize("config", [CONFIG, UNEVEN])
def test_without_dimensions_that_say_nothing_new_it_computes_the_same(config):
    model = fresh(config)
    wide = doubled(model, share=1.0)
    np.testing.assert_allclose(wide(inputs()), model(inputs()), atol=1e-5)
    firsts = range(0, 24, 2)
    small = hidden_width.narrow(wide, firsts, firsts)
    np.testing.assert_allclose(small(inputs()), model(inputs()), atol=1e-5)


@pytest.mark.parametrize("config", [CONFIG, UNEVEN])
def test_least_squares_make_up_for_what_others_repeat(config, texts):
    model = fresh(config)
    wide = doubled(model, share=0.3)
    # The classifier is not fitted: of the pooler, those stay that it reads.
    classifier = wide.get_layer("classifier")
    classifier.set_weights([np.repeat(model.get_layer("classifier").get_weights()[0], 2,
                                      axis=0) * np.tile([1.0, 0.0], 12)[:, None],
                            classifier.get_weights()[1]])
    firsts = list(range(0, 24, 2))
    small = hidden_width.narrow(wide, firsts, firsts)
    sliced = distance(small, wide, texts[1])
    hidden_width.reconstruct(wide, small, firsts, texts[0], 32)
    assert sliced > 0.05
    assert distance(small, wide, texts[1]) < 0.05 * sliced
    # What writes to the stream stays as it was.
    for name in ("embedding_norm", "layer_0_ffn_norm", "layer_1_ffn_norm"):
        for ours, theirs in zip(small.get_layer(name).get_weights(),
                                model.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_only_visible_tokens_are_fitted_to(tiny_examples):
    model = fresh(CONFIG)
    found = []
    for pad_to in (16, 40):
        small = hidden_width.narrow(model, KEPT, POOLED)
        padded = data.Batches(tiny_examples[0], batch_size=16, pad_to=pad_to)
        hidden_width.reconstruct(model, small, POOLED, padded, 48)
        found.append(small)
    for ours, theirs in zip(found[0].get_weights(), found[1].get_weights(),
                            strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_the_pass_cuts_fits_and_tells(batches):
    before = fresh(CONFIG)
    cut, fitted = (run(before, step, train=batches) for step in (CUT, UNTRAINED))
    expected = hidden_width.narrow(before, *CUT.choose(before, batches))
    for ours, theirs in zip(cut.model.get_weights(), expected.get_weights(),
                            strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert distance(fitted.model, before, batches) < 0.7 * distance(
        cut.model, before, batches)
    assert cut.notes == ("of the residual stream, 6 of 12 dimensions stay",)
    assert set(cut.touched) == {layer.name for layer in before.layers
                                if layer.weights and "dropout" not in layer.name}
    assert models.config_of(cut.model) == CONFIG.replace(hidden_size=6)


@pytest.mark.parametrize(("fields", "width"), [
    ({"keep": 0.5, "multiple": 1}, 6), ({"keep": 0.99, "multiple": 1}, 11),
    ({"keep": 0.9, "multiple": 4}, 8), ({"keep": 0.34, "multiple": 4}, 4),
    ({"width": 8, "multiple": 4}, 8)])
def test_a_part_is_rounded_down_to_a_multiple(fields, width):
    kept, pooled = HiddenWidth(score="magnitude", **fields).choose(fresh(CONFIG))
    assert len(kept) == len(pooled) == width


@pytest.mark.parametrize(("epochs", "expected"), [(None, [5]), (2, [2]), (0, [])])
def test_epochs_are_its_own_or_the_settings(batches, monkeypatch, epochs, expected):
    seen = []
    monkeypatch.setattr(loop, "fit", lambda *given, **_: seen.append(given[3].epochs))
    step = dataclasses.replace(CUT, score="magnitude", epochs=epochs)
    run(models.build(CONFIG, HEAD), step, train=batches, settings=Settings(epochs=5))
    assert seen == expected


def test_training_from_a_wider_teacher_recovers(tiny_batches):
    before = fresh(CONFIG.replace(
        num_heads=(2,), intermediate_sizes=(10,), hidden_dropout=0.0,
        attention_dropout=0.0))
    step = dataclasses.replace(CUT, score="magnitude")
    given = {"train": tiny_batches, "settings": Settings(learning_rate=1e-2)}
    cut = run(before, step, **given).model
    taught = run(before, dataclasses.replace(step, epochs=20), teacher=before, **given,
                 distillation=Distillation(hard_weight=0.0, hidden_weight=0.1)).model
    assert models.config_of(taught).hidden_size == 6
    assert distance(taught, before, tiny_batches) < 0.6 * distance(
        cut, before, tiny_batches)


def test_saved_exported_and_narrowed_again(batches, tmp_path):
    small = run(fresh(CONFIG), UNTRAINED, train=batches).model
    models.save(small, tmp_path / "keras")
    loaded = models.load(tmp_path / "keras")
    example = inputs(batch=1)
    example["attention_mask"][:] = 1
    expected = small(example)[0].numpy()
    np.testing.assert_allclose(loaded(example)[0], expected, atol=1e-6)
    for scheme, tolerance in (("float32", 1e-4), ("dynamic_wi8_afp32", 0.1)):
        file = tmp_path / f"{scheme}.tflite"
        file.write_bytes(tflite.convert(small, scheme))
        runner = interpreter.Interpreter(file, num_threads=2)
        np.testing.assert_allclose(runner.run(example["input_ids"][0], 9), expected,
                                   atol=tolerance)
    again = run(loaded, dataclasses.replace(CUT, width=4), train=batches).model
    assert models.config_of(again) == CONFIG.replace(hidden_size=4)


@pytest.mark.parametrize(("fields", "received"), [
    ({}, "width=None, keep=None"),
    ({"width": 32, "keep": 0.5}, "width=32, keep=0.5"),
    ({"width": 0}, "width=0, multiple=32"),
    ({"width": 40}, "width=40, multiple=32"),
    ({"keep": 0.0}, "keep=0.0"), ({"keep": 1.0}, "keep=1.0"),
    ({"keep": 0.5, "multiple": 0}, "multiple=0"),
    ({"keep": 0.5, "score": "hessian"}, "score='hessian'"),
    ({"keep": 0.5, "examples": 0}, "examples=0"),
    ({"keep": 0.5, "epochs": -1}, "epochs=-1"),
])
def test_fields_that_make_no_sense_are_refused(fields, received):
    with pytest.raises(ValueError) as error:
        HiddenWidth(**fields)
    assert str(error.value).endswith(f"Received: {received}")


@pytest.mark.parametrize(("fields", "received"), [
    ({"width": 12, "multiple": 4}, "width=12, keep=None"),
    ({"width": 32}, "width=32, keep=None"),
    ({"keep": 0.3, "multiple": 4}, "width=None, keep=0.3")])
def test_the_model_must_be_wider_and_a_multiple_left(batches, fields, received):
    with pytest.raises(ValueError,
                       match=f"the model's width of 12. Received: {received}$"):
        run(models.build(CONFIG, HEAD), HiddenWidth(epochs=0, **fields), train=batches)


@pytest.mark.parametrize("score", ["fisher", "magnitude"])
def test_a_model_of_other_layers_is_refused(batches, score):
    step = dataclasses.replace(UNTRAINED, score=score)
    thin = LowRank(rank=2).apply(models.build(CONFIG, HEAD), Context()).model
    with pytest.raises(ValueError, match="Received: layer_0_query of type LowRankDen"):
        run(thin, step, train=batches)
    entry = keras.Input([4])
    with pytest.raises(ValueError, match="encoder made by tfopt. Received: "):
        run(keras.Model(entry, keras.layers.Dense(2)(entry)), step, train=batches)
