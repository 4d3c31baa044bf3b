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
from tfopt.compress.base import Pass
from tfopt.export import interpreter, tflite
from tfopt.measure import cost
from tfopt.train import Distillation, Settings, callbacks, loop
from tfopt.train.distill import losses
from tfopt.train.distribute import strategy

# With all the parts that one family or another has (`tests/model` has those without).
CONFIG = models.EncoderConfig.uniform(
    hidden_size=32, num_layers=1, num_heads=4, intermediate_size=64, vocab_size=103,
    max_positions=64, initializer_range=0.2, embedding_size=16, relative_buckets=32)
LAYERS = {"student": 2}  # where one is too few
HEAD = models.Head(outputs=3)
NO_DROPOUT = {"hidden_dropout": 0.0, "attention_dropout": 0.0}

PASSES = compress.all_passes()


def training_example(kind: type[Pass]) -> Pass | None:
    """The example as one that trains for as long as the settings say, if it can."""
    example = kind.example()
    if hasattr(example, "epochs"):
        example = dataclasses.replace(example, epochs=None)
    return example if example.trains else None


TRAINING = [name for name, kind in PASSES.items() if training_example(kind)]
# Those that serve a `model.fit` of one's own, and those whose work takes steps.
BY_HAND = [name for name, kind in PASSES.items() if kind.wrap is not Pass.wrap]
TAKES_STEPS = [name for name in BY_HAND if PASSES[name].example().first_valid_step()]

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


def build(kind: type[Pass], seed: int = 1, **fields) -> keras.Model:
    """A tiny BERT that the pass's example can work on."""
    layers = LAYERS.get(kind.name(), 1)
    config = CONFIG.replace(num_heads=CONFIG.num_heads * layers, **fields,
                            intermediate_sizes=CONFIG.intermediate_sizes * layers)
    return models.build(config, HEAD.replace(dropout=fields.get("hidden_dropout", 0.1)),
                        seed=seed)


def needed(kind, context) -> Context:
    """The context, without dev unless a pass needs it: to evaluate is slow to trace."""
    return context if "dev" in kind.needs else dataclasses.replace(context, dev=None)


@pytest.fixture(scope="module")
def applied(kind, context):
    """The pass's example, run once: (the model it was given, its outcome)."""
    before = build(kind)
    outcome, = compress.run(before, Recipe(passes=(kind.example(),)),
                            needed(kind, context))
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
    model = build(kind)
    for need in kind.needs:
        without = context.replaced({need: None})
        with pytest.raises(ValueError, match=f"needs {need}. Received: "):
            compress.run(model, Recipe(passes=(kind.example(),)), without)


def test_model_in_which_nothing_can_match_is_refused(kind, context):
    entry = keras.Input([4], name="x")
    bare = keras.Model(entry, keras.layers.ReLU(name="nothing_to_do")(entry))
    if kind.name() == "none":
        outcome, = compress.run(bare, Recipe(passes=(kind.example(),)), context)
        assert not outcome.touched
        return
    with pytest.raises(ValueError, match="Received: .*nothing_to_do"):
        compress.run(bare, Recipe(passes=(kind.example(),)), context)


def check_same_weights(model: keras.Model, other: keras.Model) -> None:
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_model_given_is_left_as_it_was(kind, applied):
    before, outcome = applied
    check_same_weights(before, build(kind))
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
    assert claimed
    assert {name: measured[name] for name in claimed} == dict(claimed)


def test_saved_and_loaded_it_computes_the_same(applied, tmp_path):
    model = applied[1].model
    models.save(model, tmp_path)
    loaded = models.load(tmp_path)
    for tokens in (5, 40):
        example = inputs(model, tokens, batch=3)
        np.testing.assert_allclose(loaded(example), model(example), atol=1e-6)
    assert cost.of_model(loaded) == cost.of_model(model)


class Killed(callbacks.SaveRunState):
    """Saves after every step, and ends the process, as it were, after the third."""

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        if int(self.model.optimizer.iterations) == 3:
            raise KeyboardInterrupt


