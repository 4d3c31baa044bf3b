"""A model wired for inference: the same numbers from fewer operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from absl import logging

from tfopt.backend import keras
from tfopt.model import encoder, heads, inference_layers, layer_names, layers
from tfopt.model.anatomy import Anatomy


def supports(model: keras.Model) -> str | None:
    """Why a model cannot be wired anew.

    Args:
        model: any.

    Returns:
        The reason, as a part of a sentence; None where it can be.
    """
    if not Anatomy.known(model):
        return f"the model {model.name!r} is no encoder of tfopt's"
    unknown = layer_names.unknown(model)
    if unknown:
        return f"the inference wiring does not know the layers {', '.join(unknown)}"
    return None


def for_inference(model: keras.Model,
                  outlier_channels: Mapping[str, Sequence[int]] | None = None,
                  integer: bool = False) -> keras.Model:
    """Wires an encoder's layers anew, for speed: the same output from less work.

    Batch and tokens share one axis, so that a Dense is one matrix product without
    shape arithmetic; dropout is gone; and the last layer computes queries and ffn
    for the first token alone, where the head reads no other.

    Args:
        model: an encoder; its layers and weights are shared, not copied.
        outlier_channels: for an export that is quantized, with a kernel's own integers:
            name of an ffn's second Dense -> the channels of its output that are to be
            kept apart from the others, up to where they are normalized. The converter
            is then kept from folding LayerNorm into kernels; None lets it.
        integer: whether LayerNorm is to be of operations that bear int8; must be, where
            channels are kept apart.

    Returns:
        The rewired model, of the same inputs and output. Where `supports` gives a
        reason it is logged, and `model` itself returned.
    """
    reason = supports(model)
    if reason:
        logging.warning("Exported as it is wired, which is slower: %s", reason)
        return model
    made = {layer.name: layer for layer in model.layers}
    if integer:
        made |= _integer_norms(made, outlier_channels or {})
    inputs = encoder.make_inputs(Anatomy.of(model).config)
    x = _embed(made, inputs, outlier_channels is not None)  # [B*T, D]
    mask, last = inputs["attention_mask"], len(Anatomy.of(model).layers) - 1
    seen = encoder.visible(made, mask)

    def layer(index, x, memory):
        return encoder.encoder_layer(made, index, x, memory, seen,
                                     outlier_channels=outlier_channels)

    for i in range(last):
        x = layer(i, x, x)
    head = heads.head_of(model)
    if head.reads == "first":
        x = layer(last, layers.FirstToken(name=layer_names.FIRST_TOKEN)([x, mask]), x)
    else:
        x = heads.read_by(made, layer(last, x, x), mask)
    if outlier_channels is not None:
        x = inference_layers.KeepApart()(x)
    x = heads.output_of(made, x)
    if head.reads == "all":
        x = inference_layers.SplitTokens(name="split_tokens")([x, mask])
    return keras.Model(inputs, x, name=model.name)


for_inference.supports = supports  # type: ignore[attr-defined]


def _embed(made: Mapping[str, keras.layers.Layer], inputs: Mapping, apart: bool):
    """The embeddings of all tokens, batch and tokens in one axis: <float>[B*T, D]."""
    merge = inference_layers.MergeTokens(name="merge_tokens")
    positions = inference_layers.Positions(name="positions")(inputs["input_ids"])
    segments = inputs.get("token_type_ids")
    return encoder.embed(made, merge(inputs["input_ids"]),
                         None if segments is None else merge(segments), positions,
                         apart=apart)


def _integer_norms(made: Mapping[str, keras.layers.Layer],
                   outlier_channels: Mapping[str, Sequence[int]]) -> dict:
    """LayerNorms of operations that bear int8, by the names of those they replace."""
    apart = {layer_names.norm_behind(name): channels
             for name, channels in outlier_channels.items()}
    return {name: inference_layers.IntegerNorm(layer, apart.get(name, ()), name=name)
            for name, layer in made.items() if isinstance(layer, layers.LayerNorm)}
