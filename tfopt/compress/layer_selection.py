"""Which layers of a model a pass on weights works on."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tfopt.backend import keras
from tfopt.model.anatomy import Anatomy

_WITH_KERNEL = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D,
                keras.layers.Conv3D)


def choose_layers(model: keras.Model, only: Sequence[str] = (),
                  leave: Sequence[str] = (),
                  others: Sequence[str] = ()) -> list[keras.layers.Layer]:
    """The layers whose kernels are to be changed.

    Args:
        model: a BERT, of which the six projections of every encoder layer are meant
            unless `only` says otherwise; or any other, of which every Dense and Conv
            is.
        only: regular expressions of names; the layers meant, Embedding among them.
        leave: regular expressions; layers to leave out.
        others: regular expressions that must match a layer, too.

    Returns:
        The layers, in the model's order.

    Raises:
        ValueError: there is none, or an expression matches none.
    """
    able = [layer for layer in model.layers
            if isinstance(layer, (*_WITH_KERNEL, keras.layers.Embedding))]
    check_expressions((*only, *leave, *others), able, ", Dense, Conv or Embedding")
    if only:
        chosen = [layer for layer in able if matches(only, layer.name)]
    elif Anatomy.known(model):
        chosen = [layer for layer in Anatomy.of(model).dense if layer in able]
    else:
        chosen = [layer for layer in able if isinstance(layer, _WITH_KERNEL)]
    chosen = [layer for layer in chosen if not matches(leave, layer.name)]
    if not chosen:
        names = [layer.name for layer in model.layers]
        raise ValueError("The model must have a Dense or Conv layer to work on. "
                         f"Received: layers {names[:8]}")
    return chosen


def check_expressions(expressions: Sequence[str], able: Sequence[keras.layers.Layer],
                      which: str) -> None:
    """Checks that each expression matches the name of a layer.

    Raises:
        ValueError: one does not; `which` says of what layers.
    """
    names = [layer.name for layer in able]
    for expression in expressions:
        if not any(matches([expression], name) for name in names):
            raise ValueError(f"An expression must match a layer{which}. Received: "
                             f"{expression!r}, of layers {names[:8]}")


def kernel_name(layer: keras.layers.Layer) -> str:
    """The attribute that holds a layer's kernel."""
    return "embeddings" if isinstance(layer, keras.layers.Embedding) else "kernel"


def skipped(model: keras.Model, touched: Sequence[str]) -> dict[str, str]:
    """The other layers with weights, and why they are left."""
    return {layer.name: "not among the kernels that are chosen"
            for layer in model.layers if layer.name not in touched and layer.weights}


def matches(expressions: Sequence[str], name: str) -> bool:
    """Whether one of the regular expressions is found in a name."""
    return any(re.search(expression, name) for expression in expressions)