def test_run_again_or_killed_and_resumed_it_gives_the_same_weights(
        kind, applied, context, tmp_path, monkeypatch):
    example, whole = training_example(kind) or kind.example(), applied[1]

    def run(**fields):
        outcome, = compress.run(
            build(kind), Recipe(passes=(example,)),
            dataclasses.replace(needed(kind, context), **fields))
        return outcome

    if example != kind.example():
        whole = run()
    if kind.name() in TRAINING:
        with monkeypatch.context() as patch:
            patch.setattr(loop, "SaveRunState", functools.partial(Killed, every_s=0))
            with pytest.raises(KeyboardInterrupt):
                run(state_dir=tmp_path)
    again = run(state_dir=tmp_path)
    assert again.touched == whole.touched
    check_same_weights(again.model, whole.model)


def test_two_devices_do_what_one_does(kind, context):
    context, outcomes = needed(kind, context), []
    for name in ("one_device", "mirrored"):
        with strategy.make(name).scope():
            before = build(kind, **NO_DROPOUT)
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
        was = before(inputs(before, 20, batch=4)).numpy()
        assert np.linalg.norm(logits[1] - logits[0]) < np.linalg.norm(logits[0] - was)
        # Half of the zeros would be the same by chance; nine tenths are.
        for ours, theirs in zip(one.model.get_weights(), two.model.get_weights(),
                                strict=True):
            if ours.ndim > 1:
                assert np.mean((ours == 0) == (theirs == 0)) > 0.8


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


def divergence(student: keras.Model, teacher: keras.Model, context) -> float:
    return float(np.mean(np.concatenate([
        losses.soft(student(x), teacher(x), 1.0) for x, _ in context.train.dataset()])))


def test_with_a_teacher_it_comes_nearer_to_it(kind, applied, context):
    wide = {"embedding_size": None}  # which learn in two epochs
    teacher = build(kind, seed=7, **wide)
    recipe = Recipe(passes=(training_example(kind) or kind.example(),),
                    distillation=Distillation(hard_weight=0.0))
    own = wide if kind.name() in TRAINING else {}
    outcome, = compress.run(
        build(kind, **own), recipe, dataclasses.replace(
            needed(kind, context), teacher=teacher,
            settings=Settings(epochs=2, learning_rate=3e-3)))
    check_same_weights(teacher, build(kind, seed=7, **wide))
    if kind.name() in TRAINING:
        assert divergence(outcome.model, teacher, context) < 0.5 * divergence(
            applied[1].model, teacher, context)
        return
    check_same_weights(outcome.model, applied[1].model)


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand_it_does_the_same(name, context):
    before = build(PASSES[name])
    step = PASSES[name].example().resolve(context)
    wrapped = step.wrap(before)
    wrapped.compile(keras.optimizers.Adam(1e-3),
                    keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    wrapped.fit(context.train.dataset(), callbacks=step.callbacks(), verbose=0)
    after = step.strip(wrapped)
    assert signature(after) == signature(before)
    assert [layer.name for layer in after.layers] == [
        layer.name for layer in before.layers]
    outcome, measured = step.outcome(before, after), cost.of_model(after)
    assert outcome.touched
    assert {name: measured[name] for name in outcome.figures} == outcome.figures
    assert np.abs(after(inputs(after, 9)) - before(inputs(before, 9))).max() > 1e-3


@pytest.mark.parametrize("name", TAKES_STEPS)
def test_strip_refuses_what_was_not_done(name):
    step = PASSES[name].example()
    with pytest.raises(ValueError, match=r"`callbacks\(\)`.*Received: "):
        step.strip(step.wrap(build(PASSES[name])))


def test_the_passes_that_train_are_known():
    assert {"magnitude", "movement", "taylor", "fisher", "quantization_aware",
            "structured", "student", "hidden_width", "retrain"} == set(TRAINING)
    assert set(BY_HAND) < set(TRAINING) and TAKES_STEPS
