"""Keras callbacks of the training loop; each also serves a user's own `model.fit`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import logging

from tfopt.backend import keras, tf
from tfopt.train import trackers
from tfopt.types import BatchSource, PathLike


def steps_done(model: keras.Model) -> int:
    """Optimizer steps done."""
    return int(keras.backend.get_value(model.optimizer.iterations))


class StopOnNonFinite(keras.callbacks.Callback):
    """Ends training with an error when the loss is no finite number.

    Keras' own `TerminateOnNaN` ends it in silence, and the weights look trained.
    """

    _checked = -1  # the epoch's last step that was a good one, from 0

    def on_epoch_begin(self, epoch, logs=None):
        """Counts the epoch's steps anew."""
        self._checked = -1

    def on_train_batch_end(self, batch, logs=None):
        """Checks the running mean, which one non-finite loss spoils for good.

        Raises:
            FloatingPointError: names the step, or the steps of one call.
        """
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            step = steps_done(self.model)
            length = max(1, batch - self._checked)
            raise FloatingPointError(
                "The training loss is not finite at step "
                + (f"{step}" if length == 1 else f"{step - length + 1} to {step}")
                + "; lower the learning rate or check the data. "
                f"Received: loss={loss}")
        self._checked = batch


class TrainingLog(keras.callbacks.Callback):
    """Gives loss, learning rate, examples/s and dev metrics to trackers.

    Args:
        log_dir: where their files go.
        batch_size: B, to count examples.
        every: steps between two entries of the training figures; more, where one
            call of the training function makes more.
        names: of the trackers (`train.trackers`).
        params: what the training was told, for their pages of that; None for none.
    """

    def __init__(self, log_dir: PathLike, batch_size: int, every: int = 20,
                 names: Sequence[str] = trackers.DEFAULT,
                 params: Mapping[str, Any] | None = None):
        super().__init__()
        self._trackers = trackers.opened(names, log_dir)
        self._params = params
        self._batch_size = batch_size
        self._every = every
        self._since = None

    def on_train_begin(self, logs=None):
        """Tells what the training was told."""
        if self._params is not None:
            for tracker in self._trackers:
                tracker.params(self._params)

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock anew, so that evaluation is not counted as training."""
        self._since = None
        self._seen = steps_done(self.model)

    def on_train_batch_end(self, batch, logs=None):
        """Writes the training figures, now and then."""
        step = steps_done(self.model)
        due = step // self._every > self._seen // self._every
        self._seen = step
        if not due:
            return
        now = time.perf_counter()
        figures = {"train/loss": logs["loss"],
                   "train/learning_rate": float(
                       keras.backend.get_value(self.model.optimizer.learning_rate))}
        if self._since is not None:
            since, at = self._since
            figures["train/examples_per_s"] = (
                (step - since) * self._batch_size / (now - at))
        self._since = step, now
        self._write(figures, step)

    def on_epoch_end(self, epoch, logs=None):
        """Writes the dev metrics."""
        self._write({f"dev/{name.removeprefix('val_')}": value
                     for name, value in (logs or {}).items()
                     if name.startswith("val_")},
                    steps_done(self.model))
        for tracker in self._trackers:
            tracker.flush()

    def _write(self, figures, step):
        for tracker in self._trackers if figures else ():
            tracker.scalars(figures, step)


class ProgressLine(keras.callbacks.Callback):
    """Logs a line now and then, where a progress bar would fill a file.

    Args:
        batch_size: B, to count examples.
        every_s: seconds between two lines.
    """

    def __init__(self, batch_size: int, every_s: float = 30.0):
        super().__init__()
        self._batch_size = batch_size
        self._every_s = every_s

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock of the epoch."""
        self._epoch = epoch
        self._start = self._last = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        """Logs if the time has come."""
        now = time.monotonic()
        if now - self._last < self._every_s:
            return
        self._last = now
        steps, per_step_s = batch + 1, (now - self._start) / (batch + 1)
        logging.info(
            "Epoch %d: step %d of %d, loss %.4f, %.0f examples/s, %.0f s left of it",
            self._epoch + 1, steps, self.params["steps"], logs["loss"],
            self._batch_size / per_step_s,
            (self.params["steps"] - steps) * per_step_s)


