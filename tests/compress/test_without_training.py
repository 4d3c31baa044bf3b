"""The passes that change weights without training: truncation and low rank."""

from __future__ import annotations

import numpy as np
import pytest

from tfopt import model as models
from tfopt.backend import keras
from tfopt.compress import Context
from tfopt.compress.passes.low_rank import LowRank
from tfopt.compress.passes.truncate import Truncate
from tfopt.export import interpreter, tflite
from tfopt.measure import cost

KERNEL = np.array([[0.1, -0.9, 0.3, 0.0],
                   [-0.4, 0.05, -0.6, 0.31]], np.float32)


def dense(kernel, **others) -> keras.Model:
    layer = keras.layers.Dense(np.shape(kernel)[1], name="only", **others)
    made = keras.Sequential([keras.Input([np.shape(kernel)[0]]), layer])
    layer.kernel.assign(kernel)
    return made


def kernel_of(outcome) -> np.ndarray:
    return outcome.model.get_layer("only").get_weights()[0]


@pytest.mark.parametrize("fields,threshold", [
    ({"threshold": 0.3}, 0.3), ({"threshold": 10.0}, 10.0),
    ({"deviations": 1.0}, KERNEL.std()), ({"deviations": 0.5}, 0.5 * KERNEL.std())])
def test_weights_below_the_threshold_go(fields, threshold):
    outcome = Truncate(**fields).apply(dense(KERNEL), Context())
    np.testing.assert_array_equal(
        kernel_of(outcome), np.where(np.abs(KERNEL) < threshold, 0, KERNEL))
    assert outcome.figures["nonzeros"] == np.count_nonzero(kernel_of(outcome))


@pytest.mark.parametrize("fields", [
    {}, {"threshold": 0.1, "deviations": 1.0}, {"threshold": 0.0},
    {"deviations": -1.0}, {"deviations": float("nan")}])
def test_thresholds_that_make_no_sense_are_refused(fields):
    with pytest.raises(ValueError, match="Received: (threshold|deviations)="):
        Truncate(**fields)


def low_rank_kernel(rank, shape=(24, 40)):
    random = np.random.default_rng(rank)
    return (random.normal(size=(shape[0], rank))
            @ random.normal(size=(rank, shape[1]))).astype(np.float32)


@pytest.mark.parametrize("fold", [True, False])
def test_a_kernel_of_that_rank_is_kept_whole(fold):
    kernel = low_rank_kernel(3)
    before = dense(kernel, activation="tanh", bias_initializer="ones")
    x = np.random.default_rng(0).normal(size=[5, 24]).astype(np.float32)
    expected = before(x).numpy()
    outcome = LowRank(rank=3, fold=fold).apply(before, Context())
    np.testing.assert_allclose(outcome.model(x), expected, atol=1e-5)
    parameters = cost.of_model(outcome.model)["parameters"]
    assert parameters == (24 * 40 + 40 if fold else 3 * (24 + 40) + 40)


@pytest.mark.parametrize("rank", [1, 5, 10])
def test_it_is_the_closest_of_its_rank(rank):
    """Eckart & Young: what is lost is the sum of squares of the other values."""
    kernel = np.random.default_rng(1).normal(size=(12, 16)).astype(np.float32)
    outcome = LowRank(rank=rank, fold=True).apply(dense(kernel), Context())
    values = np.linalg.svd(kernel, compute_uv=False)
    assert np.sum((kernel_of(outcome) - kernel) ** 2) == pytest.approx(
        np.sum(values[rank:] ** 2), rel=1e-4)
    assert np.linalg.matrix_rank(kernel_of(outcome), tol=1e-4) == rank


@pytest.mark.parametrize("energy,rank", [(0.5, 1), (0.79, 1), (0.81, 2), (0.95, 2),
                                         (0.96, 3), (0.9999, 3)])
def test_energy_chooses_the_rank(energy, rank):
    kernel = np.zeros((4, 6), np.float32)
    kernel[[0, 1, 2], [0, 1, 2]] = np.sqrt([8.0, 1.5, 0.5])
    outcome = LowRank(energy=energy, fold=True).apply(dense(kernel), Context())
    assert np.count_nonzero(np.abs(kernel_of(outcome)) > 1e-6) == rank


def test_what_would_grow_is_left_and_told():
    outcome = LowRank(rank=15).apply(dense(low_rank_kernel(16)), Context())
    assert outcome.touched == ()
    assert outcome.skipped == {"only": "no smaller as two kernels of rank 15"}
    outcome = LowRank(rank=24).apply(dense(low_rank_kernel(16)), Context())
    assert outcome.skipped == {"only": "of no higher rank than 24"}


def test_a_bert_of_low_rank_converts_by_the_fast_wiring(tmp_path):
    config = models.EncoderConfig.uniform(
        hidden_size=32, num_layers=2, num_heads=4, intermediate_size=64, vocab_size=103,
        max_positions=64, initializer_range=0.2)
    before = models.build(config, models.Head(outputs=3), seed=1)
    outcome = LowRank(rank=8, leave=("query",)).apply(before, Context())
    assert len(outcome.touched) == 10
    assert models.config_of(outcome.model) == config
    assert models.for_inference(outcome.model) is not outcome.model
    file = tmp_path / "model.tflite"
    file.write_bytes(tflite.convert(outcome.model, "float32"))
    ids = np.arange(4, 13)
    inputs = {"input_ids": ids[None], "attention_mask": np.ones([1, 9], np.int32),
              "token_type_ids": np.zeros([1, 9], np.int32)}
    np.testing.assert_allclose(
        interpreter.Interpreter(file, num_threads=1).run(ids, 9),
        outcome.model(inputs)[0], atol=1e-5)


@pytest.mark.parametrize("fields,received", [
    ({}, "rank=None, energy=None"), ({"rank": 2, "energy": 0.5}, "rank=2, energy=0.5"),
    ({"rank": 0}, "rank=0"), ({"energy": 1.0}, "energy=1.0")])
def test_ranks_that_make_no_sense_are_refused(fields, received):
    with pytest.raises(ValueError) as error:
        LowRank(**fields)
    assert str(error.value).endswith(f"Received: {received}")
