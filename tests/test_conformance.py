"""What every pass must keep, whichever it is; a new pass is tested by being there."""

from __future__ import annotations

import dataclasses
import functools
import json

import numpy as np
import pytest

from tfopt import compress, data
from tfopt import model as models
from tfopt.backend import keras
from tfopt.compress import Context, Recipe, Stage
from tfopt.export import interpreter, tflite
from tfopt.measure import cost
from tfopt.train import Settings
from tfopt.train.distribute import strategy

CONFIG = models.EncoderConfig.uniform(
    hidden_size=32, num_layers=2, num_heads=4, intermediate_size=64, vocab_size=103,
    max_positions=64, initializer_range=0.2)
HEAD = models.Head(outputs=3)
NO_DROPOUT = CONFIG.replace(hidden_dropout=0.0, attention_dropout=0.0)

PASSES = compress.all_passes()

# Largest |logit of LiteRT - logit of Keras|, where logits are some tenths apart.
FLOAT32_TOLERANCE = 1e-4
# Int8 weights and activations err by up to 1/254 of their range in each of some
# dozen matrix products: 0.02 was measured.
INT8_TOLERANCE = 0.05


class Tokenizer:
    """One that can do without all ids but the first five."""

    def __init__(self, rows=range(CONFIG.vocab_size)):
        self.rows = list(rows)

    def removable(self):
        return dict.fromkeys(range(5, len(self.rows)), 1)

    def keeping(self, rows):
        return Tokenizer([self.rows[row] for row in rows])


@pytest.fixture(scope="module", params=sorted(PASSES))
def kind(request) -> type[compress.Pass]:
    """A pass's class."""
    return PASSES[request.param]


@pytest.fixture(scope="module")
def context(tiny_examples) -> Context:
    """All that a pass may need."""
    train = data.Batches(*tiny_examples, batch_size=8, shuffle_seed=0)
    return Context(train=train, dev=data.Batches(*tiny_examples, batch_size=16),
                   settings=Settings(epochs=1, learning_rate=1e-3),
                   resources={"tokenizer": Tokenizer()})


@pytest.fixture(scope="module")
def applied(kind, context):
    """The pass's example, run once: (the model it was given, its outcome)."""
    before = models.build(CONFIG, HEAD, seed=1)
    outcome, = compress.run(before, Recipe(passes=(kind.example(),)), context)
    return before, outcome


@pytest.fixture(scope="module")
def exported(applied, tmp_path_factory):
    """Scheme -> the LiteRT runner of the compressed model."""
    @functools.cache
    def export(scheme):
        file = tmp_path_factory.mktemp("export") / "model.tflite"
        file.write_bytes(tflite.convert(applied[1].model, scheme))
        return interpreter.Interpreter(file, num_threads=2)

    return export


