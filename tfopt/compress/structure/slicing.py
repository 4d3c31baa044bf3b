"""Cuts heads and neurons out of a BERT: model, what stays -> a smaller model.

Physically: the kernels are sliced, and the result is an ordinary BERT whose layers are
of their own sizes. It computes what the model did with the cut units' outputs at 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfopt.backend import keras
from tfopt.model import EncoderConfig, config_of, encoder, heads
from tfopt.model.anatomy import Anatomy, renumbered
from tfopt.model.layer_names import check_known

Units = tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kept:
    """What stays of each layer.

    Attributes:
        heads: numbers of heads, ascending, a tuple a layer; an empty one leaves the
            layer without attention block.
        neurons: the same of the ffn.
    """

    heads: tuple[Units, ...]
    neurons: tuple[Units, ...]

    @classmethod
    def all_of(cls, config: EncoderConfig) -> Kept:
        """All that a model has."""
        return cls(heads=tuple(tuple(range(count)) for count in config.num_heads),
                   neurons=tuple(tuple(range(count))
                                 for count in config.intermediate_sizes))

    def config(self, config: EncoderConfig) -> EncoderConfig:
        """The sizes of what is left of a model of these sizes."""
        return config.replace(num_heads=tuple(map(len, self.heads)),
                              intermediate_sizes=tuple(map(len, self.neurons)))


def cut(model: keras.Model, kept: Kept) -> keras.Model:
    """Builds the smaller model.

    Args:
        model: a BERT of plain layers; left as it is.
        kept: what stays of it.

    Returns:
        A BERT with weights of its own.

    Raises:
        ValueError: `kept` names a layer, head or neuron that the model has not, or
            `check_plain` refuses the model.
    """
    check_plain(model)
    parts = Anatomy.of(model)
    config = parts.config
    _check(kept, config)
    small = encoder.build(kept.config(config), heads.head_of(model))
    given = {layer.name: layer.get_weights() for layer in model.layers}
    before = parts.embeddings.last
    for i, layer in enumerate(parts.layers):
        if layer.attention:
            columns = _columns(kept.heads[i], config.head_size)
            for projection in layer.attention.projections.values():
                _take(given, projection.name, columns, axis=1)
            _take(given, layer.attention.output.name, columns, axis=0)
            core = layer.attention.core.name  # its table of relative positions, if any
            given[core] = [np.take(table, kept.heads[i], 1) for table in given[core]]
            if not kept.heads[i]:
                _leave_bias(given, layer.attention.output.name, before.name)
        if layer.ffn:
            _take(given, layer.ffn.intermediate.name, kept.neurons[i], axis=1)
            _take(given, layer.ffn.output.name, kept.neurons[i], axis=0)
            if not kept.neurons[i]:
                _leave_bias(given, layer.ffn.output.name, layer.attention_norm.name)
        before = layer.ffn_norm
    for made in small.layers:
        if made.weights:
            made.set_weights(given[made.name])
    return small


def drop_empty_layers(model: keras.Model) -> keras.Model:
    """Takes out the layers of which only LayerNorms are left.

    What those did is given to the LayerNorm before them, as far as that can: its
    output's mean and deviation over the width are thought to be the same for each
    token, those that its gamma and beta tell of inputs of mean 0 and deviation 1.

    Args:
        model: a BERT of plain layers; left as it is.

    Returns:
        A BERT of the other layers, numbered anew, with weights of its own.

    Raises:
        ValueError: as `cut`.
    """
    check_plain(model)
    parts = Anatomy.of(model)
    config = parts.config
    stay = [i for i, sizes in enumerate(zip(
        config.num_heads, config.intermediate_sizes, strict=True)) if any(sizes)]
    stay = stay or [config.num_layers - 1]  # without any block, too, one layer
    if parts.embeddings.projection and 0 not in stay:
        stay = [0, *stay]  # no LayerNorm is before it that could do what its own did
    small = shorten(model, stay)
    left = Anatomy.of(small)
    before = left.embeddings.last
    for i, layer in enumerate(parts.layers):
        if i in stay:
            before = left.layers[stay.index(i)].ffn_norm
            continue
        for gone in (layer.attention_norm, layer.ffn_norm):
            before.set_weights(_norm_of_norm(before.get_weights(), gone.get_weights()))
    return small


def shorten(model: keras.Model, kept: Sequence[int]) -> keras.Model:
    """Builds a BERT of some of another's encoder layers.

    Args:
        model: a BERT of plain layers; left as it is.
        kept: numbers of its layers, in the order in which they are to follow.

    Returns:
        A BERT with weights of its own, its layers numbered anew.

    Raises:
        ValueError: the model is no BERT, or of other layers than `encoder.build` makes.
    """
    config = config_of(model)
    check_known(model)
    small = encoder.build(config.replace(
        num_heads=[config.num_heads[i] for i in kept],
        intermediate_sizes=[config.intermediate_sizes[i] for i in kept]),
        heads.head_of(model))
    for layer in small.layers:
        source = model.get_layer(renumbered(layer.name, kept))
        if type(source) is not type(layer):
            raise ValueError(
                "Layers can be dropped from a BERT of plain layers: let this pass come "
                f"first. Received: {source.name} of type {type(source).__name__}")
        layer.set_weights(source.get_weights())
    return small


def _norm_of_norm(first: list[np.ndarray], second: list[np.ndarray]
                  ) -> list[np.ndarray]:
    """Gamma and beta of one LayerNorm in place of two."""
    gamma, beta = first
    scale = second[0] / np.sqrt(np.mean(gamma ** 2) + np.var(beta))
    return [gamma * scale, (beta - np.mean(beta)) * scale + second[1]]


def check_plain(model: keras.Model) -> None:
    """Checks that units can be cut out of a model.

    Raises:
        ValueError: it is no BERT, or of other layers than `encoder.build` makes.
    """
    parts = Anatomy.of(model)
    check_known(model)
    for layer in parts.dense:
        if type(layer) is not keras.layers.Dense:
            raise ValueError(
                "Heads and neurons can be cut out of a BERT of plain layers: let this "
                f"pass come first. Received: {layer.name} of type "
                f"{type(layer).__name__}")


def _columns(heads: Sequence[int], head_size: int) -> np.ndarray:
    """The columns of a projection that are of some heads: <int>[len(heads) * K]."""
    return (np.array(heads, int)[:, None] * head_size + np.arange(head_size)).ravel()


def _take(given: dict[str, list], name: str, units, axis: int) -> None:
    """Slices a Dense's kernel, and its bias where the outputs are sliced."""
    kernel, bias = given[name]
    given[name] = [np.take(kernel, units, axis),
                   np.take(bias, units) if axis == 1 else bias]


def _leave_bias(given: dict[str, list], output: str, norm: str) -> None:
    """Adds the bias of a block that goes to the beta of the LayerNorm before it.

    Or to the bias of the Dense there, by which embeddings come to the stream's width.

    Of that only the residual stream is left, to which the block added its bias.
    """
    gamma, beta = given[norm]
    given[norm] = [gamma, beta + given[output][1]]


def _check(kept: Kept, config: EncoderConfig) -> None:
    for name, units, sizes in (("heads", kept.heads, config.num_heads),
                               ("neurons", kept.neurons, config.intermediate_sizes)):
        if len(units) != len(sizes):
            raise ValueError(f"`{name}` must name what stays of {len(sizes)} layers. "
                             f"Received: {len(units)}")
        for i, (own, size) in enumerate(zip(units, sizes, strict=True)):
            if list(own) != sorted(set(own) & set(range(size))):
                raise ValueError(f"The {name} that stay in layer {i} must ascend, "
                                 f"below {size}. Received: {list(own)[:8]}")
