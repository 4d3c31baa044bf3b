"""A text encoder with a head, as a functional Keras model.

EncoderConfig, Head -> keras.Model. After Devlin et al. 2018, arXiv:1810.04805
(post-norm encoder, GELU, learned positions). Every projection is a plain `Dense`,
since tfmot refuses EinsumDense, MultiHeadAttention and subclassed models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from absl import logging

from tfopt.backend import keras, tf
from tfopt.model import anatomy, heads, inference_layers, layers
from tfopt.model.anatomy import layer_name
from tfopt.model.attention import SelfAttention
from tfopt.model.config import EncoderConfig
from tfopt.model.heads import Head
from tfopt.types import INPUT_NAMES

_ACTIVATIONS = {"gelu_tanh": layers.gelu_tanh}  # those Keras has not by name


def build(config: EncoderConfig, head: Head = Head(), seed: int = 0) -> keras.Model:
    """Builds the model with fresh weights.

    Args:
        config: the sizes.
        head: what stands on the encoder.
        seed: of the fresh weights; the same seed gives the same weights.

    Returns:
        A model from {input_ids, attention_mask, token_type_ids}, <int32>[B, T] each,
        to <float32>[B, C]: logits, or what the head gives.
    """
    made = _layers(config, head, seed)
    inputs = _inputs()
    x = _embed(made, inputs["input_ids"], inputs["token_type_ids"])
    x = made[anatomy.EMBEDDING_DROPOUT](x)
    mask, last = inputs["attention_mask"], config.num_layers - 1
    for i in range(last):
        x = _encoder_layer(made, i, x, x, mask, dropout=True)
    read = made[anatomy.HEAD_TOKENS](x) if anatomy.HEAD_TOKENS in made else x
    x = heads.read_by(made, _encoder_layer(made, last, read, x, mask, dropout=True),
                      mask)
    return keras.Model(inputs, heads.output_of(made, x, dropout=True), name="bert")


def for_inference(model: keras.Model,
                  massive: Mapping[str, Sequence[int]] | None = None,
                  integer: bool = False) -> keras.Model:
    """Wires a BERT's layers anew, for speed: the same logits from fewer operations.

    Batch and tokens share one axis, so that a Dense is one matrix product without
    shape arithmetic; dropout is gone; and the last layer computes queries and ffn
    for the first token alone, where the head reads no other.

    Args:
        model: a BERT; its layers and weights are shared, not copied.
        massive: for an export that is quantized, with a kernel's own integers: name of
            an ffn's second Dense -> the channels of its output that are to be kept
            apart from the others, up to where they are normalized. The converter is
            then kept from folding LayerNorm into kernels; None lets it.
        integer: whether LayerNorm is to be of operations that bear int8; must be, where
            channels are kept apart.

    Returns:
        The rewired model, of the same inputs and output; `model` itself where it is
        no BERT of tfopt's or holds layers that this wiring does not know.
    """
    if not anatomy.is_bert(model):
        return model
    unknown = {layer.name for layer in model.layers} - anatomy.layer_names(model)
    if unknown:
        logging.info("Exported as it is wired; layers unknown to the inference "
                     "wiring: %s", sorted(unknown))
        return model
    made = {layer.name: layer for layer in model.layers}
    if integer:
        apart = {anatomy.norm_behind(name): channels
                 for name, channels in (massive or {}).items()}
        made |= {
            name: inference_layers.IntegerNorm(layer, apart.get(name, ()), name=name)
            for name, layer in made.items() if isinstance(layer, layers.LayerNorm)}
    inputs = _inputs()
    mask = inputs["attention_mask"]
    merge = inference_layers.MergeTokens(name="merge_tokens")
    positions = inference_layers.Positions(name="positions")(inputs["input_ids"])
    x = _embed(made, merge(inputs["input_ids"]), merge(inputs["token_type_ids"]),
               positions)  # [B*T, D]
    last = anatomy.num_layers(model) - 1
    for i in range(last):
        x = _encoder_layer(made, i, x, x, mask, massive=massive)
    if anatomy.FIRST_TOKEN in made:
        first = layers.FirstToken(name=anatomy.FIRST_TOKEN)([x, mask])  # [B, D]
        x = _encoder_layer(made, last, first, x, mask, massive=massive)
    else:
        x = heads.read_by(
            made, _encoder_layer(made, last, x, x, mask, massive=massive), mask)
    if massive is not None:
        x = inference_layers.KeepApart()(x)
    x = heads.output_of(made, x)
    if heads.head_of(model).reads == "all":
        x = inference_layers.SplitTokens(name="split_tokens")([x, mask])
    return keras.Model(inputs, x, name="bert")


def _inputs() -> dict:
    return {name: keras.Input([None], dtype=tf.int32, name=name)
            for name in INPUT_NAMES}


def _embed(made: Mapping[str, keras.layers.Layer], ids, segments, positions=None):
    """Sums and normalizes the three embeddings.

    Args:
        made: name -> layer.
        ids: <int32>[B, T], or [B*T] with their positions.
        segments: of the same shape.
        positions: <int32>[B*T]; None where the shape tells them.

    Returns:
        <float>[B, T, D], or [B*T, D].
    """
    x = keras.layers.Add(name="embedding_sum")([
        made[anatomy.TOKEN_EMBEDDING](ids),
        made[anatomy.SEGMENT_EMBEDDING](segments)])
    add_positions = made[anatomy.POSITION_EMBEDDING]
    x = add_positions(x if positions is None else [x, positions])
    return made[anatomy.EMBEDDING_NORM](x)


def _encoder_layer(made: Mapping[str, keras.layers.Layer], index: int, x, memory,
                   mask, dropout: bool = False,
                   massive: Mapping[str, Sequence[int]] | None = None):
    """One post-norm layer: x attends to memory, then the ffn.

    Args:
        made: name -> layer; a block that is not there adds nothing.
        index: of the layer.
        x: <float>[..., D], the positions to compute.
        memory: <float>[..., D], the positions attended to.
        mask: <int32>[B, T] of the memory.
        dropout: whether to wire the dropout layers in.
        massive: as of `for_inference`, for whose wiring the output of each LayerNorm
            is kept apart from the kernels behind it.

    Returns:
        <float>[..., D], of x's shape.
    """
    def role(name):
        return made[layer_name(index, name)]

    def drop(name, y):
        return role(name)(y) if dropout else y

    def operand(y):
        return y if massive is None else inference_layers.KeepApart()(y)

    if layer_name(index, anatomy.ATTENTION) in made:
        attended = operand(memory)
        y = role(anatomy.ATTENTION)([
            role("query")(attended if x is memory else operand(x)),
            role("key")(attended), role("value")(attended), mask])
        y = drop("attention_dropout", role("attention_output")(y))
        x = keras.layers.Add(name=layer_name(index, "attention_sum"))([x, y])
    x = role(anatomy.ATTENTION_NORM)(x)
    if layer_name(index, "intermediate") not in made:
        return role(anatomy.FFN_NORM)(x)
    y = role("intermediate")(operand(x))
    add = keras.layers.Add(name=layer_name(index, "ffn_sum"))
    last, norm = role("ffn_output"), role(anatomy.FFN_NORM)
    channels = (massive or {}).get(last.name)
    if channels:
        main, own = inference_layers.SplitDense(last, channels, name=last.name)(y)
        return norm([add([x, main]), own])
    return norm(add([x, drop("ffn_dropout", last(y))]))


def _layers(config: EncoderConfig, head: Head, seed: int
            ) -> dict[str, keras.layers.Layer]:
    """Makes every layer that has weights, state or a knob, by name."""
    made: list[keras.layers.Layer] = []

    def next_seed():
        return seed * 10_000 + len(made)

    def initializer():
        return keras.initializers.TruncatedNormal(
            stddev=config.initializer_range, seed=next_seed())

    def dense(name, units, activation=None):
        made.append(keras.layers.Dense(
            units, activation=_ACTIVATIONS.get(activation, activation),
            kernel_initializer=initializer(), name=name))

    def embedding(name, rows):
        made.append(keras.layers.Embedding(
            rows, config.hidden_size, embeddings_initializer=initializer(), name=name))

    def norm(name):
        made.append(layers.LayerNorm(epsilon=config.layer_norm_epsilon, name=name))

    def dropout(name, rate):
        made.append(layers.Dropout(rate, name=name))

    embedding(anatomy.TOKEN_EMBEDDING, config.vocab_size)
    embedding(anatomy.SEGMENT_EMBEDDING, config.type_vocab_size)
    made.append(layers.PositionEmbedding(
        config.max_positions, config.initializer_range, next_seed(),
        name=anatomy.POSITION_EMBEDDING))
    norm(anatomy.EMBEDDING_NORM)
    dropout(anatomy.EMBEDDING_DROPOUT, config.hidden_dropout)
    for i in range(config.num_layers):
        num_heads, neurons = config.num_heads[i], config.intermediate_sizes[i]
        if num_heads:
            for role in ("query", "key", "value"):
                dense(layer_name(i, role), num_heads * config.head_size)
            made.append(SelfAttention(num_heads, config.attention_dropout,
                                      name=layer_name(i, anatomy.ATTENTION)))
            dense(layer_name(i, "attention_output"), config.hidden_size)
            dropout(layer_name(i, "attention_dropout"), config.hidden_dropout)
        norm(layer_name(i, anatomy.ATTENTION_NORM))
        if neurons:
            dense(layer_name(i, "intermediate"), neurons, config.activation)
            dense(layer_name(i, "ffn_output"), config.hidden_size)
            dropout(layer_name(i, "ffn_dropout"), config.hidden_dropout)
        norm(layer_name(i, anatomy.FFN_NORM))
    heads.make(head, config.hidden_size, made.append, dense)
    return {layer.name: layer for layer in made}
