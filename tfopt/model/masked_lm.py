"""The head of masked language modelling: which words may stand in a text's gaps.

Hidden states of a masked token -> Dense -> LayerNorm -> a product with the table of
tokens, plus a bias (Devlin et al. 2018, arXiv:1810.04805, section 3.1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tfopt.backend import keras, tf
from tfopt.files import read_json
from tfopt.model import checkpoint, tensor_files
from tfopt.model.anatomy import Anatomy
from tfopt.model.encoder import ACTIVATION_FUNCTIONS
from tfopt.model.families import registry
from tfopt.model.families.base import Family
from tfopt.model.heads import Head
from tfopt.types import PathLike

_STATES = Head(outputs=None, reads="all", pooler=None)  # of each token, the last one


@dataclasses.dataclass(frozen=True)
class MaskedLM:
    """An encoder of width D, and its head over V tokens.

    Attributes:
        states: the encoder, {input_ids, ...} <int32>[B, T] -> <float32>[B, T, D].
        dense: kernel <float32>[D, E] and bias of the head's Dense.
        norm: gamma and beta of its LayerNorm, <float32>[E].
        table: <float32>[V, E], what the result is multiplied by.
        bias: <float32>[V].
    """

    states: keras.Model
    dense: tuple[np.ndarray, np.ndarray]
    norm: tuple[np.ndarray, np.ndarray]
    table: np.ndarray
    bias: np.ndarray

    def logits(self, inputs: Mapping[str, np.ndarray], places: np.ndarray
               ) -> np.ndarray:
        """The logits of the tokens that may stand at some places.

        Args:
            inputs: of the encoder.
            places: <int>[M, 2], row and token of each.

        Returns:
            <float32>[M, V].
        """
        config = Anatomy.of(self.states).config
        states = tf.gather_nd(self.states(dict(inputs), training=False), places)
        activation = keras.activations.get(ACTIVATION_FUNCTIONS.get(
            config.activation, config.activation))
        x = activation(tf.matmul(states, self.dense[0]) + self.dense[1])
        mean, variance = tf.nn.moments(x, -1, keepdims=True)
        x = tf.nn.batch_normalization(x, mean, variance, self.norm[1], self.norm[0],
                                      config.layer_norm_epsilon)
        return (tf.matmul(x, self.table, transpose_b=True) + self.bias).numpy()


def has_head(name: PathLike) -> bool:
    """Whether a checkpoint has such a head; not so where it is no published one.

    Raises:
        ValueError: its files are damaged; names one.
    """
    path = checkpoint.directory(name)
    if not tensor_files.is_in(path):
        return False
    with tensor_files.opened(path) as (about, tensors):
        return _tensors(registry.of(read_json(about)), tensors.names) is not None


def check(name: PathLike) -> None:
    """Checks that a checkpoint has such a head.

    Raises:
        ValueError: it has none.
    """
    if not has_head(name):
        raise ValueError(
            "A masked language model must have the head it was pretrained with, as "
            "bert-base-uncased, distilbert-base-uncased, roberta-base and mpnet-base "
            f"are published; fine-tuned models have lost it. Received: {name}")


def load(name: PathLike) -> MaskedLM:
    """Loads a checkpoint with the head that it was pretrained with.

    Args:
        name: a directory of Hugging Face's or Google's files, or a name of the hub, as
            `checkpoint.load` takes them.

    Raises:
        ValueError: it has no such head, or cannot be read.
    """
    check(name)
    path: Path = checkpoint.directory(name)
    states = checkpoint.load(path, head=_STATES)
    anatomy = Anatomy.of(states)
    table = anatomy.embeddings.token.get_weights()[0]
    with tensor_files.opened(path) as (about, tensors):
        names = _tensors(registry.of(read_json(about)), tensors.names)
        assert names is not None
        found = {part: tensor_files.finite(tensors, own) for part, own in names.items()}
    width = anatomy.config.hidden_size
    table = found.get("table", table)
    expected = {"kernel": (table.shape[1], width), "bias": table.shape[1:],
                "gamma": table.shape[1:], "beta": table.shape[1:],
                "output_bias": table.shape[:1]}
    wrong = {part: found[part].shape for part, shape in expected.items()
             if found[part].shape != shape}
    if wrong:
        raise ValueError(
            f"The head of masked language modelling must have the shapes {expected}. "
            f"Received: {path} with {wrong}")
    return MaskedLM(states, (found["kernel"].T, found["bias"]),
                    (found["gamma"], found["beta"]), table, found["output_bias"])


def _tensors(family: Family, names: set[str]) -> dict[str, str] | None:
    """Part of the head -> its tensor; None where one is missing."""
    if family.masked_lm is None:
        return None
    dense, norm, output = family.masked_lm
    bias = next((name for name in (f"{output}.bias", f"{output}.output_bias",
                                   f"{output}.decoder.bias") if name in names), "")
    found = {"kernel": f"{dense}.weight", "bias": f"{dense}.bias",
             "gamma": f"{norm}.weight", "beta": f"{norm}.bias", "output_bias": bias}
    if not names >= set(found.values()):
        return None
    table = next((name for name in (f"{output}.weight", f"{output}.decoder.weight")
                  if name in names), None)
    return found | ({"table": table} if table else {})
