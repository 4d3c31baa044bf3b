"""Keras callbacks of the passes that train; each also serves one's own `model.fit`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from absl import logging

from tfopt.backend import keras, tf
from tfopt.compress.pruning.masked_layer import (
    Chooser,
    Counter,
    check_wrapped,
    set_masks,
    uncast,
    wrappers_of,
)
from tfopt.compress.pruning.schedules import Schedule
from tfopt.train import trackers
from tfopt.train.callbacks import steps_done
from tfopt.types import PathLike


class PruningStep(keras.callbacks.Callback):
    """Chooses the masks of a wrapped model between two steps, when they are due.

    Args:
        choose: (layer -> scores, step) -> layer -> mask, such as
            `Pruning.choose_masks`.
        schedule: when masks are due.
        counts: what tells how many weights go, if no more than that is chosen, such as
            `Pruning.count_zeros`.
    """

    def __init__(self, choose: Chooser, schedule: Schedule,
                 counts: Counter | None = None):
        super().__init__()
        self._choose = choose
        self._counts = counts
        self._schedule = schedule

    def on_train_begin(self, logs=None):
        """Prunes at step 0, where the schedule begins there.

        Raises:
            ValueError: the model has no wrapped layer.
        """
        self._wrappers = wrappers_of(self.model)
        check_wrapped(self._wrappers, self.model, "can be pruned")
        done = steps_done(self.model)
        # A resumed run has the masks of its last choice.
        self._chosen_at = (None if self._schedule.due(done)
                           else self._schedule.latest_due(done))
        self._update()

    def on_train_batch_end(self, batch, logs=None):
        """Prunes where it is due; once, if several steps are one call."""
        self._update()

    def next_step(self, done: int) -> int | None:
        """The next step behind which it must be called (`StepsPerExecution`)."""
        return self._schedule.next_due(done)

    def _update(self):
        due = self._schedule.latest_due(steps_done(self.model))
        if due in (None, self._chosen_at):
            return
        self._chosen_at = due
        set_masks(self._wrappers, self._choose, due, self._counts)


class KeepMask(keras.callbacks.Callback):
    """Keeps the zeros of a pruned model through any later training.

    What is zero in a kernel or embedding when training begins is zero after every step
    by `train.AdamW`, and after every call of the training function by any other
    optimizer; a weight that is all zeros is taken for fresh, not pruned. It knows no
    layers, and so serves wrapped ones, such as tfmot's for quantization.

    Args:
        required: whether a model without zeros is a mistake.
    """

    def __init__(self, required: bool = True):
        super().__init__()
        self._required = required

    def on_train_begin(self, logs=None):
        """Notes where the zeros are, in the optimizer if it can keep them.

        Raises:
            ValueError: the model has none, and must.
        """
        self._kept = []
        for variable in self.model.trainable_variables:
            mask = variable.numpy() != 0
            if len(variable.shape) > 1 and mask.any() and not mask.all():
                self._kept.append((variable, tf.constant(mask, variable.dtype)))
        if not self._kept and self._required:
            raise ValueError("A model must have zeros to keep. Received: "
                             f"{self.model.name!r}, all of whose weights are dense")
        if hasattr(self.model.optimizer, "keep_zeros"):
            if self.model.optimizer.keep_zeros(uncast(v) for v, _ in self._kept):
                self.model.make_train_function(force=True)
            self._kept = []
        self._zero = tf.function(self._assign)

    def on_train_batch_end(self, batch, logs=None):
        """Sets them to zero again."""
        if self._kept:
            self._zero()

    def _assign(self):
        for variable, mask in self._kept:
            variable.assign(variable * mask)


class SparsityLog(keras.callbacks.Callback):
    """Logs the zeros of each kernel and of all, at each epoch's end.

    Args:
        log_dir: where the trackers' files go; None logs by absl alone.
        names: of the trackers (`train.trackers`).
    """

    def __init__(self, log_dir: PathLike | None = None,
                 names: Sequence[str] = trackers.DEFAULT):
        super().__init__()
        self._trackers = [] if log_dir is None else trackers.opened(names, log_dir)

    def on_epoch_end(self, epoch, logs=None):
        """Counts and logs."""
        zeros, sizes = {}, {}
        wrappers = wrappers_of(self.model)
        for layer in self.model.layers:
            name = layer.layer.name if hasattr(layer, "layer") else layer.name
            if name in wrappers:
                weights = wrappers[name].kernel.numpy() * wrappers[name].mask.numpy()
            else:
                kernels = [v for v in layer.trainable_variables if len(v.shape) > 1]
                if not kernels:
                    continue
                weights = kernels[0].numpy()
            zeros[name], sizes[name] = np.sum(weights == 0), weights.size
        figures = {f"sparsity/{name}": zeros[name] / sizes[name] for name in zeros}
        figures["sparsity"] = sum(zeros.values()) / max(1, sum(sizes.values()))
        logging.info("Sparsity after epoch %d: %.4f of all kernels; %s", epoch + 1,
                     figures["sparsity"], ", ".join(
                         f"{name} {zeros[name] / sizes[name]:.3f}" for name in zeros
                         if zeros[name]))
        for tracker in self._trackers:
            tracker.scalars(figures, steps_done(self.model))
            tracker.flush()
