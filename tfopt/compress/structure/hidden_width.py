"""Narrows the residual stream of a BERT: model, dimensions that stay -> a smaller one.

A dimension is thought of as multiplied by a mask m = 1, the same wherever the stream is
normalized, as z_hidden of CoFi (Xia et al. 2022, arXiv:2204.00408, section 3.1). Each
LayerNorm of the narrow model takes its mean and variance over what is left, and what
reads the stream misses the rest; least squares make up for both in the kernels that
read it, as `reconstruct` does behind cut heads and neurons. The pooler's units are no
part of the stream, but as many as it is wide: they have scores of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from tfopt.backend import keras, tf
from tfopt.compress.samples import read, seen_by
from tfopt.compress.structure.least_squares import damped
from tfopt.model import encoder, heads, layers
from tfopt.model.anatomy import Anatomy
from tfopt.model.attention import SelfAttention
from tfopt.model.layer_names import check_known
from tfopt.tasks.base import Task
from tfopt.tasks.classification import Classification
from tfopt.types import INPUT_NAMES, BatchSource

WIDTH_SCORES = ("taylor", "fisher", "magnitude")
# All that `encoder.build` makes and that has weights, or a random state.
_PLAIN = (keras.layers.Dense, keras.layers.Embedding, layers.Dropout, layers.LayerNorm,
          layers.PositionEmbedding, SelfAttention)


def check_plain(model: keras.Model) -> None:
    """Checks that a model can be narrowed.

    Raises:
        ValueError: it is no encoder with a classifier, or of other layers than
            `encoder.build` makes.
    """
    if Anatomy.of(model).head.classifier is None:
        raise ValueError("The width can be cut where a classifier reads it, and would "
                         f"be the output's. Received: {model.name!r} without one")
    check_known(model)
    for layer in model.layers:
        if layer.weights and type(layer) not in _PLAIN:
            raise ValueError(
                "Dimensions can be cut out of a BERT of plain layers: let this pass "
                f"come first. Received: {layer.name} of type {type(layer).__name__}")


def scores(model: keras.Model, score: str, train: BatchSource | None = None,
           examples: int = 1024, task: Task = Classification()  # noqa: B008
           ) -> tuple[np.ndarray, np.ndarray]:
    """How much each dimension of the stream matters, and each unit of the pooler.

    Where there is no pooler, the classifier reads the stream: both are the same.

    Args:
        model: a BERT of plain layers.
        score: one of `WIDTH_SCORES`. "taylor" is mean |g| of a mask, "fisher" mean g^2,
            "magnitude" the sum of squares of the kernel rows that read it.
        train: batches; needed by all but "magnitude".
        examples: how many of them are read, rounded up to whole batches.
        task: whose loss it is that changes.

    Returns:
        <float>[D] each.
    """
    if score == "magnitude":
        return _squares(model)
    if train is None:
        raise ValueError(f"The score {score!r} needs batches. Received: train=None")
    stream, pooled = (
        np.abs(g).mean(axis=0) if score == "taylor" else (g ** 2).mean(axis=0)
        for g in mask_gradients(model, train, examples, task))
    return stream, pooled


def _squares(model: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    def rows(layer):
        return (layer.kernel.numpy() ** 2).sum(axis=1)

    parts = Anatomy.of(model)
    stream = np.sum([rows(layer) for layer in parts.stream_readers], axis=0)
    return stream, rows(parts.head.classifier) if parts.head.pooler else stream


def mask_gradients(model: keras.Model, train: BatchSource, examples: int,
                   task: Task = Classification()  # noqa: B008
                   ) -> tuple[np.ndarray, np.ndarray]:
    """The gradients of single examples with respect to the masks.

    Args:
        model: a BERT.
        train: batches; of examples without a target, the model's own guess.
        examples: how many are read, rounded up to whole batches.
        task: whose loss it is.

    Returns:
        Of the dimensions of the stream <float32>[N, D], and of the pooler's units.
    """
    parts = Anatomy.of(model)
    taps = [layer.output for layer in (*parts.stream_norms, parts.head.pooler) if layer]
    seen = keras.Model(model.inputs, [model.output, *taps])

    @tf.function(reduce_retracing=True)
    def gradients(inputs, targets):
        with tf.GradientTape() as tape:
            logits, *outputs = seen(inputs, training=False)
            loss = tf.reduce_sum(task.example_loss(logits, targets,
                                                   **seen_by(task, inputs)))
        found = [tf.cast(x * g, tf.float32) for x, g in zip(
            outputs, tape.gradient(loss, outputs), strict=True)]
        stream = tf.reduce_sum(tf.add_n(found[:len(parts.stream_norms)]), axis=1)
        pooled = found[-1] if parts.head.pooler else stream
        # A head that reads all tokens has units of each.
        return stream, pooled if len(pooled.shape) == 2 else tf.reduce_sum(pooled, 1)

    rows = [gradients(*batch) for batch in read(train, examples)]
    states, pooled = (np.concatenate(part) for part in zip(*rows, strict=True))
    return states, pooled


def narrow(model: keras.Model, kept: Sequence[int], pooled: Sequence[int]
           ) -> keras.Model:
    """Builds the narrow model.

    Args:
        model: a BERT of plain layers; left as it is.
        kept: numbers of the dimensions that stay, ascending.
        pooled: of the pooler's units that stay, as many.

    Returns:
        A BERT with weights of its own.

    Raises:
        ValueError: `check_plain` refuses the model.
    """
    check_plain(model)
    small = encoder.build(Anatomy.of(model).config.replace(hidden_size=len(kept)),
                          heads.head_of(model))
    head = Anatomy.of(small).head
    for layer in small.layers:
        sliced = []
        for weight, narrower in zip(model.get_layer(layer.name).get_weights(),
                                    layer.get_weights(), strict=True):
            for axis, size in enumerate(narrower.shape):
                of_pooler = layer is head.classifier or (
                    layer is head.pooler and axis == weight.ndim - 1)
                if weight.shape[axis] != size:
                    weight = np.take(weight, pooled if of_pooler else kept, axis)
            sliced.append(weight)
        layer.set_weights(sliced)
    return small


def reconstruct(whole: keras.Model, small: keras.Model, pooled: Sequence[int],
                train: BatchSource, examples: int = 1024) -> None:
    """Fits the kernels that read the stream to what the whole model computed.

    In the order of computation: each finds the narrow stream as those before it were
    fitted to leave it. What writes to the stream, and the LayerNorms, stay: to fit
    these too was measured to win nothing more.

    Args:
        whole: a BERT of plain layers.
        small: what `narrow` made of it; its readers are changed.
        pooled: the units of the pooler that stayed.
        train: batches of texts; labels are not used.
        examples: how many are read, rounded up to whole batches.
    """
    parts = Anatomy.of(small)
    readers = {id(layer) for layer in parts.stream_readers}
    parents = {layer.name: [parent.name for parent in tf.nest.flatten(
        layer.inbound_nodes[0].inbound_layers)] for layer in small.layers}
    last_use = {parent: name for name, used in parents.items() for parent in used}
    # Of each batch: name -> what the layer gives, in the whole model and in this.
    batches = [{name: (inputs[name], inputs[name]) for name in small.input_names}
               for inputs, _ in read(train, examples)]
    masks = [batch[INPUT_NAMES[1]][0].numpy() > 0 for batch in batches]
    for layer in small.layers:  # inputs before what reads them
        used = parents[layer.name]
        if not used:
            continue
        own = whole.get_layer(layer.name)
        if id(layer) in readers:
            read_by = [batch[used[0]] for batch in batches]
            pairs = ((_rows(theirs, mask), _rows(ours, mask))
                     for (theirs, ours), mask in zip(read_by, masks, strict=True))
            _fit(layer, own, pairs,
                 pooled if layer is parts.head.pooler else slice(None))
        for batch in batches:
            theirs, ours = zip(*(batch[name] for name in used), strict=True)
            batch[layer.name] = _call(own, theirs), _call(layer, ours)
            for name in used:
                if last_use[name] == layer.name:
                    batch.pop(name, None)


def _call(layer, inputs):
    return layer(inputs[0] if len(inputs) == 1 else list(inputs))


def _rows(x, mask: np.ndarray) -> np.ndarray:
    """A row for each visible token of <float>[B, T, D], or for each of <float>[B, D].

    Returns:
        <float>[N, D + 1]; the last column, all ones, goes with the bias.
    """
    rows = x.numpy()[mask] if len(x.shape) == 3 else x.numpy()
    return np.concatenate([rows, np.ones([len(rows), 1])], axis=1, dtype=np.float64)


def _fit(layer: keras.layers.Dense, whole: keras.layers.Dense,
         pairs: Iterable[tuple[np.ndarray, np.ndarray]], columns) -> None:
    """Solves for kernel and bias, so that the product is again what it was.

    Args:
        layer: is changed.
        whole: the same layer of the whole model.
        pairs: of a batch, the rows that `whole` takes and those that `layer` takes.
        columns: those of `whole` that the layer has.
    """
    wanted = np.vstack(whole.get_weights())[:, columns]
    weights = np.vstack(layer.get_weights()).astype(np.float64)
    squares = np.zeros([len(weights), len(weights)])
    across = np.zeros([len(weights), len(wanted)])
    for theirs, ours in pairs:
        squares += ours.T @ ours
        across += ours.T @ theirs
    weights += damped(squares, across @ wanted - squares @ weights)
    layer.set_weights([weights[:-1], weights[-1]])
