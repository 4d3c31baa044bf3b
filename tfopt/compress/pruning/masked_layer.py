"""The layer that holds a mask over a kernel while a model is trained.

It is a `PruneLowMagnitude` of tfmot's, so that `strip_pruning` and everything else that
asks for one takes it, but computes with w * mask where tfmot's writes w * mask back
into the variable at each step and chooses masks by sorting inside the step. That needs
no talk between replicas, and so compiles by XLA under any strategy; masked weights keep
their value, so that a score may bring them back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import numpy as np

from tfopt.backend import PruneLowMagnitude, keras, tf
from tfopt.compress.layer_selection import kernel_name
from tfopt.compress.pruning.scores import SCORES
from tfopt.train.optimizer import accelerated

# (layer -> scores, step) -> layer -> mask
Chooser = Callable[[Mapping[str, np.ndarray], int], Mapping[str, np.ndarray]]
# (layer -> its wrapper, step) -> layer -> how many weights go; None if blocks do, say
Counter = Callable[[Mapping[str, "Pruned"], int], Mapping[str, int] | None]


@keras.utils.register_keras_serializable(package="tfopt")
class Pruned(PruneLowMagnitude):
    """Computes a layer with a mask over its kernel.

    Args:
        layer: a Dense, Conv or Embedding.
        score: name of the score whose gradients are gathered while training.
        **kwargs: of `PruneLowMagnitude`.

    Attributes:
        gathered: what the score gathers <float32>[..., K, N]; None if it needs nothing.
    """

    def __init__(self, layer, score="magnitude", **kwargs):
        # The layer's own precision: inputs are cast to it here, not in the layer.
        super().__init__(layer, **{"dtype": layer.dtype_policy, **kwargs})
        self.score = score

    def build(self, input_shape):
        """Makes the mask, of ones."""
        super().build(input_shape)
        self.gathered = None
        if SCORES[self.score].gather is not None:
            # Each replica gathers for itself; who reads it gets the sum.
            self.gathered = self.add_weight(
                "gathered", self.kernel.shape, tf.float32, "zeros", trainable=False,
                experimental_autocast=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM)

    @property
    def kernel(self) -> tf.Variable:
        """The weights <float>[..., K, N], masked or not."""
        return uncast(self.prunable_weights[0])

    @property
    def mask(self) -> tf.Variable:
        """Ones and zeros <float>[..., K, N]; the callback `PruningStep` sets them."""
        return uncast(self.pruning_vars[0][1])

    def scores(self) -> np.ndarray:
        """How much each weight matters <float>[..., K, N]."""
        return SCORES[self.score].of(
            self.kernel.numpy(),
            None if self.gathered is None else self.gathered.numpy())

    def call(self, inputs, training=None, **kwargs):
        """The layer's output, with the masked kernel."""
        masked = tf.cast(self._masked_kernel(), self.layer.compute_dtype)
        with _replaced(self.layer, kernel_name(self.layer), masked):
            return self.layer.call(inputs, **kwargs)

    def _masked_kernel(self):
        mask = tf.convert_to_tensor(self.mask)

        @tf.custom_gradient
        def masked(weight):
            def backward(gradient):
                if self.gathered is not None:
                    self.gathered.assign(SCORES[self.score].gather(
                        self.gathered, weight, gradient))
                return gradient * mask

            return weight * mask, backward

        return masked(tf.convert_to_tensor(self.kernel))

    def get_config(self):
        """Mirrors `__init__`."""
        return {**super().get_config(), "score": self.score}


def wrappers_of(model: keras.Model) -> dict[str, Pruned]:
    """The wrappers of a model by the names of the layers in them."""
    return {layer.layer.name: layer for layer in model.layers
            if isinstance(layer, Pruned)}


def check_wrapped(wrappers: Mapping, model: keras.Model, what: str) -> None:
    """Refuses a model without wrappers; `what` says what only a wrapped one can.

    Raises:
        ValueError: there are none.
    """
    if not wrappers:
        raise ValueError(f"Only a model from `wrap` {what}. Received: layers "
                         f"{[layer.name for layer in model.layers][:8]}")


def check_wrappable(layer: keras.layers.Layer, score: str) -> None:
    """Refuses a layer that cannot be pruned by a score.

    Raises:
        ValueError: it is used twice, or its gradients cannot be gathered.
    """
    if len(layer.inbound_nodes) > 1:
        raise ValueError("A layer that is used more than once cannot be wrapped. "
                         f"Received: layer {layer.name!r}")
    if SCORES[score].gather and layer.compute_dtype == "float16":
        raise ValueError(
            f"The score {score!r} gathers gradients, which mixed_float16 multiplies by "
            "a changing loss scale; use mixed_bfloat16. "
            f"Received: layer {layer.name!r} of {layer.dtype_policy.name}")


