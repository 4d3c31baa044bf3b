"""What each operation loses, and the budget that the most harmful ones stay out for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tfopt import model, tasks
from tfopt.export import calibrate, flatbuffer, tflite
from tfopt.measure import sensitivity

CONFIG = model.EncoderConfig.uniform(
    hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64, vocab_size=103,
    max_positions=64, initializer_range=0.2)
HEAD = model.Head(outputs=3)
SCHEME = "static_wi8_ai8"
# What gives the large channel, and what takes it.
HARMED = ("/layer_0_value/", "/layer_0_attention_output/")


@pytest.fixture(scope="module")
def graph() -> tflite.FloatGraph:
    """A BERT one of whose products gives what int8 cannot hold, and one takes it.

    One weight of its kernel makes a channel that is ten thousand times the others.
    """
    bert = model.build(CONFIG, HEAD, seed=1)
    kernel, bias = bert.get_layer("layer_0_value").get_weights()
    kernel[:, 5] *= 1e4
    bert.get_layer("layer_0_value").set_weights([kernel, bias])
    output, nothing = bert.get_layer("layer_0_attention_output").get_weights()
    output[5] /= 1e4  # which does not change what the model computes
    bert.get_layer("layer_0_attention_output").set_weights([output, nothing])
    return tflite.float_graph(bert)


@pytest.fixture(scope="module")
def examples() -> list:
    random = np.random.default_rng(0)
    ids = [random.integers(4, 103, size).tolist() for size in (5, 9, 12, 20)]
    return calibrate.examples_of(ids, [len(row) for row in ids])


@pytest.fixture(scope="module")
def judge(graph, examples):
    """How near the logits are to those in float, as a fraction."""
    expected = [found[calibrate.LOGITS] for found in
                calibrate.values(graph.contents, examples)]

    def judged(contents: bytes) -> float:
        found = [value[calibrate.LOGITS] for value in
                 calibrate.values(contents, examples)]
        return 1 - float(np.mean(np.abs(np.subtract(found, expected))))

    return judged


@pytest.fixture(scope="module")
def found(graph, examples, judge) -> dict[str, sensitivity.Loss]:
    return {loss.name: loss for loss in
            sensitivity.losses(graph, SCHEME, examples, judge)}


def test_each_product_and_table_is_judged(found, graph):
    kinds = [loss.kind for loss in found.values()]
    assert kinds.count("FULLY_CONNECTED") == 2 * 6 + 2
    assert kinds.count("EMBEDDING_LOOKUP") == 3
    assert set(found) <= set(tflite.operations(graph, SCHEME))


def test_of_integers_products_within_layer_norm_are_judged(graph, examples, judge):
    """Of the graph that is wired for them, not of the float one."""
    found = next(loss for loss in sensitivity.losses(
        graph, "integer_wi8_ai8", examples, judge) if loss.kind == "BATCH_MATMUL")
    assert found.name == "bert/embedding_norm/MatMul"
    assert 20 < found.output_sqnr_db < 60
    assert 20 < found.logits_sqnr_db < 90


def is_harmed(name: str) -> bool:
    return any(part in name for part in HARMED)


def test_the_harmed_products_are_the_most_sensitive(found):
    """By the logits: their own output is told by its one large channel."""
    ranked = sorted(found.values(), key=lambda loss: loss.logits_sqnr_db)
    assert [is_harmed(loss.name) for loss in ranked[:3]] == [True, True, False]
    assert ranked[1].logits_sqnr_db < ranked[2].logits_sqnr_db - 3
    assert max(ranked[:2], key=lambda loss: loss.value).value < min(
        loss.value for loss in ranked[2:])


def test_eight_bits_have_some_forty_decibels(found):
    """Of a product alone: 6 dB a bit, less the peak over the mean."""
    told = [loss.output_sqnr_db for loss in found.values()
            if loss.kind == "FULLY_CONNECTED" and not is_harmed(loss.name)
            and math.isfinite(loss.output_sqnr_db)]
    assert len(told) >= 11
    assert 30 < min(told) and max(told) < 60


def test_without_a_harmed_one_all_others_lose_less(graph, examples, judge):
    """With ranges for each row, only what takes the large channel is harmed."""
    losses = sorted(sensitivity.losses(graph, "dynamic_wi8_afp32", examples, judge,
                                       mode="all_but"),
                    key=lambda loss: loss.logits_sqnr_db)
    assert HARMED[-1] in losses[-1].name
    assert losses[-1].logits_sqnr_db > losses[-2].logits_sqnr_db + 6


def test_the_budget_is_held_by_leaving_the_most_harmful_in_float(graph, examples,
                                                                 judge):
    all_quantized = judge(tflite.quantize(graph, SCHEME, calibration=examples))
    budget = 100 * (1 - all_quantized) / 2
    guarded = sensitivity.within(graph, SCHEME, examples, judge,
                                 max_drop=budget)
    assert guarded.met and guarded.value >= 1 - budget / 100
    assert sum(map(is_harmed, guarded.left)) == 2
    assert all("points" in why for why in guarded.left.values())
    # What is left stays in float, and the rest does not.
    parsed = flatbuffer.parse(guarded.contents)
    weights = {flatbuffer.output_name(parsed.subgraphs[0], op): flatbuffer.dtype(
        parsed.subgraphs[0].tensors[op.inputs[1]])
        for op in flatbuffer.operations(parsed, "FULLY_CONNECTED")}
    assert {name for name, dtype in weights.items() if dtype == "float32"} == {
        name for name in guarded.left if name in weights}
    assert "int8" in weights.values()


def test_an_ample_budget_leaves_nothing_in_float(graph, examples, judge):
    guarded = sensitivity.within(graph, SCHEME, examples, judge, max_drop=100)
    assert guarded.met and not guarded.left


def test_a_budget_that_cannot_be_met_keeps_the_best(graph, examples, judge):
    calls = []

    def lower_when_quantized(contents):
        calls.append(contents)
        return 1.0 if contents == graph.contents else judge(contents) - 0.5

    guarded = sensitivity.within(graph, SCHEME, examples, lower_when_quantized,
                                 max_drop=1)
    assert not guarded.met
    tried = [judge(one) - 0.5 for one in calls if one != graph.contents]
    assert guarded.value == max(tried)


@pytest.mark.parametrize(("options", "words"), [
    ({"mode": "some"}, "mode='some'"), ({"scheme": "int3"}, "'int3'")])
def test_an_unknown_mode_or_scheme_is_refused(options, words, graph, examples, judge):
    with pytest.raises(ValueError, match=f"Received: .*{words}"):
        list(sensitivity.losses(**{"graph": graph, "scheme": SCHEME, "judge": judge,
                                   "examples": examples, **options}))


def test_a_budget_of_an_error_counts_what_it_grows_by(graph, examples, judge):
    def error(contents):
        return 1 - judge(contents)

    all_quantized = error(tflite.quantize(graph, SCHEME, calibration=examples))
    guarded = sensitivity.within(graph, SCHEME, examples, error,
                                 max_drop=all_quantized / 2,
                                 task=tasks.named("regression")())
    assert guarded.met and 0 < guarded.value <= all_quantized / 2
    assert guarded.reference == 0 and guarded.left
    assert all("rmse, and" in why for why in guarded.left.values())


def test_a_negative_budget_is_refused(graph, examples, judge):
    with pytest.raises(ValueError, match="Received: max_drop=-1"):
        sensitivity.within(graph, SCHEME, examples, judge, max_drop=-1)
