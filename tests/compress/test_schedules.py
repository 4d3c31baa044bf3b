"""Sparsity by step: tables by hand, every edge, and tfmot's form of the same."""

from __future__ import annotations

import numpy as np
import pytest

from tfopt.backend import keras, tf, tfmot
from tfopt.compress.pruning.schedules import KINDS, Schedule


@pytest.mark.parametrize("fields,expected", [
    # 0.8 (1 - (1 - p)^3)
    ({}, [0, 0, 0, 0.4625, 0.7, 0.7875, 0.8, 0.8]),
    ({"power": 1.0}, [0, 0, 0, 0.2, 0.4, 0.6, 0.8, 0.8]),
    ({"power": 1.0, "initial_sparsity": 0.4}, [0, 0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.8]),
    # Left is 0.2^p.
    ({"kind": "exponential"},
     [0, 0, 0, 1 - 0.2 ** 0.25, 1 - 0.2 ** 0.5, 1 - 0.2 ** 0.75, 0.8, 0.8]),
    ({"kind": "constant"}, [0, 0, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8]),
    ({"kind": "one_shot"}, [0, 0, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8]),
    ({"end_step": 2}, [0, 0, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8]),
])
def test_sparsity(fields, expected):
    schedule = Schedule(**{"final_sparsity": 0.8, "begin_step": 2, "end_step": 6,
                           **fields})
    assert [schedule.sparsity(step) for step in range(8)] == pytest.approx(expected)


@pytest.mark.parametrize("fields,expected", [
    ({}, [2, 5, 8, 9]),
    ({"frequency": 7}, [2, 9]),
    ({"frequency": 100}, [2, 9]),
    ({"frequency": 1}, [2, 3, 4, 5, 6, 7, 8, 9]),
    ({"kind": "constant"}, [2, 5, 8, 9]),
    ({"kind": "one_shot"}, [2]),
    ({"end_step": 2}, [2]),
    ({"begin_step": 0, "end_step": 0}, [0]),
])
def test_due(fields, expected):
    schedule = Schedule(**{"final_sparsity": 0.8, "begin_step": 2, "end_step": 9,
                           "frequency": 3, **fields})
    assert [step for step in range(20) if schedule.due(step)] == expected
    latest = [max((due for due in expected if due <= step), default=None)
              for step in range(20)]
    assert [schedule.latest_due(step) for step in range(20)] == latest
    assert schedule.last_step == expected[-1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("begin,end", [(0, 0), (0, 10), (3, 11), (4, 4)])
def test_tfmot_form_says_the_same(kind, begin, end):
    ours = Schedule(kind=kind, final_sparsity=0.75, initial_sparsity=0.25,
                    begin_step=begin, end_step=end, frequency=4)
    theirs = ours.to_tfmot()
    again = type(theirs).from_config(theirs.get_config())
    for form in (theirs, again):
        due, sparsity = zip(*(form(tf.constant(step)) for step in range(14)),
                            strict=True)
        assert list(map(bool, due)) == [ours.due(step) for step in range(14)]
        np.testing.assert_allclose(
            sparsity, [ours.sparsity(step) for step in range(14)], rtol=1e-6)


def test_tfmot_prunes_by_it():
    """Its own wrapper, with a schedule that it has not."""
    schedule = Schedule(kind="exponential", final_sparsity=0.75, begin_step=1,
                        end_step=3, frequency=1).to_tfmot()
    layer = keras.layers.Dense(4, use_bias=False)
    model = tfmot.sparsity.keras.prune_low_magnitude(
        keras.Sequential([keras.Input([4]), layer]), pruning_schedule=schedule)
    model.compile("sgd", "mse")
    model.fit(np.eye(4), np.ones([4, 4]), epochs=3, verbose=0,
              callbacks=[tfmot.sparsity.keras.UpdatePruningStep()])
    stripped = tfmot.sparsity.keras.strip_pruning(model)
    assert np.count_nonzero(stripped.get_weights()[0]) == 4


@pytest.mark.parametrize("name,value", [
    ("kind", "cubic"), ("final_sparsity", 0.0), ("final_sparsity", 1.0),
    ("final_sparsity", float("nan")), ("initial_sparsity", -0.1),
    ("initial_sparsity", 0.9), ("begin_step", -1), ("begin_step", 7), ("end_step", 1),
    ("frequency", 0), ("power", 0.0)])
def test_values_out_of_range_are_refused(name, value):
    good = {"final_sparsity": 0.8, "begin_step": 2, "end_step": 6}
    with pytest.raises(ValueError, match="Received: ") as error:
        Schedule(**{**good, name: value})
    received = "end_step=6" if (name, value) == ("begin_step", 7) else f"{name}={value}"
    assert str(error.value).replace("'", "").endswith(f"Received: {received}")
