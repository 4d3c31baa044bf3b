"""How many weights a model has: what passes claim by."""

from __future__ import annotations

import numpy as np

from tfopt.backend import keras


def count_parameters(model: keras.Model) -> int:
    """How many weights a model has; its random states and counters are none."""
    return sum(weight.shape.num_elements() for weight in model.weights
               if weight.dtype.is_floating)


def count_nonzeros(model: keras.Model) -> int:
    """How many of a model's weights are not 0."""
    return sum(int(np.count_nonzero(weight.numpy())) for weight in model.weights
               if weight.dtype.is_floating)
