"""Switches of layers: attributes that are True while a step is traced, else False."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tfopt.backend import keras


@contextlib.contextmanager
def on(model: keras.Model, name: str) -> Iterator[None]:
    """Switches something on in all layers of a model that have it, within the context.

    Args:
        model: whose step is traced within the context.
        name: of the attribute, such as "first_alone" (`model.layers.HeadTokens`).
    """
    layers = [layer for layer in model.submodules if hasattr(layer, name)]
    for layer in layers:
        setattr(layer, name, True)
    try:
        yield
    finally:
        for layer in layers:
            setattr(layer, name, False)
