"""Recipes: as JSON, their order, and what a run checks of each pass."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from tfopt import compress, data
from tfopt.backend import keras, tf
from tfopt.compress import Context, Outcome, Pass, Recipe, Stage, facts
from tfopt.compress.passes.magnitude import Magnitude
from tfopt.compress.passes.none import Identity
from tfopt.compress.passes.truncate import Truncate
from tfopt.measure import cost
from tfopt.model.layers import Dropout
from tfopt.train import Distillation, Settings, callbacks, loop
from tfopt.types import INPUT_NAMES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale(Pass):
    """Multiplies every weight, in place."""

    factor: float = 2.0

    stage = Stage.WEIGHTS

    def apply(self, model, context):
        model.set_weights([w * self.factor for w in model.get_weights()])
        return Outcome(model=model, touched=("only",), figures={"nonzeros": -1.0})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reshape(Pass):
    """A pass of the first stage, which returns the model as it is told to."""

    build: object = None
    touched: tuple[str, ...] = ("only",)

    stage = Stage.SHAPE

    def apply(self, model, context):
        return Outcome(model=self.build() if self.build else model,
                       touched=self.touched)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Note(Pass):
    """Notes the context it is given."""

    seen: list

    stage = Stage.NUMERICS
    needs = ("dev",)

    def apply(self, model, context):
        self.seen.append(context)
        return Outcome(model=model, touched=("only",))


def dense(units=2, width=3, name="x", dtype=None) -> keras.Model:
    inputs = keras.Input([width], name=name, dtype=dtype)
    layer = keras.layers.Dense(units, kernel_initializer="ones", name="only")
    return keras.Model(inputs, layer(tf.cast(inputs, tf.float32)))


def run(model, *passes, **options):
    return compress.run(model, Recipe(passes=passes), Context(**options))


def test_json_gives_the_recipe_back():
    recipe = Recipe(passes=(Identity(), Truncate(threshold=0.5, leave=("query",)),
                            Magnitude(final_sparsity=0.6, sparsities={"key": 0.1})),
                    exports=("float16",))
    assert Recipe.from_json(recipe.to_json()) == recipe
    written = json.loads(recipe.to_json())
    assert written["exports"] == ["float16"]
    assert written["passes"][:2] == [
        {"pass": "none"}, {"pass": "truncate", "threshold": 0.5, "deviations": None,
                           "only": [], "leave": ["query"]}]
    assert written["passes"][2]["sparsities"] == {"key": 0.1}
    assert set(written) == {"passes", "exports"}


def test_json_gives_the_distillation_back():
    recipe = Recipe(passes=(Identity(),), distillation=Distillation(
        hidden_weight=0.25, layers="nearest", relation_heads=4,
        relations=(("query", "key"), ("value", "value"))))
    assert Recipe.from_json(recipe.to_json()) == recipe
    written = json.loads(recipe.to_json())["distillation"]
    assert written["hidden_weight"] == 0.25
    assert written["relations"] == [["query", "key"], ["value", "value"]]


@pytest.mark.parametrize(("given", "expected"), [
    ("{}", Distillation()), ("null", None),
    ('{"temperature": 4, "soft_weight": 0, "hidden_weight": 1}',
     Distillation(temperature=4, soft_weight=0, hidden_weight=1))])
def test_fields_of_a_distillation_left_out_have_their_defaults(given, expected):
    recipe = Recipe.from_json(
        f'{{"passes": [{{"pass": "none"}}], "distillation": {given}}}')
    assert recipe.distillation == expected


def test_fields_and_exports_left_out_have_their_defaults():
    recipe = Recipe.from_json(
        '{"passes": [{"pass": "magnitude", "final_sparsity": 0.3}]}')
    assert recipe.passes == (Magnitude(final_sparsity=0.3),)
    assert recipe.exports == ("float32", "dynamic_wi8_afp32")


@pytest.mark.parametrize("text,message", [
    ("{", "must be a JSON object"),
    ("[]", "a JSON object of 'passes', 'exports' and 'distillation'"),
    ('{"passes": [{"pass": "none"}], "export": []}', "of 'passes', 'exports' and"),
    ("{}", "'passes' must be a list of objects"),
    ('{"passes": {"pass": "none"}}', "'passes' must be a list of objects"),
    ('{"passes": ["none"]}', "'passes' must be a list of objects"),
    ('{"passes": []}', "at least one pass"),
    ('{"passes": [{"pass": "none"}], "exports": []}', "one export"),
    ('{"passes": [{"pass": "none"}], "exports": "float32"}',
     "'exports' must be a list of names.*Received: exports='float32'"),
    ('{"passes": [{"pass": "none"}], "exports": 3}', "'exports' must be a list of na"),
    ('{"passes": [{"pass": "none"}], "exports": [3]}', "'exports' must be a list of "),
    ('{"passes": [{"pass": "magnitud"}]}', "one of .*'magnitude'.*pass='magnitud'$"),
    ('{"passes": [{}]}', "Received: pass=None$"),
    ('{"passes": [{"pass": ["none"]}]}', r"Received: pass=\['none'\]$"),
    ('{"passes": [{"pass": "none", "depth": 3}]}', "Received: depth=3$"),
    ('{"passes": [{"pass": "magnitude"}]}', "Received: final_sparsity=None$"),
    ('{"passes": [{"pass": "magnitude", "final_sparsity": "half"}]}',
     "`final_sparsity` must be a finite number. Received: final_sparsity='half'$"),
    ('{"passes": [{"pass": "magnitude", "final_sparsity": 2}]}',
     "Received: final_sparsity=2$"),
    *((f'{{"passes": [{{"pass": "none"}}], "distillation": {given}}}', message)
      for given, message in [
          ("true", "'distillation' must be an object. Received: distillation=True$"),
          ("[]", r"must be an object. Received: distillation=\[\]$"),
          ('{"weight": 1, "heat": 2}',
           "has the fields .*'hidden_weight'.*Received: heat=2, weight=1$"),
          ('{"temperature": 0}', "Received: temperature=0$"),
          ('{"temperature": "hot"}', "a finite number. Received: temperature='hot'$"),
          ('{"soft_weight": 0}', "Received: soft_weight=0, hidden_weight=0.0, "),
          ('{"layers": ["even"]}', r"Received: layers=\['even'\]$"),
          ('{"relations": 3}', "Received: relations=3$"),
          ('{"relations": [["query"]]}', r"Received: relations=\(\('query',\),\)$"),
      ]),
])
def test_wrong_recipe_file_is_named_with_the_rule(tmp_path, text, message):
    file = tmp_path / "mine.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        Recipe.load(file)
    assert str(error.value).startswith(f"{file}: ")
    assert "Received: " in str(error.value)


def test_missing_recipe_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="none_such.json: .*No such file"):
        Recipe.load(tmp_path / "none_such.json")


def test_recipe_file_is_loaded(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text('{"passes": [{"pass": "none"}], "exports": ["float32"]}')
    assert Recipe.load(file) == Recipe(passes=(Identity(),), exports=("float32",))


def test_stages_must_not_go_back():
    with pytest.raises(ValueError, match=r"Received: test_recipe \(WEIGHTS\), "
                                         r"test_recipe \(SHAPE\)$"):
        Recipe(passes=(Scale(), Reshape()))
    assert len(Recipe(passes=(Reshape(), Reshape(), Scale(), Scale())).passes) == 4


def test_each_pass_starts_from_what_the_one_before_left():
    model = dense()
    first, second = run(model, Scale(factor=3.0), Scale(factor=5.0))
    np.testing.assert_array_equal(first.model.get_weights()[0], np.full([3, 2], 3.0))
    np.testing.assert_array_equal(second.model.get_weights()[0], np.full([3, 2], 15.0))
    np.testing.assert_array_equal(model.get_weights()[0], np.ones([3, 2]))


def test_missing_need_is_found_before_any_pass_runs():
    seen = []
    with pytest.raises(ValueError, match="'test_recipe' needs dev. Received: "):
        run(dense(), Note(seen=seen), Note(seen=seen))
    assert not seen


def test_a_recipe_that_distils_says_what_is_learned():
    seen, teacher = [], dense()
    own, others = Distillation(temperature=3.0), Distillation(hidden_weight=1.0)
    given = Context(dev=object(), teacher=teacher, distillation=others)
    for distillation, expected in ((own, own), (None, others)):
        recipe = Recipe(passes=(Note(seen=seen), Note(seen=seen)),
                        distillation=distillation)
        compress.run(dense(), recipe, given)
        assert [context.distillation for context in seen] == [expected] * 2
        assert all(context.teacher is teacher for context in seen)
        seen.clear()


@pytest.mark.parametrize(("options", "message"), [
    ({}, "needs a teacher in the context. Received: teacher=None$"),
    ({"teacher": dense(), "teacher_logits_dir": "logits"},
     "a teacher is its logits alone.*Received: hidden_weight=1.0"),
])
def test_a_context_that_cannot_distil_is_told_before_any_pass_runs(options, message):
    seen = []
    recipe = Recipe(passes=(Note(seen=seen),),
                    distillation=Distillation(hidden_weight=1.0))
    context = Context(dev=object(), **options)
    for refused in (lambda: compress.check(recipe, context),
                    lambda: compress.run(dense(), recipe, context)):
        with pytest.raises(ValueError, match=message):
            refused()
    assert not seen


def test_each_pass_has_directories_of_its_own(tmp_path):
    seen, dev = [], object()
    run(dense(), Note(seen=seen), Note(seen=seen), dev=dev, state_dir=tmp_path / "s",
        log_dir=tmp_path / "l")
    assert [(context.state_dir, context.log_dir) for context in seen] == [
        (tmp_path / "s" / label, tmp_path / "l" / label)
        for label in ("0_test_recipe", "1_test_recipe")]
    assert seen[0].dev is dev
    run(dense(), Note(seen=seen), dev=dev)
    assert (seen[-1].state_dir, seen[-1].log_dir) == (None, None)


def test_pass_that_touched_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"matched no layer. Received: layers \['x'"):
        run(dense(), Reshape(touched=()))


@pytest.mark.parametrize("other", [
    {"units": 3}, {"width": 4}, {"name": "y"}, {"dtype": "int32"}])
def test_pass_that_changes_the_signature_is_an_error(other):
    with pytest.raises(ValueError, match="keep the model's inputs and output"):
        run(dense(), Reshape(build=lambda: dense(**other)))
    run(dense(), Reshape(build=dense))  # another model, but of the same signature


def test_measured_figures_replace_the_claimed_ones():
    recipe = Recipe(passes=(Scale(),))
    claimed, = compress.run(dense(), recipe, Context())
    assert claimed.figures == {"nonzeros": -1.0}
    measured, = compress.run(dense(), recipe, Context(), cost.of_model)
    assert measured.figures == {"parameters": 8.0, "nonzeros": 6.0, "bits": 256.0}
    assert measured.touched == ("only",)


class Killer(callbacks.SaveRunState):
    """Saves each step; ends the process, so to speak, right after some step."""

    kill_at = None

    def __init__(self, progress):
        super().__init__(progress, every_s=0)
        self._run = progress

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        if self._run.step == self.kill_at:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def prune(tiny_examples):
    """Runs a recipe of magnitude pruning from the same start: state_dir -> model."""
    train = data.Batches(*tiny_examples, batch_size=8, shuffle_seed=0)
    inputs = {name: keras.Input([None], dtype="int32", name=name)
              for name in INPUT_NAMES}
    x = keras.layers.Embedding(103, 8)(inputs["input_ids"])
    x = Dropout(0.5)(keras.layers.GlobalAveragePooling1D()(x))
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(
        keras.layers.Dense(6, "relu", name="hidden")(x)))

    def result(state_dir=None):
        outcome, = run(model, Magnitude(final_sparsity=0.5, end_step=9, frequency=3),
                       train=train, dev=train, state_dir=state_dir,
                       settings=Settings(epochs=3, learning_rate=1e-2))
        return outcome.model

    return result


@pytest.fixture(scope="module")
def unbroken(prune):
    return prune().get_weights()


@pytest.mark.parametrize("step", [
    5,  # while the ramp rises
    14,
])
def test_killed_pruning_goes_on_to_the_same_weights(
        tmp_path, monkeypatch, prune, unbroken, step):
    monkeypatch.setattr(loop, "SaveRunState", Killer)
    monkeypatch.setattr(Killer, "kill_at", step)
    with pytest.raises(KeyboardInterrupt):
        prune(tmp_path)
    monkeypatch.setattr(Killer, "kill_at", None)
    resumed = prune(tmp_path)
    for ours, expected in zip(resumed.get_weights(), unbroken, strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert np.mean(resumed.get_layer("hidden").get_weights()[0] == 0) == 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found(Pass):
    """Leaves facts, of which it draws, and something for the passes after it."""

    keep: float | None = None
    count: int | None = 3

    stage = Stage.SHAPE
    needs = ("words",)
    provides = ("words",)
    overrides = ("keep", "count")
    facts_file = "found.json"
    draws = {"found.png": lambda facts: bytes(facts["count"]),
             "none.png": lambda facts: None}

    def apply(self, model, context):
        words = context.get("words")
        return Outcome(model=model, touched=("only",), facts={"count": len(words)},
                       provides={"words": words[1:]})


def test_resources_reach_the_passes_that_need_them(tmp_path):
    context = Context(resources={"words": "abc"})
    outcomes = compress.run(dense(), Recipe(passes=(Found(), Found())), context)
    assert [outcome.facts["count"] for outcome in outcomes] == [3, 2]
    assert outcomes[-1].provides == {"words": "c"}
    with pytest.raises(ValueError, match="'test_recipe' needs words. Received: "):
        compress.check(Recipe(passes=(Found(),)), Context())
    changed = context.replaced({"words": "d", "dev": "e"})
    assert (changed.get("words"), changed.dev, changed.get("dev")) == ("d", "e", "e")
    assert (context.get("words"), context.get("dev")) == ("abc", None)


def test_facts_lie_beside_the_model_and_are_drawn(tmp_path):
    passes = (Identity(), Found())
    assert facts.pictures(passes, tmp_path) == {}
    context = Context(resources={"words": "abc"})
    facts.write(passes, compress.run(dense(), Recipe(passes=passes), context), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]
    assert facts.pictures(passes, tmp_path) == {"found.png": bytes(3)}


def test_a_target_is_set_from_outside_in_place_of_the_others():
    recipe = Recipe(passes=(Identity(), Found()))
    assert recipe.overriding({}) is recipe
    found = recipe.overriding({"keep": 0.5}).passes[1]
    assert found == Found(keep=0.5)
    assert Recipe(passes=(Found(keep=0.5),)).overriding({"count": 4}).passes == (
        Found(count=4),)
    for wrong in ({"keep": 0.5, "count": 1}, {"steps": 3}):
        with pytest.raises(ValueError, match="One target.*Received: {.*'none', "):
            recipe.overriding(wrong)
    with pytest.raises(ValueError, match="One target"):
        Recipe(passes=(Found(), Found())).overriding({"keep": 0.5})
