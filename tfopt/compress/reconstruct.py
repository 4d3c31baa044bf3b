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
from tfopt.compress.examples import read
from tfopt.model import anatomy
from tfopt.model.anatomy import layer_name
from tfopt.types import INPUT_NAMES, BatchSource

# Of the mean square of the inputs: how strongly the kernel is held where it was.
_DAMPING = 1e-2


def reconstruct(whole: keras.Model, small: keras.Model, train: BatchSource,
                examples: int = 2048) -> None:
    """Fits the projections.

    Args:
        whole: a BERT of plain layers.
        small: what `surgery.cut` made of it; its output projections are replaced.
        train: batches of texts; labels are not used.
        examples: how many are read.
    """
    masks, theirs, ours = [], [], []  # a batch each
    embed = [keras.Model(model.inputs, model.get_layer(anatomy.EMBEDDING_NORM).output)
             for model in (whole, small)]
    for inputs, _ in read(train, examples):
        masks.append(inputs[INPUT_NAMES[1]])
        theirs.append(embed[0](inputs, training=False))
        ours.append(embed[1](inputs, training=False))
    for i in range(anatomy.num_layers(whole)):
        for inner, output, norm in ((_attention, "attention_output",
                                     anatomy.ATTENTION_NORM),
                                    (_ffn, "ffn_output", anatomy.FFN_NORM)):
            blocks = [_Block(model, i, inner, output, norm) for model in (whole, small)]
            wanted = [blocks[0].sum(x, mask)
                      for x, mask in zip(theirs, masks, strict=True)]
            if blocks[1].present:
                blocks[1].fit(zip(ours, wanted, masks, strict=True))
            ours = [blocks[1].normed(blocks[1].sum(x, mask))
                    for x, mask in zip(ours, masks, strict=True)]
            theirs = [blocks[0].normed(total) for total in wanted]


class _Block:
    """One block of one model; it may be absent."""

    def __init__(self, model, index, inner, output, norm):
        made = {layer.name: layer for layer in model.layers}
        self._role = lambda name: made[layer_name(index, name)]
        self.present = layer_name(index, output) in made
        self._output = made.get(layer_name(index, output))
        self.normed = self._role(norm)
        self._inner = tf.function(lambda x, mask: inner(self._role, x, mask),
                                  reduce_retracing=True)

    def sum(self, x, mask):
        """The residual stream and what the block adds: <float>[B, T, D]."""
        return x + self._output(self._inner(x, mask)) if self.present else x

    def fit(self, batches) -> None:
        """Solves for the output projection.

        Args:
            batches: (x <float>[B, T, D], the wanted sum of the same shape, mask
                <int32>[B, T]) each.
        """
        kernel, bias = (weight.numpy().astype(np.float64)
                        for weight in self._output.weights)
        width = len(kernel)
        squares = np.zeros([width + 1, width + 1])
        products = np.zeros([width + 1, kernel.shape[1]])
        for x, wanted, mask in batches:
            visible = mask.numpy() > 0
            inner = self._inner(x, mask).numpy()[visible].astype(np.float64)
            inner = np.concatenate([inner, np.ones([len(inner), 1])], axis=1)
            missing = (wanted - self.sum(x, mask)).numpy()[visible]
            # LayerNorm divides by a token's deviation: few tokens have a hundred times
            # that of others.
            weight = 1 / wanted.numpy()[visible].var(axis=1, keepdims=True)
            squares += (inner * weight).T @ inner
            products += (inner * weight).T @ missing
        squares += _DAMPING * np.trace(squares) / len(squares) * np.eye(len(squares))
        change = np.linalg.solve(squares, products)
        self._output.set_weights([(kernel + change[:-1]).astype(np.float32),
                                  (bias + change[-1]).astype(np.float32)])


def _attention(role, x, mask):
    """What an attention block's output projection takes."""
    return role(anatomy.ATTENTION)([role("query")(x), role("key")(x), role("value")(x),
                                    mask])


def _ffn(role, x, mask):
    """What an ffn's output projection takes."""
    return role("intermediate")(x)
