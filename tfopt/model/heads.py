"""The head of an encoder: what reads its last states, and how -> the model's output.

Hidden states <float>[B, T, D] -> the tokens that are read -> a pooler (Dense with an
activation, as BERT's, Devlin et al. 2018, arXiv:1810.04805) -> dropout -> a classifier.
Each part but the reading may be absent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from tfopt.backend import keras
from tfopt.model import layer_names, layers
from tfopt.model.anatomy import Anatomy
from tfopt.model.config import EncoderConfig
from tfopt.types import check_fields

READS = ("first", "all", "mean")
_READ_BY = {"first": layer_names.FIRST_TOKEN, "mean": layer_names.MEAN_TOKENS}
POOLERS = ("tanh", "gelu", "gelu_tanh", "relu", "silu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head:
    """What stands on an encoder.

    Attributes:
        outputs: C, numbers for each text (or token): classes of a classifier, or 1 of a
            regression. None has no classifier: the output is what the pooler gives, of
            the encoder's width.
        reads: the tokens that it reads: "first", "mean" (of the visible ones), or "all"
            for an output a token.
        pooler: activation of a Dense of the encoder's width, one of `POOLERS`; None for
            no such Dense.
        dropout: fraction in [0, 1) of what the classifier reads, in training.
    """

    outputs: int | None = 2
    reads: str = "first"
    pooler: str | None = "tanh"
    dropout: float = 0.1

    def __post_init__(self):
        """Checks the fields.

        Raises:
            ValueError: a rule is broken; the message ends with what was received.
        """
        outputs, dropout = self.outputs, self.dropout
        check_fields(self, {
            "outputs": (outputs is None or (isinstance(outputs, int) and outputs > 0
                                            and not isinstance(outputs, bool)),
                        "a positive whole number, or None"),
            "reads": (self.reads in READS, f"one of {READS}"),
            "pooler": (self.pooler is None or self.pooler in POOLERS,
                       f"one of {POOLERS}, or None"),
            "dropout": (isinstance(dropout, int | float) and 0 <= dropout < 1,
                        "a fraction in [0, 1)"),
        })

    def replace(self, **changes) -> Head:
        """Returns a copy with some fields changed, checked anew."""
        return dataclasses.replace(self, **changes)

    def with_outputs(self, outputs: int | None) -> Head:
        """The head of another number of outputs; itself for None."""
        return self if outputs is None else self.replace(outputs=outputs)


def num_parameters(config: EncoderConfig, head: Head) -> int:
    """Weights of an encoder of plain layers and its head, by its sizes."""
    units = (config.hidden_size if head.pooler else 0) + (head.outputs or 0)
    return config.num_parameters + (config.hidden_size + 1) * units


def keeps(name: str, trained: Head, wanted: Head) -> bool:
    """Whether a layer's trained weights serve a wanted head, or are of the encoder.

    Args:
        name: of a layer.
        trained: the head that was trained.
        wanted: the head to build.
    """
    if name == layer_names.POOLER:
        return wanted.pooler is not None and (
            (wanted.reads, wanted.pooler) == (trained.reads, trained.pooler))
    if name == layer_names.CLASSIFIER:
        return wanted.replace(dropout=trained.dropout) == trained
    return name not in (*_READ_BY.values(), layer_names.HEAD_TOKENS,
                        layer_names.CLASSIFIER_DROPOUT)


def read_by(layer: Mapping[str, keras.layers.Layer], x, mask):
    """What the head reads of the last states.

    Args:
        layer: name -> layer of the model.
        x: <float>[B, T, D], or [B*T, D].
        mask: <int32>[B, T], 1 where a token is visible.

    Returns:
        <float>[B, D]; x itself where the head reads all tokens.
    """
    for name in _READ_BY.values():
        if name in layer:
            return layer[name]([x, mask])
    return x


def output_of(layer: Mapping[str, keras.layers.Layer], x, *, dropout: bool = False):
    """The output of what the head has read.

    Args:
        layer: name -> layer of the model.
        x: <float>[..., D].
        dropout: whether to wire the dropout layer in.

    Returns:
        <float>[..., C]; [..., D] where there is no classifier.
    """
    if layer_names.POOLER in layer:
        x = layer[layer_names.POOLER](x)
    if dropout:
        x = layer[layer_names.CLASSIFIER_DROPOUT](x)
    return layer[layer_names.CLASSIFIER](x) if layer_names.CLASSIFIER in layer else x


def head_of(model: keras.Model) -> Head:
    """Reads a model's head back from its layers.

    Args:
        model: made by `encoder.build`, or by a pass from such a one.

    Returns:
        Its head.

    Raises:
        ValueError: the model is no encoder of tfopt's.
    """
    parts = Anatomy.of(model).head
    # A layer, or the one in a wrapper that trains it.
    pooler, classifier = (getattr(layer, "layer", layer)
                          for layer in (parts.pooler, parts.classifier))
    dropout = getattr(parts.dropout, "layer", parts.dropout)
    names = {layer.name for layer in model.layers}
    reads = next((word for word, name in _READ_BY.items() if name in names), "all")
    return Head(outputs=classifier and classifier.units, reads=reads,
                pooler=pooler and pooler.activation.__name__, dropout=dropout.rate)


def make(head: Head, width: int, add, dense) -> None:
    """Makes the layers of a head.

    Args:
        head: the head.
        width: D of the encoder.
        add: takes a layer.
        dense: makes and takes a Dense of a name, units and activation.
    """
    if head.reads in _READ_BY:
        kind = {"first": layers.FirstToken, "mean": layers.MeanTokens}[head.reads]
        add(kind(name=_READ_BY[head.reads]))
    if head.pooler:
        dense(layer_names.POOLER, width, head.pooler)
    add(layers.Dropout(head.dropout, name=layer_names.CLASSIFIER_DROPOUT))
    if head.outputs:
        dense(layer_names.CLASSIFIER, head.outputs)
    if head.reads == "first":
        add(layers.HeadTokens(name=layer_names.HEAD_TOKENS))
