"""A small BERT for the tests of exports, nothing in it zero or one; made once."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tfopt import model
from tfopt.export import calibrate, tflite

# The second ffn product's input, of 48, comes in no whole blocks of 32.
CONFIG = model.EncoderConfig.uniform(
    hidden_size=32, num_layers=2, num_heads=2, intermediate_size=48, vocab_size=103,
    max_positions=40, initializer_range=0.2)
HEAD = model.Head(outputs=3)


@pytest.fixture(scope="session")
def small_bert():
    """Its biases, gammas and betas are of a trained model's size."""
    bert = model.build(CONFIG, HEAD, seed=3)
    random = np.random.default_rng(3)
    for weight in bert.weights:
        if len(weight.shape) == 1:
            middle = 1.0 if "gamma" in weight.name else 0.0
            weight.assign(random.normal(middle, 0.2, weight.shape))
    return bert


@pytest.fixture(scope="session")
def examples():
    """Inputs of lengths 3 to 24, of one and of two segments."""
    random = np.random.default_rng(4)
    ids = [[2, *random.integers(5, 103, length - 2).tolist(), 3]
           for length in (3, 4, 6, 9, 11, 14, 17, 20, 22, 24)]
    return calibrate.examples_of(
        ids, [len(row) if row[1] % 2 else len(row) // 2 for row in ids])


@pytest.fixture(scope="session")
def small_graph(small_bert):
    """The small BERT in float32: length -> graph."""
    return functools.cache(lambda length=None: tflite.float_graph(
        small_bert, length=length))


@pytest.fixture(scope="session")
def quantized(small_graph, examples):
    """(scheme, length) -> the small BERT's bytes."""
    return functools.cache(lambda scheme, length=None: tflite.quantize(
        small_graph(length), scheme, calibration=examples))