class PaddedLossCorrection(keras.callbacks.Callback):
    """Makes the dev loss a mean over examples, where batches were filled up.

    Keras takes the rows that weigh nothing into its mean; other metrics leave them out.

    Args:
        dev: batches, of which the last may be smaller.
    """

    def __init__(self, dev: BatchSource):
        super().__init__()
        # Counted at the first use: a dataset may take a while.
        self._dev, self._factor = dev, None

    def on_epoch_end(self, epoch, logs=None):
        """Corrects it, for the callbacks behind this one."""
        if not logs or "val_loss" not in logs:
            return
        if self._factor is None:
            inputs = self._dev.dataset().map(
                lambda *batch: tf.shape(tf.nest.flatten(batch)[0])[0])
            examples = int(inputs.reduce(0, lambda total, rows: total + rows))
            self._factor = (self._dev.steps_per_epoch * self._dev.batch_size
                            / examples)
        logs["val_loss"] *= self._factor


class KeepBest(keras.callbacks.Callback):
    """Keeps the weights of the epoch that is best on dev; stops when it stalls.

    Args:
        state: the run's `RunState`, which keeps the best value so far, its epoch and
            weights.
        patience: epochs without a better value after which training stops; None
            never stops it.
        first_valid_step: epochs that end before this step are passed over: the model
            was not yet in its final form, such as half pruned.
        monitor: name of the metric by which an epoch is the best, and whether "higher"
            or "lower" is better (`Objective.monitor`).
    """

    def __init__(self, state, patience: int | None = None,
                 first_valid_step: int = 0,
                 monitor: tuple[str, str] = ("accuracy", "higher")):
        super().__init__()
        self._metric, self._better = f"val_{monitor[0]}", monitor[1]
        self._state = state
        self._patience = patience
        self._first_valid_step = first_valid_step

    def on_epoch_end(self, epoch, logs=None):
        """Compares and keeps."""
        value = (logs or {}).get(self._metric)
        # A NaN would be the best for good: no number is above it.
        if (value is None or not math.isfinite(value)
                or steps_done(self.model) < self._first_valid_step):
            return
        best = self._state.best_value
        if best is None or (value > best if self._better == "higher" else value < best):
            self._state.keep_best(value, epoch, self.model)
        elif (self._patience is not None
              and epoch - self._state.best_epoch >= self._patience):
            self.model.stop_training = True


class SaveRunState(keras.callbacks.Callback):
    """Saves the state of the run every `every_s` seconds, and at each epoch's end.

    Args:
        state: the run's `RunState`.
        every_s: seconds between two saves within an epoch.
        agree: of whether the time has come, what all workers hold, since all must save
            at the same step; None where there is one.
    """

    def __init__(self, state, every_s: float = 60.0,
                 agree: Callable[[bool], bool] | None = None):
        super().__init__()
        self._state = state
        self._every_s = every_s
        self._agree = agree
        self._last = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        """Saves if the time has come; an epoch's last step is left to its end."""
        # Saved before its evaluation, an epoch would be missed by a resumed run.
        if batch + 1 == self.params["steps"]:
            return
        due = time.monotonic() - self._last >= self._every_s
        if self._agree(due) if self._agree else due:
            self._save()

    def on_epoch_end(self, epoch, logs=None):
        """Saves, as finished if training is to stop here."""
        self._state.history.append(
            {name: float(value) for name, value in (logs or {}).items()})
        self._state.finished = self.model.stop_training
        self._save()

    def _save(self):
        self._state.save()
        self._last = time.monotonic()
