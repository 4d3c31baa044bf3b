"""Ranges: by hand-made histograms, by known inputs, and what examples are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tfopt.backend import keras
from tfopt.export import calibrate, flatbuffer, tflite
from tfopt.export.calibrate import Observed
from tfopt.types import INPUT_NAMES

BINS = 4096


def observed(low: float, high: float, *counts: tuple[slice | int, int]) -> Observed:
    """A histogram: bins, and how many values are in each."""
    made = np.zeros(BINS, np.int64)
    for bins, number in counts:
        made[bins] = number
    return Observed(made, low, high, np.ones(1))


def test_examples_have_no_padding():
    first, second = calibrate.examples_of([[2, 7, 9, 3], [2, 3]], [2, 2])
    assert list(first) == list(INPUT_NAMES)
    for name, value in {"input_ids": [[2, 7, 9, 3]], "attention_mask": [[1] * 4],
                        "token_type_ids": [[0, 0, 1, 1]]}.items():
        assert first[name].dtype == np.int32
        np.testing.assert_array_equal(first[name], value)
    np.testing.assert_array_equal(second["attention_mask"], [[1, 1]])
    np.testing.assert_array_equal(second["token_type_ids"], [[0, 0]])


# Bins of 1/1024 from -1 to 3: 100 values in each from 0 to 1, a few at both ends.
INNER = slice(1024, 2048)


@pytest.mark.parametrize(("outer", "method", "expected"), [
    (5, "min_max", (-1.0, 3.0)),
    (5, "percentile", (0.0, 1.0)),  # 5 of 102 410 are less than one in 10 000
    (20, "percentile", (-1.0, 3.0)),  # 20 are more
    (0, "min_max", (-1.0, 3.0)),
])
def test_a_hand_made_histogram(outer, method, expected):
    seen = observed(-1.0, 3.0, (INNER, 100), (0, outer), (BINS - 1, outer))
    assert seen.range(method) == pytest.approx(expected, abs=1e-9)


def test_a_percentile_keeps_zero_in_the_range():
    above = observed(2.0, 6.0, (INNER, 100))
    assert above.range("percentile") == pytest.approx((0.0, 4.0))
    below = observed(-6.0, -2.0, (INNER, 100))
    assert below.range("percentile") == pytest.approx((-5.0, 0.0))


def test_mse_clips_an_outlier_where_the_loss_is_least():
    width = 21 / BINS
    evenly = slice(0, round(2 / width))  # from -1 to 1, a million in all
    seen = observed(-1.0, 20.0, (evenly, 10**6 // evenly.stop), (BINS - 1, 1))
    low, high = seen.range("mse")
    # The end h loses (20 - h)^2 + 10^6 ((h + 1) / 255)^2 / 12, least at 8.2; tried are
    # steps of 0.4.
    assert high == pytest.approx(8.2, abs=0.25)
    assert low == pytest.approx(-1.0)
    assert seen.range("min_max") == (-1.0, 20.0)
    mirrored = Observed(seen.counts[::-1], -20.0, 1.0, seen.channels)
    assert mirrored.range("mse") == pytest.approx((-high, -low))


def test_mse_clips_nothing_where_values_are_spread_evenly():
    seen = observed(-2.0, 2.0, (slice(BINS), 50))
    assert seen.range("mse") == pytest.approx((-2.0, 2.0), abs=0.09)


@pytest.mark.parametrize("method", calibrate.METHODS)
@pytest.mark.parametrize("value", [0.0, -1.5, 2.0])
def test_of_one_value_the_range_is_that(method, value):
    assert observed(value, value, (0, 9)).range(method) == (value, value)


@pytest.fixture(scope="module")
def twice():
    """A file that doubles 4 numbers."""
    x = keras.Input([4], name="x")
    own = keras.Model(x, keras.layers.Dense(4, use_bias=False)(x))
    own.set_weights([2.0 * np.eye(4)])
    return tflite.convert(own, "float32")


EXAMPLES = [{"x": np.array([row], np.float32)} for row in (
    [1.0, -1.0, 0.0, 3.0], [0.5, -4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.5])]


def test_known_inputs_give_known_ranges(twice):
    seen = calibrate.observe(twice, EXAMPLES)
    graph = flatbuffer.parse(twice).subgraphs[0]
    names = [graph.tensors[tensor].name.decode()
             for tensor in (*graph.inputs, *graph.outputs)]
    assert sorted(seen) == sorted(names)  # not the kernel
    for name, factor in zip(names, (1.0, 2.0), strict=True):
        own = seen[name]
        assert (own.lowest, own.highest) == (-4.0 * factor, 3.0 * factor)
        np.testing.assert_array_equal(own.channels, factor * np.array([1, 4, 0, 3]))
        assert own.counts.sum() == 12
        assert own.counts[0] == own.counts[-1] == 1
        # Six zeros in the bin of zero, four sevenths of the way.
        assert own.counts[BINS * 4 // 7] == 6
        assert own.range("min_max") == (-4.0 * factor, 3.0 * factor)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_examples_are_refused(count, twice):
    with pytest.raises(ValueError, match=f"at least 2 examples.*Received: {count}$"):
        calibrate.observe(twice, EXAMPLES[:count])


def test_examples_of_several_lengths_count_once_a_number(small_graph, examples):
    seen = calibrate.observe(small_graph().contents, examples)
    tokens = [example["input_ids"].shape[1] for example in examples]
    context, = (name for name in seen if "layer_0_attention_output/" in name)
    assert seen[context].counts.sum() == 32 * sum(tokens)
    assert seen[context].channels.shape == (32,)
    # Of the last layer only the first token's is computed.
    last, = (name for name in seen if "layer_1_attention_output/" in name)
    assert seen[last].counts.sum() == 32 * len(tokens)
    scores = seen[next(name for name in seen if "layer_0_attention/Softmax" in name)]
    assert scores.counts.sum() == 2 * sum(count**2 for count in tokens)
    assert 0 <= scores.lowest < scores.highest <= 1


def ranges_in(contents: bytes) -> dict[str, tuple[float, int]]:
    """Output of a product -> scale and zero point."""
    model = flatbuffer.parse(contents)
    graph = model.subgraphs[0]
    found = {}
    for operation in flatbuffer.operations(model, "FULLY_CONNECTED"):
        tensor = graph.tensors[operation.outputs[0]]
        if flatbuffer.dtype(tensor) == "int8":
            found[tensor.name.decode()] = (tensor.quantization.scale[0],
                                           tensor.quantization.zeroPoint[0])
    return found


@pytest.mark.parametrize("scheme", ["static_wi8_ai8", "integer_wi8_ai8"])
def test_padding_of_a_fixed_length_is_not_in_the_ranges(scheme, quantized):
    natural, padded = ranges_in(quantized(scheme)), ranges_in(quantized(scheme, 24))
    assert len(natural) >= {"static_wi8_ai8": 10, "integer_wi8_ai8": 14}[scheme]
    assert padded == natural


@pytest.mark.parametrize("scheme", ["static_wi8_ai8", "integer_wi8_ai8"])
def test_mse_narrows_some_ranges_and_widens_none(scheme, small_graph, examples):
    narrow, whole = (ranges_in(tflite.quantize(
        small_graph(), scheme, calibration=examples, method=method))
        for method in ("mse", "min_max"))
    shares = [narrow[name][0] / whole[name][0] for name in whole]
    assert max(shares) <= 1 + 1e-6
    assert min(shares) < 0.985


def rows(*values) -> list[dict[str, np.ndarray]]:
    return [{"x": np.array([row], np.float32)} for row in values]


NOISE = np.random.default_rng(0).normal(size=[16, 4])


@pytest.fixture(scope="module")
def dense():
    """Two layers of one's own, to three outputs; no output is 0 by chance."""
    x = keras.Input([4], name="x")
    hidden = keras.layers.Dense(8, "relu", bias_initializer="ones")(x)
    own = keras.Model(x, keras.layers.Dense(3)(hidden))
    return tflite.float_graph(own)


