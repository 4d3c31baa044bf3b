"""Fits the output projections of a cut BERT to what the whole one computed.

(whole, cut, texts) -> the cut model, changed in place. Block after block, the least
squares solution for kernel and bias of the output projection, so that the sum of the
residual stream and the block is again what it was, errors of earlier blocks included
(Kwon et al. 2022, arXiv:2204.09656, section 4.3, tunes a mask so; ZipLM, Kurtic et al.
2023, arXiv:2302.04089, the whole kernel).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tfopt.backend import keras, tf
from tfopt.compress.samples import read
from tfopt.model.anatomy import Anatomy, Attention, Ffn
from tfopt.types import INPUT_NAMES, BatchSource

# Of the mean square of the inputs: how strongly the kernel is held where it was. On
# held-out texts, 0.001 to 0.1 do as well as each other.
_DAMPING = 1e-2


def reconstruct(whole: keras.Model, small: keras.Model, train: BatchSource,
                examples: int = 2048) -> None:
    """Fits the projections.

    Args:
        whole: a BERT of plain layers.
        small: what `slicing.cut` made of it; its output projections are replaced.
        train: batches of texts; labels are not used.
        examples: how many are read. Both models' hidden states of one layer are kept,
            of visible tokens: 8 D bytes a token.
    """
    masks: list[tf.Tensor] = []  # of a batch each
    theirs: list[np.ndarray] = []
    ours: list[np.ndarray] = []
    parts = [Anatomy.of(model) for model in (whole, small)]
    embed = [keras.Model(own.model.inputs, own.hidden_states[0]) for own in parts]
    for inputs, _ in read(train, examples):
        mask = inputs[INPUT_NAMES[1]]
        masks.append(mask)
        for model, states in zip(embed, (theirs, ours), strict=True):
            embedded = model(inputs, training=False)
            states.append(tf.boolean_mask(embedded, mask > 0)[None].numpy())
    for layers in zip(*(own.layers for own in parts), strict=True):
        for steps in ([_Step(layer.attention, layer.attention_norm)
                       for layer in layers],
                      [_Step(layer.ffn, layer.ffn_norm) for layer in layers]):
            own, left = steps
            # In place: hidden states are most of the memory.
            for k, mask in enumerate(masks):
                theirs[k][:] = own.sum(theirs[k], mask)
            if left.present:
                left.fit(zip(ours, theirs, masks, strict=True))
            for k, mask in enumerate(masks):
                ours[k][:] = left.normed(left.sum(ours[k], mask))
                theirs[k][:] = own.normed(theirs[k])


class _Step:
    """A block of one model, which may be absent, and the LayerNorm behind it.

    Hidden states are those of a batch's N visible tokens, as of a single text.
    """

    def __init__(self, block: Attention | Ffn | None, norm: keras.layers.Layer):
        self._block: Any = block
        self.present = block is not None
        self.normed = norm

    def sum(self, x, mask):
        """The residual stream and what the block adds: <float>[1, N, D]."""
        if self._block is None:
            return x
        return x + self._block.output(_inner(self._block, x, mask))

    def fit(self, batches) -> None:
        """Solves for the output projection.

        Args:
            batches: (x <float>[1, N, D], the wanted sum of the same shape, mask
                <int32>[B, T]) each.
        """
        squares, products = np.zeros(()), np.zeros(())
        for batch in batches:
            found = [part.numpy().astype(np.float64) for part in self._moments(*batch)]
            squares, products = squares + found[0], products + found[1]
        change = damped(squares, products)
        self._block.output.kernel.assign_add(change[:-1])
        self._block.output.bias.assign_add(change[-1])

    def _moments(self, x, wanted, mask):
        """Sums over tokens; F and a 1 go in: <float>[F + 1, F + 1], [F + 1, D]."""
        inner = _inner(self._block, x, mask)
        missing = (wanted - x - self._block.output(inner))[0]
        inner = tf.concat([inner[0], tf.ones([inner.shape[1], 1])], axis=1)
        # LayerNorm divides by a token's deviation: few tokens have a hundred times that
        # of others.
        weighted = inner / tf.math.reduce_variance(wanted[0], axis=1, keepdims=True)
        return (tf.matmul(weighted, inner, transpose_a=True),
                tf.matmul(weighted, missing, transpose_a=True))


def damped(squares: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Solves least squares for a change that is held near 0.

    Args:
        squares: X'X <float>[N, N], of the inputs; left as it is.
        products: X'Y <float>[N, M], with what is missing.

    Returns:
        <float>[N, M].
    """
    held = _DAMPING * np.trace(squares) / len(squares) * np.eye(len(squares))
    return np.linalg.solve(squares + held, products)


def _inner(block: Attention | Ffn, x, mask):
    """What a block's output projection takes: <float>[1, N, F]."""
    if isinstance(block, Ffn):  # no token minds another
        return block.intermediate(x)
    places = tf.where(mask)
    padded = tf.scatter_nd(places, x[0], [*mask.shape, x.shape[-1]])
    inner = block.core([*(project(padded) for project in block.projections.values()),
                        mask])
    return tf.gather_nd(inner, places)[None]
