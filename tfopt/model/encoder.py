"""A text encoder with a head, as a functional Keras model.

EncoderConfig, Head -> keras.Model. After Devlin et al. 2018, arXiv:1810.04805
(post-norm encoder, GELU, learned positions). Every projection is a plain `Dense`,
since tfmot refuses EinsumDense, MultiHeadAttention and subclassed models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfopt.backend import keras, tf
from tfopt.model import heads, inference_layers, layers
from tfopt.model import layer_names as names
from tfopt.model.attention import SelfAttention
from tfopt.model.config import EncoderConfig
from tfopt.model.heads import Head
from tfopt.model.layer_names import layer_name
from tfopt.model.relative import RelativeBuckets
from tfopt.types import INPUT_NAMES

ACTIVATION_FUNCTIONS = {"gelu_tanh": layers.gelu_tanh}  # those Keras has not by name


def build(config: EncoderConfig, head: Head = Head(), seed: int = 0) -> keras.Model:
    """Builds the model with fresh weights.

    Args:
        config: the sizes.
        head: what stands on the encoder.
        seed: of the fresh weights; the same seed gives the same weights.

    Returns:
        A model from {input_ids, attention_mask, token_type_ids}, <int32>[B, T] each,
        to <float32>[B, C]: logits, or what the head gives. Without segments there are
        no token_type_ids.
    """
    made = _layers(config, head, seed)
    inputs = make_inputs(config)
    x = embed(made, inputs["input_ids"], inputs.get("token_type_ids"), dropout=True)
    mask, last = inputs["attention_mask"], config.num_layers - 1
    seen = visible(made, mask)
    for i in range(last):
        x = encoder_layer(made, i, x, x, seen, dropout=True)
    read = made[names.HEAD_TOKENS](x) if names.HEAD_TOKENS in made else x
    x = heads.read_by(made, encoder_layer(made, last, read, x, seen, dropout=True),
                      mask)
    return keras.Model(inputs, heads.output_of(made, x, dropout=True),
                       name=config.family)


def make_inputs(config: EncoderConfig) -> dict:
    """The inputs by name; no token_type_ids where there are no segments."""
    return {name: keras.Input([None], dtype=tf.int32, name=name)
            for name in INPUT_NAMES[:3 if config.type_vocab_size else 2]}


def visible(made: Mapping[str, keras.layers.Layer], mask) -> list:
    """What attention is told of the tokens, beside their vectors.

    Args:
        made: name -> layer.
        mask: <int32>[B, T].

    Returns:
        The mask; and the buckets <int32>[T, T] where positions are relative.
    """
    buckets = made.get(names.TOKEN_DISTANCES)
    return [mask] if buckets is None else [mask, buckets(mask)]


def embed(made: Mapping[str, keras.layers.Layer], ids, segments=None, positions=None, *,
          dropout: bool = False, apart: bool = False):
    """Sums and normalizes the embeddings, and maps them to the stream's width.

    Args:
        made: name -> layer.
        ids: <int32>[B, T], or [B*T] with their positions.
        segments: of the same shape; None where there are none.
        positions: <int32>[B*T]; None where the shape tells them.
        dropout: whether to wire the dropout layer in.
        apart: whether the LayerNorm's output is kept apart from a kernel behind it.

    Returns:
        <float>[B, T, D], or [B*T, D].
    """
    x = made[names.TOKEN_EMBEDDING](ids)
    if segments is not None:
        x = keras.layers.Add(name=names.EMBEDDING_SUM)([
            x, made[names.SEGMENT_EMBEDDING](segments)])
    add_positions = made[names.POSITION_EMBEDDING]
    x = add_positions(x if positions is None else [x, positions])
    x = made[names.EMBEDDING_NORM](x)
    if dropout:
        x = made[names.EMBEDDING_DROPOUT](x)
    project = made.get(names.EMBEDDING_PROJECTION)
    if project is None:
        return x
    return project(inference_layers.KeepApart()(x) if apart else x)


def encoder_layer(made: Mapping[str, keras.layers.Layer], index: int, x, memory,
                  seen: Sequence, *, dropout: bool = False,
                  outlier_channels: Mapping[str, Sequence[int]] | None = None):
    """One post-norm layer: x attends to memory, then the ffn.

    Args:
        made: name -> layer; a block that is not there adds nothing.
        index: of the layer.
        x: <float>[..., D], the positions to compute.
        memory: <float>[..., D], the positions attended to.
        seen: of the memory, as `visible` tells it.
        dropout: whether to wire the dropout layers in.
        outlier_channels: as of `inference.for_inference`, for whose wiring the output
            of each LayerNorm is kept apart from the kernels behind it.

    Returns:
        <float>[..., D], of x's shape.
    """
    def role(name):
        return made[layer_name(index, name)]

    def drop(name, y):
        return role(name)(y) if dropout else y

    def operand(y):
        return y if outlier_channels is None else inference_layers.KeepApart()(y)

    if layer_name(index, names.ATTENTION) in made:
        attended = operand(memory)
        y = role(names.ATTENTION)([
            role(names.QUERY)(attended if x is memory else operand(x)),
            role(names.KEY)(attended), role(names.VALUE)(attended), *seen])
        y = drop(names.ATTENTION_DROPOUT, role(names.ATTENTION_OUTPUT)(y))
        x = keras.layers.Add(name=layer_name(index, names.ATTENTION_SUM))([x, y])
    x = role(names.ATTENTION_NORM)(x)
    if layer_name(index, names.INTERMEDIATE) not in made:
        return role(names.FFN_NORM)(x)
    y = role(names.INTERMEDIATE)(operand(x))
    add = keras.layers.Add(name=layer_name(index, names.FFN_SUM))
    last, norm = role(names.FFN_OUTPUT), role(names.FFN_NORM)
    channels = (outlier_channels or {}).get(last.name)
    if channels:
        main, own = inference_layers.SplitDense(last, channels, name=last.name)(y)
        return norm([add([x, main]), own])
    return norm(add([x, drop(names.FFN_DROPOUT, last(y))]))


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
            units, activation=ACTIVATION_FUNCTIONS.get(activation, activation),
            kernel_initializer=initializer(), name=name))

    def embedding(name, rows):
        made.append(keras.layers.Embedding(
            rows, config.embedding_width, embeddings_initializer=initializer(),
            name=name))

    def norm(name):
        made.append(layers.LayerNorm(epsilon=config.layer_norm_epsilon, name=name))

    def dropout(name, rate):
        made.append(layers.Dropout(rate, name=name))

    embedding(names.TOKEN_EMBEDDING, config.vocab_size)
    if config.type_vocab_size:
        embedding(names.SEGMENT_EMBEDDING, config.type_vocab_size)
    made.append(layers.PositionEmbedding(
        config.max_positions, config.initializer_range, next_seed(),
        name=names.POSITION_EMBEDDING))
    norm(names.EMBEDDING_NORM)
    dropout(names.EMBEDDING_DROPOUT, config.hidden_dropout)
    if config.embedding_size:
        dense(names.EMBEDDING_PROJECTION, config.hidden_size)
    buckets = config.relative_buckets if any(config.num_heads) else 0
    shared_seed = next_seed()  # fresh tables are alike, as the published one for all is
    if buckets:
        made.append(RelativeBuckets(buckets, name=names.TOKEN_DISTANCES))
    for i in range(config.num_layers):
        num_heads, neurons = config.num_heads[i], config.intermediate_sizes[i]
        if num_heads:
            for role in (names.QUERY, names.KEY, names.VALUE):
                dense(layer_name(i, role), num_heads * config.head_size)
            made.append(SelfAttention(
                num_heads, config.attention_dropout, buckets, config.initializer_range,
                shared_seed, name=layer_name(i, names.ATTENTION)))
            dense(layer_name(i, names.ATTENTION_OUTPUT), config.hidden_size)
            dropout(layer_name(i, names.ATTENTION_DROPOUT), config.hidden_dropout)
        norm(layer_name(i, names.ATTENTION_NORM))
        if neurons:
            dense(layer_name(i, names.INTERMEDIATE), neurons, config.activation)
            dense(layer_name(i, names.FFN_OUTPUT), config.hidden_size)
            dropout(layer_name(i, names.FFN_DROPOUT), config.hidden_dropout)
        norm(layer_name(i, names.FFN_NORM))
    heads.make(head, config.hidden_size, made.append, dense)
    return {layer.name: layer for layer in made}
