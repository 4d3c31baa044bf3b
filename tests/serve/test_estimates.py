"""Expected times: they follow what is measured, and go back where nothing is."""

from __future__ import annotations

import pytest

from tfopt.serve.estimates import Estimates, bucket_of, guessed_tokens


def test_lengths_that_double_are_a_bucket_each():
    assert [bucket_of(tokens) for tokens in (1, 2, 3, 4, 5, 8, 9, 16, 17, 128)] == [
        0, 1, 2, 2, 3, 3, 4, 4, 5, 7]
    assert [guessed_tokens(letters, 128) for letters in (0, 9, 10, 10_000)] == [
        2, 4, 5, 128]


def test_a_bucket_that_was_not_measured_takes_the_nearest():
    times = Estimates({2: 0.002, 4: 0.004})
    assert [times.value(bucket, 0.0) for bucket in range(7)] == [
        0.002, 0.002, 0.002, 0.002, 0.004, 0.004, 0.004]


def test_a_new_time_moves_the_mean_by_a_tenth():
    times = Estimates({0: 0.010})
    times.add(0, 0.020, 100.0)
    assert times.value(0, 100.0) == pytest.approx(0.011)
    times.add(0, 0.001, 100.0)
    assert times.value(0, 100.0) == pytest.approx(0.010)


def test_one_long_pause_counts_as_four_times_the_mean():
    times = Estimates({0: 0.010})
    times.add(0, 60.0, 100.0)
    assert times.value(0, 100.0) == pytest.approx(0.010 + 0.1 * 0.030)


def test_a_mean_that_nothing_confirms_goes_back_to_the_first():
    times = Estimates({0: 0.010})
    for _ in range(200):
        times.add(0, 0.040, 50.0)
    assert times.value(0, 50.0) == pytest.approx(0.040, rel=1e-3)
    assert 0.020 < times.value(0, 55.0) < 0.022
    assert times.value(0, 100.0) == pytest.approx(0.010, rel=1e-2)


@pytest.mark.parametrize("measured", [{}, {0: 0.0}, {0: 0.1, 1: -1.0}])
def test_times_are_above_zero(measured):
    with pytest.raises(ValueError, match="above 0 of one bucket or more. Received: {"):
        Estimates(measured)
