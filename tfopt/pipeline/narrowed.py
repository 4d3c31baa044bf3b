"""A teacher of wider vectors than the student's: those that keep most of them.

A student of D numbers cannot learn vectors of more, but their projection onto the D
directions that hold most of their squared length; cosines change least by it (principal
components without a mean, as Reimers & Gurevych's sentence-transformers do before they
distil).
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from absl import logging

from tfopt import data
from tfopt.backend import keras
from tfopt.files import read_arrays, write_whole
from tfopt.tasks.embedding import unit

TEXTS = 4096  # by which the directions are found
_LAYER = "narrowed"


def narrowed(teacher: keras.Model, width: int, batches: data.Batches, place: Path
             ) -> keras.Model:
    """The teacher, its vectors projected to fewer numbers.

    Args:
        teacher: gives <float>[B, W].
        width: D < W.
        batches: texts by which the directions are found, at least D of them.
        place: a file for them, so that a killed run goes on with the same.

    Returns:
        A model of the same layers that gives <float>[B, D].

    Raises:
        ValueError: there are fewer texts than D, or the file is damaged.
    """
    wide = teacher.output_shape[-1]
    if place.is_file():
        axes = read_arrays(place)["axes"]
    else:
        axes = _axes(teacher, width, batches)
        contents = io.BytesIO()
        np.savez(contents, axes=axes)
        write_whole(place, contents.getvalue())
    if axes.shape != (wide, width):
        raise ValueError(f"The directions of a teacher's vectors must be of shape "
                         f"{(wide, width)}. Received: {place} with {axes.shape}")
    layer = keras.layers.Dense(width, use_bias=False, name=_LAYER)
    found = keras.Model(teacher.inputs, layer(teacher.outputs[0]), name=teacher.name)
    layer.set_weights([axes])
    return found


def _axes(teacher: keras.Model, width: int, batches: data.Batches) -> np.ndarray:
    """The directions that hold most of the squared length, <float32>[W, D]."""
    if len(batches) < width:
        raise ValueError(
            "A teacher of wider vectors needs at least as many texts as the model's "
            f"vectors have numbers, {width}. Received: {len(batches)} texts")
    wide = teacher.output_shape[-1]
    logging.info("The teacher reads %d texts, to find the %d directions of its vectors "
                 "of %d numbers that hold most of them", len(batches), width, wide)
    moment = np.zeros([wide, wide])
    for inputs in batches.dataset():
        rows = unit(teacher(inputs, training=False).numpy())
        moment += rows.T @ rows
    values, axes = np.linalg.eigh(moment)  # the largest last
    kept = values[-width:].sum() / values.sum()
    logging.info("%.1f %% of the squared length of its vectors is kept", 100 * kept)
    return axes[:, ::-1][:, :width].astype(np.float32)
