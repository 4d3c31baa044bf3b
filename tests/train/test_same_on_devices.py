"""The same training on one device, on two, in two processes, and compiled by XLA."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import same_run

from tfopt.train import strategy


@functools.cache
def on_one_device(kind):
    return same_run.run(kind, strategy.make("one_device"), dev=True)


@pytest.mark.parametrize("kind", same_run.KINDS)
def test_two_devices_train_to_the_same_weights(kind):
    both = strategy.make("mirrored")
    assert both.num_replicas_in_sync == 2
    weights, history, losses = same_run.run(kind, both, dev=True)
    expected, their_history, _ = on_one_device(kind)
    np.testing.assert_allclose(weights, expected, atol=1e-5, rtol=0)
    assert len(losses) == 24
    for ours, theirs in zip(history, their_history, strict=True):
        assert ours["val_accuracy"] == pytest.approx(theirs["val_accuracy"])
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=1e-4)


@pytest.mark.parametrize("kind", same_run.KINDS)
def test_xla_computes_the_same_losses(kind):
    _, _, losses = same_run.run(kind, strategy.make("one_device"), jit_compile=True,
                                dev=False)
    _, _, expected = same_run.run(kind, strategy.make("one_device"), dev=False)
    assert len(losses) == 24
    # The last, smaller batch of an epoch counts for a whole one in XLA's running mean.
    whole = np.arange(24) % 6 != 5
    np.testing.assert_allclose(losses[whole], expected[whole], atol=1e-3, rtol=0)