def check_pruned(wrappers: Mapping[str, Pruned], model: keras.Model,
                 due: Mapping[str, int] | int, last_step: int) -> None:
    """Refuses a model whose masks have fewer zeros than they are to end with.

    Args:
        wrappers: of the model.
        model: that was trained.
        due: layer -> zeros at the end; or those of all layers.
        last_step: of the pruning.

    Raises:
        ValueError: it has.
    """
    zeros = {name: int(np.sum(one.mask.numpy() == 0)) for name, one in wrappers.items()}
    count = sum(zeros.values())
    if isinstance(due, Mapping):
        wanted = sum(due.values())
        done = all(zeros[name] >= due[name] for name in zeros)
    else:
        wanted, done = due, count >= due
    if done:
        return
    optimizer = getattr(model, "optimizer", None)
    steps = "" if optimizer is None else (
        f" after {int(keras.backend.get_value(optimizer.iterations))} steps")
    raise ValueError(
        "A model must be pruned to the end before it is stripped: `fit` needs the "
        f"pass's `callbacks()`, and {last_step} steps or more. Received: {count:,} "
        f"zeros of {wanted:,}{steps}")


def set_masks(wrappers: Mapping[str, Pruned], choose: Chooser, step: int,
              counts: Counter | None = None) -> None:
    """Chooses the masks by the scores as they are now.

    Args:
        wrappers: layer -> its wrapper.
        choose: what chooses, in NumPy.
        step: optimizer steps done.
        counts: tells how many weights go where that is all there is to choose: an
            accelerator then does it, in a tenth of the time that it takes the host.
    """
    zeros = counts(wrappers, step) if counts and accelerated() else None
    if zeros is not None:
        by_shape: dict = {}
        for name, wrapper in wrappers.items():
            by_shape.setdefault(tuple(wrapper.kernel.shape), []).append(name)
        for names in by_shape.values():
            alike = [wrappers[name] for name in names]
            masks = _chosen(
                [tf.convert_to_tensor(one.kernel) for one in alike],
                [tf.convert_to_tensor(one.gathered) for one in alike
                 if one.gathered is not None],
                tf.constant([zeros[name] for name in names]), alike[0].score)
            for one, mask in zip(alike, masks, strict=True):
                one.mask.assign(mask)
        return
    scores = {name: wrapper.scores() for name, wrapper in wrappers.items()}
    for name, mask in choose(scores, step).items():
        wrappers[name].mask.assign(mask)


@tf.function(jit_compile=True)
def _chosen(kernels, gathered, zeros, score: str):
    """Masks with so many zeros where the scores are least; of equal ones the first go.

    The bound is found bit by bit, by counting what is not above it: 32 passes over the
    scores of all kernels at once, where to sort takes one kernel after another.

    Args:
        kernels: n <float32>[K, N], of one shape.
        gathered: of each what its score gathers; empty if that needs nothing.
        zeros: <int32>[n].
        score: name of the score.

    Returns:
        n masks <float32>[K, N].
    """
    scores = tf.reshape(SCORES[score].of(
        tf.stack(kernels), tf.stack(gathered) if gathered else None),
        [len(kernels), -1])
    # As integers in the same order; there is one 0 only.
    bits = tf.bitcast(tf.where(tf.equal(scores, 0.0), 0.0, scores), tf.int32)
    order = tf.where(bits < 0, tf.bitwise.bitwise_xor(bits, tf.int32.max), bits)
    low, high = tf.fill([len(kernels)], tf.int32.min), tf.fill([len(kernels)],
                                                               tf.int32.max)
    for _ in tf.range(32):
        # Their mean, rounded down: a sum of the two would not fit.
        middle = tf.bitwise.bitwise_and(low, high) + tf.bitwise.right_shift(
            tf.bitwise.bitwise_xor(low, high), 1)
        count = tf.reduce_sum(tf.cast(order <= middle[:, tf.newaxis], tf.int32), 1)
        low = tf.where(count >= zeros, low, middle + 1)
        high = tf.where(count >= zeros, middle, high)
    below, equal = order < low[:, tf.newaxis], tf.equal(order, low[:, tf.newaxis])
    left = zeros - tf.reduce_sum(tf.cast(below, tf.int32), 1)
    gone = below | (equal & (tf.cumsum(tf.cast(equal, tf.int32), 1)
                             <= left[:, tf.newaxis]))
    masks = tf.reshape(1.0 - tf.cast(gone, tf.float32),
                       [len(kernels), *kernels[0].shape])
    return tf.unstack(masks)


def uncast(view) -> tf.Variable:
    """The variable itself, where Keras gives a view that casts to the layer's dtype."""
    return view._variable if hasattr(view, "true_dtype") else view


@contextlib.contextmanager
def _replaced(layer, name, value):
    """Puts a tensor in the place of a layer's variable, for one call."""
    # Past Keras' own __setattr__, which would forget that the variable is a weight.
    own = vars(layer)[name]
    object.__setattr__(layer, name, value)
    try:
        yield
    finally:
        object.__setattr__(layer, name, own)
