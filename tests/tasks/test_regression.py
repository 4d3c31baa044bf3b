"""Regression: figures by hand, numbers read from files, a model that learns one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tfopt import data, model, train
from tfopt.tasks.regression import Regression

TASK = Regression()


def corpus(*labels: str) -> data.Corpus:
    return data.Corpus(path="f.tsv", texts=["a"] * len(labels), pairs=None,
                       labels=list(labels), lines=list(range(2, 2 + len(labels))))


def test_figures_by_hand():
    quality = TASK.quality(np.array([[1.0], [2], [4]]), [1.0, 4, 4])
    assert quality["rmse"] == pytest.approx(math.sqrt(4 / 3))
    # Ranks 0, 1, 2 and 0, 1.5, 1.5: covariance 1.5 of deviations sqrt(2 * 1.5).
    assert quality["spearman"] == pytest.approx(1.5 / math.sqrt(2 * 1.5))
    # Deviations (-4, -1, 5) / 3 and (-2, 1, 1): 4 of sqrt(14 / 3 * 6).
    assert quality["pearson"] == pytest.approx(4 / math.sqrt(28))


def test_an_order_turned_round_is_minus_one_and_a_constant_is_zero():
    values = np.array([3.0, 1, 2, 9])
    assert TASK.quality(-values[:, None] ** 3, values)["spearman"] == pytest.approx(-1)
    assert TASK.quality(np.ones([4, 1]), values)["pearson"] == 0.0


def test_labels_are_numbers():
    assert TASK.targets(corpus("3.8", "0", "-1e-1")) == [3.8, 0.0, -0.1]


@pytest.mark.parametrize("wrong", ["good", "nan", "inf", "3,8"])
def test_other_labels_are_refused_by_file_and_line(wrong):
    with pytest.raises(ValueError, match=f"^f.tsv:3: .* Received: '{wrong}'$"):
        TASK.targets(corpus("1", wrong))


def test_a_lower_error_is_better_and_counts_in_its_own_unit():
    assert TASK.better(0.5, 0.6) and not TASK.better(0.6, 0.5)
    assert TASK.drop(0.5, 0.75) == pytest.approx(0.25)
    assert TASK.drop_unit == "rmse"


def test_answers():
    assert TASK.decode(np.array([[0.5], [2.0]])) == [{"score": 0.5}, {"score": 2.0}]


def test_a_model_learns_numbers_and_the_best_epoch_has_the_least_error():
    random = np.random.default_rng(0)
    ids = [[2, *random.integers(5, 45, 6).tolist(), 3] for _ in range(64)]
    wanted = [float(np.mean(np.array(row[1:-1]) < 25)) for row in ids]
    encoded = data.Encoded(ids=ids, first_lengths=[8] * 64)
    config = model.EncoderConfig.uniform(
        hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32, vocab_size=50,
        max_positions=16, initializer_range=0.2)
    bert = model.build(config, TASK.head())
    history = train.fit(
        bert, data.Batches(encoded, wanted, batch_size=16, shuffle_seed=0),
        data.Batches(encoded, wanted, batch_size=64),
        train.Settings(epochs=15, learning_rate=1e-2), goal=TASK.objective())
    batch, = data.Batches(encoded, wanted, batch_size=64).dataset()
    found = TASK.quality(bert(batch[0]).numpy(), batch[1].numpy())
    assert found["rmse"] == pytest.approx(min(e["val_rmse"] for e in history), rel=1e-4)
    assert found["rmse"] < 0.7 * np.std(wanted)
