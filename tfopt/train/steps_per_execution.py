"""Several steps in one call of the training function: how many, and no more than due.

On an accelerator the host's part of a step (a call, the callbacks, a look at the loss)
takes as long as the step. Keras can run several steps in a call; what must happen
between two certain steps would then come late. Here a call is as long as the callbacks
allow: one that acts at certain steps names them by a method
`next_step(done: int) -> int | None`, the next step, after those done, behind which it
must be called.
"""

from __future__ import annotations

from collections.abc import Sequence

from tfopt.backend import constant_collective_keys, keras, tf
from tfopt.train.callbacks import steps_done


class StepsPerExecution(keras.callbacks.Callback):
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


class MultiStepModel(keras.Model):
    """A functional model that makes several steps in a call without a wait in between.

    Keras' loop is a part of the graph, in which every edge from a device to the host
    waits for the device: at each step's end, for each number that the host gives to a
    sum over replicas, and for the metrics' sums, of which the last step's alone are
    looked at. The device then waits for the host to launch the next step. Here the loop
    is Python's, and the host is ahead by as many steps as there are batches.

    Compiled with `steps_per_execution=1`, or on TPUs, it is a model like any other.
    """

    _within_step = False

    def make_train_function(self, force=False):
        """Makes what takes an iterator, makes the steps, and returns the metrics."""
        strategy = self.distribute_strategy
        if (int(self._steps_per_execution.numpy()) == 1 or self.run_eagerly
                or isinstance(strategy, tf.distribute.TPUStrategy)):
            return super().make_train_function(force)
        if self.train_function is None or force:
            one = tf.function(self._one_step, reduce_retracing=True)

            def several(iterator):
                steps = int(self._steps_per_execution.numpy())
                for _ in range(steps):
                    one(iterator)
                self._train_counter.assign_add(steps)
                return self.get_metrics_result()

            self.train_function = several
        return self.train_function

    def get_metrics_result(self):
        """The metrics by name; nothing within a step, where nobody looks at them."""
        return {} if self._within_step else super().get_metrics_result()

    def _one_step(self, iterator):
        strategy, step = self.distribute_strategy, self.train_step
        if self._jit_compile:
            step = tf.function(step, jit_compile=True, reduce_retracing=True)
        self._within_step = True
        with constant_collective_keys(self._jit_compile and isinstance(
                strategy, tf.distribute.MirroredStrategy)):
            strategy.run(step, args=(next(iterator),))
        self._within_step = False
