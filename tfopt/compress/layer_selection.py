"""Which layers of a model a pass on weights works on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from absl import logging

from tfopt.backend import keras
from tfopt.model.anatomy import Anatomy
from tfopt.model.attention import SelfAttention
from tfopt.model.layers import PositionEmbedding
from tfopt.types import check_lists

_WITH_KERNEL = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D,
                keras.layers.Conv3D)
_ABLE = (*_WITH_KERNEL, keras.layers.Embedding)


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
    check_lists(only=only, leave=leave)
    able = [layer for layer in model.layers if isinstance(layer, _ABLE)]
    check_expressions((*only, *leave, *others), able, ", Dense, Conv or Embedding")
    if only:
        chosen = [layer for layer in able if matches(only, layer.name)]
    elif Anatomy.known(model):
        chosen = [layer for layer in Anatomy.of(model).dense if layer in able]
    else:
        chosen = [layer for layer in able if isinstance(layer, _WITH_KERNEL)]
    chosen = [layer for layer in chosen if not matches(leave, layer.name)]
    if not chosen:
        raise ValueError("The model must have a Dense or Conv layer to work on. "
                         f"Received: layers {_shown(model)}")
    return chosen


def warn_of_unreached(model: keras.Model, name: str, only: Sequence[str] = (),
                      able: tuple[type, ...] = _ABLE) -> None:
    """Says in the log which kernels lie within layers that a pass reaches not into.

    Args:
        model: that it works on.
        name: of the pass.
        only: its own; where these name the layers meant, nothing is said.
        able: types of the layers that it works on.
    """
    found = {} if only else _unreached(model, able)
    if found:
        logging.warning("The pass %r leaves out: %s", name, "; ".join(
            f"{layer} ({why})" for layer, why in found.items()))


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


def kernel_of(layer: keras.layers.Layer) -> Any:
    """A layer's kernel, or its table."""
    return getattr(layer, kernel_name(layer))


def skipped(model: keras.Model, touched: Sequence[str],
            able: tuple[type, ...] = _ABLE) -> dict[str, str]:
    """The other layers with weights, and why they are left.

    Args:
        model: as it was before.
        touched: names of the layers that were changed.
        able: types of the layers that could have been.
    """
    unreached = _unreached(model, able)
    return {layer.name: unreached.get(layer.name,
                                      "not among the kernels that are chosen")
            for layer in model.layers if layer.name not in touched and layer.weights}


def _unreached(model: keras.Model, able: tuple[type, ...]) -> dict[str, str]:
    """The layers that have kernels and are of no type that a pass works on."""
    # Tables of ours that no pass of weights is meant for.
    able = (*able, PositionEmbedding, SelfAttention)
    return {layer.name: f"no pass of this kind reaches the kernels of a {_kind(layer)}"
            for layer in model.layers if not isinstance(layer, able)
            and any(len(weight.shape) > 1 for weight in layer.weights)}


def _kind(layer: keras.layers.Layer) -> str:
    inner = getattr(layer, "layer", None)
    return type(layer).__name__ + (f" of {type(inner).__name__}" if inner else "")


def _shown(model: keras.Model) -> list[str]:
    return [f"{layer.name} ({_kind(layer)})" for layer in model.layers][:8]


def matches(expressions: Sequence[str], name: str) -> bool:
    """Whether one of the regular expressions is found in a name."""
    return any(re.search(expression, name) for expression in expressions)
