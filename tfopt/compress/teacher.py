"""By what a student and its teacher, two BERTs, are compared; whether they can be."""

from __future__ import annotations

from tfopt.backend import keras
from tfopt.model.anatomy import Anatomy
from tfopt.train.distill.student import Taps


def taps(model: keras.Model) -> Taps:
    """Finds what a student and its teacher are compared by, in a BERT.

    Layers may be wrapped for training, and some may have no attention left.

    Args:
        model: a BERT of tfopt's.

    Returns:
        Symbolic tensors of it.

    Raises:
        ValueError: it is no BERT.
    """
    if not Anatomy.known(model):
        raise ValueError(
            "Hidden states and relations are of an encoder made by tfopt. Received: "
            f"layers {[layer.name for layer in model.layers[:5]]}...")
    layers = Anatomy.of(model).layers
    hidden = [_call(model, layer.ffn_norm).outputs for layer in layers]
    attentions = [layer.attention.core for layer in layers if layer.attention]
    if not attentions:
        return Taps(hidden=hidden, projections={}, num_heads=0)
    last = attentions[-1]
    query, key, value, _ = _call(model, last).input_tensors
    return Taps(hidden=hidden,
                projections={"query": query, "key": key, "value": value},
                num_heads=getattr(last, "layer", last).num_heads)


def _call(model: keras.Model, layer: keras.layers.Layer):
    """The Keras node of a layer's call in this very model.

    A wrapped model shares layers with the one that was wrapped, so that `layer.output`
    may be that one's.
    """
    return next(node for number, node in enumerate(layer._inbound_nodes)
                if f"{layer.name}_ib-{number}" in model._network_nodes)


def check_teacher(teacher: keras.Model, student: keras.Model) -> None:
    """Checks what the shapes of inputs and outputs do not tell.

    Raises:
        ValueError: the vocabularies are of different sizes.
    """
    if not Anatomy.known(teacher) or not Anatomy.known(student):
        return
    sizes = [Anatomy.of(model).config.vocab_size for model in (teacher, student)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            "A teacher must have the vocabulary of its student, whose token ids it "
            f"reads. Received: a teacher of {sizes[0]} and a student of {sizes[1]} "
            "entries")