def inputs(model: keras.Model, tokens: int, batch: int = 1) -> dict[str, np.ndarray]:
    """Examples of one length, the last third of them the second segment."""
    ids = np.random.default_rng(tokens).integers(
        4, models.config_of(model).vocab_size, [batch, tokens])
    segments = np.broadcast_to(np.arange(tokens) >= tokens - tokens // 3, ids.shape)
    return {"input_ids": ids.astype(np.int32),
            "attention_mask": np.ones([batch, tokens], np.int32),
            "token_type_ids": segments.astype(np.int32)}


def signature(model: keras.Model) -> dict:
    return {tensor.name: (tensor.shape.as_list(), tensor.dtype)
            for tensor in model.inputs} | {"output": model.output.shape.as_list()}


def test_it_is_a_frozen_keyword_only_dataclass(kind):
    assert dataclasses.is_dataclass(kind)
    assert all(field.kw_only for field in dataclasses.fields(kind))
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind.example().some_field = 1


def test_it_tells_its_stage_and_needs(kind, context):
    assert isinstance(kind.stage, Stage)
    assert all(context.get(need) is not None for need in kind.needs)
    assert set(kind.overrides) <= {field.name for field in dataclasses.fields(kind)}


def test_json_gives_it_back(kind):
    example = kind.example()
    text = json.dumps(example.to_fields())
    assert compress.from_fields(json.loads(text)) == example
    assert json.loads(text)["pass"] == kind.name() == kind.__module__.split(".")[-1]


def test_unknown_field_is_refused(kind):
    with pytest.raises(ValueError, match="Received: no_such_field=1$"):
        compress.from_fields({**kind.example().to_fields(), "no_such_field": 1})


def test_each_missing_need_is_refused(kind, context):
    model = models.build(CONFIG, HEAD)
    for need in kind.needs:
        without = context.replaced({need: None})
        with pytest.raises(ValueError, match=f"needs {need}. Received: "):
            compress.run(model, Recipe(passes=(kind.example(),)), without)


def test_model_in_which_nothing_can_match_is_refused_or_left_as_it_is(kind, context):
    entry = keras.Input([4], name="x")
    bare = keras.Model(entry, keras.layers.ReLU()(entry))
    try:
        outcome, = compress.run(bare, Recipe(passes=(kind.example(),)), context)
    except ValueError as error:
        assert "Received: " in str(error)
    else:
        assert set(outcome.touched) <= {layer.name for layer in bare.layers}
        np.testing.assert_array_equal(outcome.model(np.eye(4) - 0.5),
                                      bare(np.eye(4) - 0.5))


def test_model_given_is_left_as_it_was(applied):
    before, outcome = applied
    for now, then in zip(before.get_weights(), models.build(CONFIG, HEAD, seed=1)
                         .get_weights(), strict=True):
        np.testing.assert_array_equal(now, then)
    own = {id(weight) for weight in before.weights}
    assert not any(id(weight) in own for weight in outcome.model.weights)


def test_inputs_and_output_are_kept(applied):
    before, outcome = applied
    assert signature(outcome.model) == signature(before)
    assert outcome.model(inputs(outcome.model, 9, batch=2)).shape == [2, 3]
    assert np.all(np.isfinite(outcome.model(inputs(outcome.model, 64))))


def test_touched_and_skipped_are_layers_and_disjoint(kind, applied):
    before, outcome = applied
    names = {layer.name for layer in before.layers}
    assert outcome.touched or kind.may_touch_nothing
    assert set(outcome.touched) <= names and set(outcome.skipped) <= names
    assert not set(outcome.touched) & set(outcome.skipped)
    assert all(isinstance(why, str) and why for why in outcome.skipped.values())


def test_claimed_figures_are_the_measured_ones(applied):
    measured = cost.of_model(applied[1].model)
    claimed = applied[1].figures
    assert {name: measured[name] for name in claimed} == dict(claimed)


def test_saved_and_loaded_it_computes_the_same(applied, tmp_path):
    model = applied[1].model
    models.save(model, tmp_path)
    loaded = models.load(tmp_path)
    for tokens in (5, 40):
        example = inputs(model, tokens, batch=3)
        np.testing.assert_allclose(loaded(example), model(example), atol=1e-6)
    assert cost.of_model(loaded) == cost.of_model(model)


def test_same_seed_gives_the_same_weights(kind, applied, context):
    again, = compress.run(models.build(CONFIG, HEAD, seed=1),
                          Recipe(passes=(kind.example(),)), context)
    for ours, first in zip(again.model.get_weights(), applied[1].model.get_weights(),
                           strict=True):
        np.testing.assert_array_equal(ours, first)


def test_two_devices_do_what_one_does(kind, context):
    if "dev" not in kind.needs:
        context = dataclasses.replace(context, dev=None)  # evaluation is slow to trace
    outcomes = []
    for name in ("one_device", "mirrored"):
        with strategy.make(name).scope():
            before = models.build(NO_DROPOUT, HEAD.replace(dropout=0.0), seed=1)
        outcome, = compress.run(before, Recipe(passes=(kind.example(),)), context,
                                cost.of_model)
        outcomes.append(outcome)
    one, two = outcomes
    assert before.distribute_strategy.num_replicas_in_sync == 2
    assert two.figures == one.figures
    assert two.touched == one.touched
    logits = [o.model(inputs(o.model, 20, batch=4)).numpy() for o in outcomes]
    if kind.same_on_replicas:
        np.testing.assert_allclose(logits[1], logits[0], atol=1e-3)
    else:
        assert np.all(np.isfinite(logits[1]))


@pytest.mark.parametrize("scheme,tolerance", [("float32", FLOAT32_TOLERANCE),
                                              ("dynamic_wi8_afp32", INT8_TOLERANCE)])
def test_converted_it_computes_the_same(applied, exported, scheme, tolerance):
    model = applied[1].model
    if scheme == "float32":  # which rounds no activations, as a quantized model does
        model = models.plain_copy(model)
    errors, logits = [], []
    for tokens in (1, 7, 20, 64):
        example = inputs(model, tokens)
        expected = model(example)[0].numpy()
        first_length = int(np.sum(example["token_type_ids"] == 0))
        logits.append(exported(scheme).run(example["input_ids"][0], first_length))
        errors.append(np.abs(logits[-1] - expected).max())
    assert max(errors) <= tolerance
    # Another example's logits would not pass.
    assert np.ptp(logits, axis=0).max() > 3 * tolerance
