"""One way to run any artifact: what a Keras directory refuses, and answers to none."""

from __future__ import annotations

import numpy as np
import pytest

from tfopt import model
from tfopt.backend import keras
from tfopt.measure.runners import KerasRunner


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    place = tmp_path_factory.mktemp("keras")
    model.save(model.build(model.EncoderConfig.uniform(
        hidden_size=8, num_layers=1, num_heads=2, intermediate_size=8, vocab_size=50,
        max_positions=16), model.Head(outputs=3)), place)
    return KerasRunner(place)


@pytest.mark.parametrize(("ids", "received"), [
    ([2] * 17, "17 tokens, ids 2 to 2"), ([2, 50, 3], "3 tokens, ids 2 to 50"),
    ([2, -1], "2 tokens, ids -1 to 2")])
def test_what_the_tables_have_not_is_refused(ids, received, runner):
    before = runner.run([2, 3])
    with pytest.raises(ValueError, match="16 positions and 50 words. Received: "
                                         f"{received}$"):
        runner.run(ids)
    np.testing.assert_array_equal(runner.run([2, 3]), before)
    assert runner.run([2] * 16).shape == (3,)


def test_no_examples_have_no_logits(runner):
    assert runner.outputs == 3
    assert runner.logits([], []).shape == (0, 3)


def test_a_model_of_ones_own_refuses_in_one_line(tmp_path):
    ids = keras.Input([None], dtype="int32", name="input_ids")
    tokens = keras.layers.Embedding(50, 4)(ids)
    pooled = keras.layers.GlobalAveragePooling1D()(tokens)
    model.save(keras.Model(ids, keras.layers.Dense(3)(pooled)), tmp_path)
    own = KerasRunner(tmp_path)
    with pytest.raises(ValueError, match="refuses the input. Received: 2 tokens, ids 2 "
                                         "to 50: ") as refusal:
        own.run([2, 50])
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < 400
    assert own.run([2, 3]).shape == (3,)
