"""Structured pruning: targets, steps, training on the way, and what is left behind."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from tfopt import compress, data
from tfopt import model as models
from tfopt.compress import Context, Recipe
from tfopt.compress.costs import Costs, multiplications
from tfopt.compress.passes import structured
from tfopt.compress.passes.low_rank import LowRank
from tfopt.compress.passes.structured import Structured
from tfopt.compress.structure import importance, search
from tfopt.compress.structure.slicing import Kept, cut
from tfopt.export import interpreter, tflite
from tfopt.train import Distillation, Settings, loop

CONFIG = models.EncoderConfig.uniform(
    hidden_size=16, num_layers=2, num_heads=4, intermediate_size=16, vocab_size=103,
    max_positions=64, initializer_range=0.3)
HEAD = models.Head(outputs=3)
UNTRAINED = Structured(keep=0.5, epochs=0, neurons_multiple=4)
QUICK = dataclasses.replace(UNTRAINED, score="magnitude", reconstruct=False)


@pytest.fixture(scope="module")
def before():
    return models.build(CONFIG, HEAD, seed=1)


@pytest.fixture(scope="module")
def shallow():
    """A single layer: to trace its training takes half as long."""
    return models.build(CONFIG.replace(num_heads=(4,), intermediate_sizes=(16,)), HEAD,
                        seed=1)


@pytest.fixture
def batches(tiny_examples):
    return data.Batches(*tiny_examples, batch_size=16, shuffle_seed=0, pad_to=16)


@pytest.fixture
def context(batches):
    return Context(train=batches, settings=Settings(learning_rate=3e-3, epochs=2))


def times(config) -> Costs:
    """A head takes 1 ms, a neuron 0.1 ms, all else 2 ms."""
    def whole(config) -> float:
        assert config.head_size == 4  # a latency table is of one size
        return 2 + sum(config.num_heads) + 0.1 * sum(config.intermediate_sizes)

    whole(config)
    return Costs(
        heads=tuple(np.arange(n + 1.0) for n in config.num_heads),
        neurons=tuple(0.1 * np.arange(n + 1) for n in config.intermediate_sizes),
        whole=whole, unit="ms")


def only(kind):
    """Costs by which units of one kind take 1 ms each, and all else nothing."""
    def costs(config):
        def blocks(counts, counted):
            return tuple(counted * np.arange(n + 1.0) for n in counts)

        return Costs(
            heads=blocks(config.num_heads, kind == "heads"), unit="ms",
            neurons=blocks(config.intermediate_sizes, kind == "neurons"),
            whole=lambda c: float(sum(c.num_heads if kind == "heads"
                                      else c.intermediate_sizes)))
    return costs


WHOLE_MS = times(CONFIG).whole(CONFIG)  # 13.2


def run(before, step, context):
    outcome, = compress.run(before, Recipe(passes=(step,)), context)
    return outcome


def multiplications_of(model) -> float:
    config = models.config_of(model)
    return multiplications(config).whole(config)


def distance(model, whole, batches) -> float:
    return float(np.mean(np.concatenate(
        [(model(x) - whole(x)).numpy() ** 2 for x, _ in batches.dataset()])))


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.8])
def test_a_part_of_the_multiplications_is_kept(before, context, keep):
    outcome = run(before, dataclasses.replace(QUICK, keep=keep), context)
    left = multiplications_of(outcome.model) / multiplications_of(before)
    # The smallest step, of a head or four neurons, is 256 or 128 of 3072.
    assert keep - 256 / 3072 < left <= keep


def sizes(model) -> tuple:
    config = models.config_of(model)
    return config.num_heads, config.intermediate_sizes


@pytest.mark.parametrize(("target", "most_ms"), [
    ({"target_speedup": 2.0}, WHOLE_MS / 2), ({"target_latency_ms": 5.0}, 5.0)])
def test_a_target_of_time_is_met_by_the_costs_given(before, context, target, most_ms):
    step = dataclasses.replace(QUICK, keep=None, **target)
    outcome = run(before, step, context.replaced({"costs": times}))
    left = CONFIG.replace(**dict(zip(("num_heads", "intermediate_sizes"),
                                     sizes(outcome.model), strict=True)))
    assert most_ms - 1 < times(left).whole(left) <= most_ms
    # The same scores, to the same target, without the pass.
    scores = importance.of(before, "magnitude")
    kept = search.search(CONFIG, scores, times(CONFIG), most_ms, neurons_multiple=4)
    assert sizes(outcome.model) == tuple(tuple(map(len, own))
                                         for own in (kept.heads, kept.neurons))


def test_costs_make_a_difference(before, context):
    """Where neurons take no time, heads go, and the other way round."""
    step = dataclasses.replace(QUICK, keep=None, target_speedup=2.0)
    for kind, others in (("heads", 1), ("neurons", 0)):
        outcome = run(before, step, context.replaced({"costs": only(kind)}))
        left = sizes(outcome.model)
        assert left[others] == sizes(before)[others]
        assert sum(left[1 - others]) <= sum(sizes(before)[1 - others]) / 2


def test_without_training_the_model_is_the_cut_one(before, context):
    step = dataclasses.replace(QUICK, score="taylor")
    outcome = run(before, step, context)
    scores = importance.of(before, "taylor", context.train)
    kept = search.search(
        CONFIG, scores, multiplications(CONFIG),
        0.5 * multiplications_of(before), neurons_multiple=4)
    for ours, theirs in zip(outcome.model.get_weights(),
                            cut(before, kept).get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_least_squares_and_training_bring_it_nearer(before, context, batches):
    fitted = run(before, dataclasses.replace(QUICK, reconstruct=True), context).model
    cut_only = run(before, QUICK, context).model
    assert distance(fitted, before, batches) < 0.7 * distance(
        cut_only, before, batches)
    given = dataclasses.replace(context, teacher=before,
                                distillation=Distillation(hard_weight=0.0))
    step = dataclasses.replace(QUICK, epochs=6)
    taught, alone = run(before, step, given).model, run(before, step, context).model
    assert distance(taught, before, batches) < 0.5 * distance(
        cut_only, before, batches)
    assert distance(taught, before, batches) < 0.5 * distance(
        alone, before, batches)


class Log:
    """Stands in for `loop.fit`: what it was called with, and what it trained."""

    def __init__(self, monkeypatch, fails_at=None):
        self.calls = []
        self._fit, self._fails_at = loop.fit, fails_at
        monkeypatch.setattr(loop, "fit", self)

    def __call__(self, model, train, dev, settings, **others):
        if len(self.calls) == self._fails_at:
            raise KeyboardInterrupt
        before = model.get_weights()
        result = self._fit(model, train, dev, settings, **others)
        changed = any(np.any(a != b) for a, b in
                      zip(before, model.get_weights(), strict=True))
        self.calls.append((settings.epochs, multiplications_of(model), changed))
        return result


def test_steps_shrink_by_the_same_factor_and_train_between(shallow, context,
                                                           monkeypatch):
    log = Log(monkeypatch)
    step = dataclasses.replace(QUICK, keep=0.25, steps=2, epochs=None)
    outcome = run(shallow, step, context)
    assert [epochs for epochs, *_ in log.calls] == [1, 2]
    left = [part / multiplications_of(shallow) for _, part, _ in log.calls]
    assert 0.5 - 1 / 6 < left[0] <= 0.5 and 0.25 - 1 / 6 < left[1] <= 0.25
    assert left[1] == multiplications_of(outcome.model) / multiplications_of(shallow)
    assert all(changed for *_, changed in log.calls)


def test_each_step_is_scored_on_what_the_one_before_left(before, context, monkeypatch):
    log = Log(monkeypatch)
    seen, of = [], importance.of
    monkeypatch.setattr(importance, "of",
                        lambda model, *given: seen.append(model) or of(model, *given))
    step = dataclasses.replace(QUICK, keep=0.3, steps=3, step_epochs=0)
    outcome = run(before, step, context)
    assert log.calls == []
    parts = [multiplications_of(model) / multiplications_of(before) for model in seen]
    assert parts[0] == 1
    assert 0.6 < parts[1] <= 0.3 ** (1 / 3) and 0.37 < parts[2] <= 0.3 ** (2 / 3)
    assert multiplications_of(outcome.model) <= 0.3 * multiplications_of(before)


@pytest.mark.parametrize(("epochs", "expected"), [(None, [2]), (1, [1]), (0, [])])
def test_epochs_are_its_own_or_the_settings(shallow, context, monkeypatch, epochs,
                                            expected):
    log = Log(monkeypatch)
    run(shallow, dataclasses.replace(QUICK, epochs=epochs), context)
    assert [own for own, *_ in log.calls] == expected


def test_a_killed_run_goes_on_with_the_same_structure(shallow, context, tmp_path,
                                                      monkeypatch):
    step = dataclasses.replace(UNTRAINED, keep=0.3, steps=2, epochs=1)
    unbroken = run(shallow, step, context)
    resumable = dataclasses.replace(context, state_dir=tmp_path / "state",
                                    log_dir=tmp_path / "logs")
    with monkeypatch.context() as patched:
        Log(patched, fails_at=1)
        with pytest.raises(KeyboardInterrupt):
            run(shallow, step, resumable)
    state = tmp_path / "state" / "0_structured"
    assert sorted(path.name for path in state.iterdir()) == ["cut_1", "cut_2"]
    kept = [json.loads((state / name / "kept.json").read_text())["kept"]
            for name in ("cut_1", "cut_2")]

    with monkeypatch.context() as patched:
        # Were units scored anew, others would be told to go.
        patched.setattr(importance, "of", None)
        resumed = run(shallow, step, resumable)
    assert sizes(resumed.model) == tuple(tuple(map(len, kept[1][name]))
                                         for name in ("heads", "neurons"))
    assert resumed.facts == unbroken.facts
    for ours, theirs in zip(resumed.model.get_weights(), unbroken.model.get_weights(),
                            strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert not list(state.rglob("*.partial"))
    assert sorted(path.name for path in (tmp_path / "logs" / "0_structured").iterdir()
                  ) == ["cut_1", "cut_2"]


def test_the_structure_is_written_before_anything_else_is_done(before, context,
                                                               tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(structured, "cut", killed)
    with pytest.raises(KeyboardInterrupt):
        run(before, QUICK, dataclasses.replace(context, state_dir=tmp_path / "a"))
    record = tmp_path / "a" / "0_structured" / "cut_1" / "kept.json"
    fields = json.loads(record.read_text())["kept"]
    kept = Kept(**{name: tuple(map(tuple, own)) for name, own in fields.items()})
    assert multiplications_of(cut(before, kept)) <= 0.5 * multiplications_of(before)


def test_it_says_what_it_left(before, context):
    step = dataclasses.replace(QUICK, keep=None, target_latency_ms=6.0)
    outcome = run(before, step, context.replaced({"costs": times}))
    left = models.config_of(outcome.model).replace(head_size=4)
    ms = times(left).whole(left)
    heads, neurons = (", ".join(map(str, own)) for own in sizes(outcome.model))
    assert outcome.notes == (
        f"heads left {heads}; neurons left {neurons}; predicted {ms:.4g} ms of 13.2 "
        f"({WHOLE_MS / ms:.2f}x)",)
    for i in range(2):
        for roles, count, whole in (
                (("query", "key", "value", "attention_output"), left.num_heads[i], 4),
                (("intermediate", "ffn_output"), left.intermediate_sizes[i], 16)):
            for role in roles:
                place = outcome.skipped if count == whole else outcome.touched
                assert f"layer_{i}_{role}" in place
    assert len(outcome.touched) + len(outcome.skipped) == 12


@pytest.mark.parametrize("score", ["magnitude", "block_fisher"])
def test_its_details_tell_scores_of_heads_and_what_is_left(before, context, score):
    step = dataclasses.replace(QUICK, keep=None, target_latency_ms=6.0, score=score)
    outcome = run(before, step, context.replaced({"costs": times}))
    facts = outcome.facts
    assert json.loads(json.dumps(facts)) == facts
    scores = importance.of(before, score, context.train)
    kept = search.search(CONFIG, scores, times(CONFIG), 6.0, neurons_multiple=4)
    assert facts["num_heads"] == [4, 4]
    assert facts["intermediate_sizes"] == [16, 16]
    assert facts["heads_kept"] == [list(own) for own in kept.heads]
    assert facts["neurons_kept"] == [len(own) for own in kept.neurons]
    left = models.config_of(outcome.model).replace(head_size=4)
    assert (facts["predicted"], facts["predicted_before"], facts["unit"]) == (
        times(left).whole(left), 13.2, "ms")
    for own, block in zip(facts["head_scores"], scores.heads, strict=True):
        # In the order in which they go, they add up to the loss without them.
        np.testing.assert_allclose(np.cumsum(np.array(own)[list(block.order)]),
                                   block.loss[1:], rtol=1e-6)
        assert min(own) >= 0 and max(own) > 0


def test_details_of_several_cuts_name_heads_as_the_given_model_does(before, context):
    step = dataclasses.replace(QUICK, keep=None, target_speedup=4.0, steps=3,
                               step_epochs=0, empty_blocks=False)
    outcome = run(before, step, context.replaced({"costs": only("heads")}))
    facts = outcome.facts
    assert [len(own) for own in facts["head_scores"]] == [4, 4]
    assert [len(own) for own in facts["heads_kept"]] == [1, 1]
    assert facts["neurons_kept"] == [16, 16]
    assert facts["predicted"] / facts["predicted_before"] == 0.25
    for i, own in enumerate(facts["heads_kept"]):
        assert own != [0]  # the number of the only one, in the model that is left
        kernel = before.get_layer(f"layer_{i}_query").get_weights()[0]
        np.testing.assert_array_equal(
            outcome.model.get_layer(f"layer_{i}_query").get_weights()[0],
            kernel[:, 4 * own[0]:][:, :4])


@pytest.mark.parametrize("target_ms", [2.0, 2.9])
def test_without_heads_costs_are_of_the_heads_there_were(before, context, target_ms):
    step = dataclasses.replace(QUICK, keep=None, target_latency_ms=target_ms, steps=2,
                               step_epochs=0)
    outcome = run(before, step, context.replaced({"costs": times}))
    assert not any(sizes(outcome.model)[0])
    assert f"of 13.2 ({13.2 / (2 + 0.1 * sum(sizes(outcome.model)[1])):.2f}x)" in (
        outcome.notes[0])


@pytest.mark.parametrize("depth", [1, 2])
def test_of_all_depths_the_one_of_least_loss_is_taken(before, context, monkeypatch,
                                                      depth):
    seen = []

    def loss(model, examples, task):
        seen.append(models.config_of(model).num_layers)
        return abs(seen[-1] - depth)

    monkeypatch.setattr(structured, "mean_loss", loss)
    step = dataclasses.replace(QUICK, keep=0.4, empty_blocks=False, search_depth=True)
    outcome = run(before, step, context)
    assert seen == [2, 1]
    assert models.config_of(outcome.model).num_layers == depth
    # Of one layer that stays, it is the last.
    assert (outcome.facts["heads_kept"][0] == []) == (depth == 1)
    assert multiplications_of(outcome.model) <= 0.4 * multiplications_of(before)


def test_fewer_layers_may_meet_what_all_cannot(before, context):
    step = dataclasses.replace(QUICK, keep=0.25, empty_blocks=False, heads_multiple=2)
    with pytest.raises(ValueError, match="No structure meets the target"):
        run(before, step, context)
    outcome = run(before, dataclasses.replace(step, search_depth=True), context)
    assert models.config_of(outcome.model).num_layers == 1


def test_all_may_go(before, context):
    outcome = run(before, dataclasses.replace(QUICK, keep=0.01, steps=2,
                                              step_epochs=0), context)
    assert sizes(outcome.model) == ((0,), (0,))
    assert outcome.notes[0].endswith("predicted 0 k multiplications of 3.072")
    with pytest.raises(ValueError, match="below what the model takes, 0. Received: "):
        run(outcome.model, QUICK, context)


@pytest.mark.parametrize("empty", [True, False])
def test_blocks_may_go_if_they_may(before, context, empty):
    step = dataclasses.replace(QUICK, keep=0.25, empty_blocks=empty)
    heads, neurons = sizes(run(before, step, context).model)
    assert (min(*heads, *neurons) == 0) == empty


def test_saved_exported_and_cut_again_it_computes_the_same(before, context, tmp_path):
    outcome = run(before, dataclasses.replace(UNTRAINED, keep=0.45), context)
    assert 0 in (*sizes(outcome.model)[0], *sizes(outcome.model)[1])
    models.save(outcome.model, tmp_path / "keras")
    loaded = models.load(tmp_path / "keras")
    assert sizes(loaded) == sizes(outcome.model)
    file = tmp_path / "model.tflite"
    file.write_bytes(tflite.convert(outcome.model, "float32"))
    runner = interpreter.Interpreter(file, num_threads=1)
    for tokens in (3, 20):
        ids = np.random.default_rng(tokens).integers(4, 103, tokens)
        inputs = {"input_ids": ids[None],
                  "attention_mask": np.ones([1, tokens], np.int32),
                  "token_type_ids": np.zeros([1, tokens], np.int32)}
        expected = outcome.model(inputs)[0].numpy()
        np.testing.assert_allclose(loaded(inputs)[0], expected, atol=1e-6)
        np.testing.assert_allclose(runner.run(ids, tokens), expected, atol=1e-4)
    again = run(loaded, dataclasses.replace(UNTRAINED, keep=0.6), context)
    assert multiplications_of(again.model) <= 0.6 * multiplications_of(loaded)


@pytest.mark.parametrize(("fields", "received"), [
    ({}, "{'keep': None, 'target_speedup': None, 'target_latency_ms': None}"),
    ({"keep": 0.5, "target_speedup": 2.0},
     "{'keep': 0.5, 'target_speedup': 2.0, 'target_latency_ms': None}"),
    ({"keep": 1.0}, "keep=1.0"), ({"keep": 0.0}, "keep=0.0"),
    ({"target_speedup": 1.0}, "target_speedup=1.0"),
    ({"target_latency_ms": 0.0}, "target_latency_ms=0.0"),
    ({"keep": 0.5, "score": "hessian"}, "score='hessian'"),
    ({"keep": 0.5, "examples": 0}, "examples=0"),
    ({"keep": 0.5, "steps": 0}, "steps=0"),
    ({"keep": 0.5, "step_epochs": -1}, "step_epochs=-1"),
    ({"keep": 0.5, "epochs": -1}, "epochs=-1"),
    ({"keep": 0.5, "neurons_multiple": 0}, "neurons_multiple=0"),
    ({"keep": 0.5, "heads_multiple": 0}, "heads_multiple=0"),
])
def test_fields_that_make_no_sense_are_refused(fields, received):
    with pytest.raises(ValueError) as error:
        Structured(**fields)
    assert str(error.value).endswith(f"Received: {received}")


@pytest.mark.parametrize("target", [{"target_speedup": 2.0},
                                    {"target_latency_ms": 1.0}])
def test_missing_costs_are_told_before_any_work(context, target):
    recipe = Recipe(passes=(Structured(**target),))
    with pytest.raises(ValueError, match="needs `costs`.*Received: costs=None$"):
        compress.check(recipe, context)
    compress.check(recipe, context.replaced({"costs": times}))


@pytest.mark.parametrize(("fields", "match"), [
    ({"target_latency_ms": 1.9}, "takes 2 ms. Received: target=1.9"),
    ({"target_speedup": 2.0, "empty_blocks": False, "heads_multiple": 4},
     r"heads \(4, 4\) and neurons \(4, 4\), takes 10.8 ms. Received: target=6.6"),
    ({"target_latency_ms": 14.0}, "below what the model takes, 13.2. Received: "
                                  "target=14$"),
])
def test_a_target_out_of_reach_is_refused_before_any_training(
        before, context, monkeypatch, fields, match):
    log = Log(monkeypatch)
    step = dataclasses.replace(QUICK, keep=None, steps=3, **fields)
    with pytest.raises(ValueError, match=match):
        run(before, step, context.replaced({"costs": times}))
    assert log.calls == []


def test_a_model_of_other_layers_is_refused(before, context):
    thin = LowRank(rank=2).apply(before, Context()).model
    with pytest.raises(ValueError, match="Received: layer_0_query of type LowRankDen"):
        run(thin, UNTRAINED, context)
