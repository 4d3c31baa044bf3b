"""Several steps in one call of the training function: how many, and no more than due.

On an accelerator the host's part of a step (a call, the callbacks, a look at the loss)
takes as long as the step. Keras can run several steps in a call; what must happen
between two certain steps would then come late. Here a call is as long as the callbacks
allow: one that acts at certain steps tells them by a method
`next_step(done: int) -> int | None`, the next step, after those done, behind which it
must be called.
"""

from __future__ import annotations

from collections.abc import Sequence

from tfopt.backend import keras
from tfopt.train.callbacks import steps_done


class Executions(keras.callbacks.Callback):
    """Sets the number of steps of each call of the training function.

    Args:
        longest: steps of a call, at most; what the model was compiled with.
        hooks: the other callbacks.
    """

    def __init__(self, longest: int, hooks: Sequence[keras.callbacks.Callback]):
        super().__init__()
        self._longest = longest
        self._asked = [hook.next_step for hook in hooks if hasattr(hook, "next_step")]

    def on_epoch_begin(self, epoch, logs=None):
        """Sets the length of the epoch's first call."""
        self._set(self.params["steps"])

    def on_train_batch_end(self, batch, logs=None):
        """Sets the length of the next one."""
        self._set(self.params["steps"] - batch - 1)

    def _set(self, left: int) -> None:
        # At an epoch's end, whole: evaluation takes as many batches in a call.
        length = self._longest
        if left:
            done = steps_done(self.model)
            due = [step - done for step in (ask(done) for ask in self._asked)
                   if step is not None]
            length = min(self._longest, left, *due)
        self.model.steps_per_execution = length