@pytest.mark.parametrize("scheme", ["static_wi8_ai8", "static_wi8_ai16",
                                    "integer_wi8_ai8"])
@pytest.mark.parametrize(("examples", "message"), [
    (rows(*np.zeros([16, 4])), "examples that differ. Received: 16 times the same$"),
    (rows(*np.ones([5, 4])), "examples that differ. Received: 5 times the same$"),
    (rows(*NOISE[:15], 1e9 * NOISE[15]),
     "all others are rounded to 0 in .*x.* Received: a range of -?[0-9.e+]+ to .*where "
     "half of the examples stay within [0-9.]+$"),
    (rows(*NOISE[:15], [np.inf, 0, 0, 0]), "of finite numbers. Received: x <float32>"),
    (rows(*NOISE[:15], [np.nan, 0, 0, 0]), "of finite numbers. Received: x <float32>"),
], ids=["zeros", "ones", "one far away", "infinite", "no number"])
def test_examples_that_leave_nothing_are_refused(scheme, examples, message, dense):
    """They gave a file that answers 0 to everything."""
    with pytest.raises(ValueError, match=message):
        tflite.quantize(dense, scheme, calibration=examples)


def test_examples_of_which_some_reach_far_are_taken(dense):
    contents = tflite.quantize(dense, "static_wi8_ai8",
                               calibration=rows(*NOISE[:15], 20 * NOISE[15]))
    given, = calibrate.values(dense.contents, rows(NOISE[3]))
    quantized, = calibrate.values(contents, rows(NOISE[3]))
    assert np.abs(quantized[calibrate.LOGITS]).max() > 0
    np.testing.assert_allclose(quantized[calibrate.LOGITS], given[calibrate.LOGITS],
                               atol=0.5)


def test_an_input_of_one_value_is_refused(dense):
    still = observed(2.0, 2.0, (0, 9))
    still.check("inner", "min_max")
    with pytest.raises(ValueError, match="one value in x, .*Received: 2$"):
        dataclasses.replace(still, is_end=True).check("x", "min_max")


def test_a_method_that_clips_an_outlier_needs_no_refusal():
    far = dataclasses.replace(observed(-1.0, 3000.0, (0, 10**6), (BINS - 1, 1)),
                              is_end=True, typical=1.0)
    with pytest.raises(ValueError, match="rounded to 0 in x"):
        far.check("x", "min_max")
    far.check("x", "percentile")
