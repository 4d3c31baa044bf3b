"""Fits the output projections of a cut BERT to what the whole one computed.

(whole, cut, texts) -> the cut model, changed in place. Block after block, the least
squares solution for kernel and bias of the output projection, so that the sum of the
residual stream and the block is again what it was, errors of earlier blocks included
(Kwon et al. 2022, arXiv:2204.09656, section 4.3, tunes a mask so; ZipLM, Kurtic et al.
2023, arXiv:2302.04089, the whole kernel).
"""

from __future__ import annotations

import numpy as np

from tfopt.backend import keras, tf
from tfopt.compress.samples import read
from tfopt.model import anatomy
from tfopt.model.anatomy import layer_name
from tfopt.types import INPUT_NAMES, BatchSource

# Of the mean square of the inputs: how strongly the kernel is held where it was. On
# held-out texts, 0.001 to 0.1 do as well as each other.
_DAMPING = 1e-2


def reconstruct(whole: keras.Model, small: keras.Model, train: BatchSource,
                examples: int = 2048) -> None:
    """Fits the projections.

    Args:
        whole: a BERT of plain layers.
        small: what `surgery.cut` made of it; its output projections are replaced.
        train: batches of texts; labels are not used.
        examples: how many are read. Both models' hidden states of one layer are kept,
            of visible tokens: 8 D bytes a token.
    """
    masks, theirs, ours = [], [], []  # a batch each
    embed = [keras.Model(model.inputs, model.get_layer(anatomy.EMBEDDING_NORM).output)
             for model in (whole, small)]
    for inputs, _ in read(train, examples):
        mask = inputs[INPUT_NAMES[1]]
        masks.append(mask)
        for model, states in zip(embed, (theirs, ours), strict=True):
            embedded = model(inputs, training=False)
            states.append(tf.boolean_mask(embedded, mask > 0)[None].numpy())
    for i in range(anatomy.num_layers(whole)):
        for inner, output, norm in ((_attention, "attention_output",
                                     anatomy.ATTENTION_NORM),
                                    (_ffn, "ffn_output", anatomy.FFN_NORM)):
            block, left = (_Block(model, i, inner, output, norm)
                           for model in (whole, small))
            # In place: hidden states are most of the memory.
            for k, mask in enumerate(masks):
                theirs[k][:] = block.sum(theirs[k], mask)
            if left.present:
                left.fit(zip(ours, theirs, masks, strict=True))
            for k, mask in enumerate(masks):
                ours[k][:] = left.normed(left.sum(ours[k], mask))
                theirs[k][:] = block.normed(theirs[k])


class _Block:
    """One block of one model; it may be absent.

    Hidden states are those of a batch's N visible tokens, as of a single text.
    """

    def __init__(self, model, index, inner, output, norm):
        made = {layer.name: layer for layer in model.layers}
        self._role = lambda name: made[layer_name(index, name)]
        self._inner = inner
        self.present = layer_name(index, output) in made
        self._output = made.get(layer_name(index, output))
        self.normed = self._role(norm)

    def sum(self, x, mask):
        """The residual stream and what the block adds: <float>[1, N, D]."""
        if not self.present:
            return x
        return x + self._output(self._inner(self._role, x, mask))

    def fit(self, batches) -> None:
        """Solves for the output projection.

        Args:
            batches: (x <float>[1, N, D], the wanted sum of the same shape, mask
                <int32>[B, T]) each.
        """
        squares = products = 0.0
        for batch in batches:
            found = [part.numpy().astype(np.float64) for part in self._moments(*batch)]
            squares, products = squares + found[0], products + found[1]
        change = damped(squares, products)
        self._output.kernel.assign_add(change[:-1])
        self._output.bias.assign_add(change[-1])

    def _moments(self, x, wanted, mask):
        """Sums over tokens; F and a 1 go in: <float>[F + 1, F + 1], [F + 1, D]."""
        inner = self._inner(self._role, x, mask)
        missing = (wanted - x - self._output(inner))[0]
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


def _attention(role, x, mask):
    """What an attention block's output projection takes."""
    places = tf.where(mask)
    padded = tf.scatter_nd(places, x[0], [*mask.shape, x.shape[-1]])
    inner = role(anatomy.ATTENTION)([role("query")(padded), role("key")(padded),
                                     role("value")(padded), mask])
    return tf.gather_nd(inner, places)[None]


def _ffn(role, x, mask):
    """What an ffn's output projection takes; no token minds another."""
    return role("intermediate")(x)
