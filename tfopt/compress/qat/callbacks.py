"""The Keras callback of quantization-aware training; it serves one's own `fit`, too."""

from __future__ import annotations

from tfopt.backend import keras
from tfopt.compress.pruning.masked_layer import check_wrapped
from tfopt.compress.qat import configs, observers
from tfopt.train.callbacks import steps_done


class QuantizationStep(keras.callbacks.Callback):
    """Says when the ranges of a model in quantization-aware training begin and stay.

    Args:
        begin_step: optimizer step before which ranges are observed, and nothing static
            is rounded.
        freeze_step: step from which they stay as they are; None for never.
    """

    def __init__(self, begin_step: int = 0, freeze_step: int | None = None):
        super().__init__()
        self._begin_step = begin_step
        self._freeze_step = freeze_step

    def on_train_begin(self, logs=None):
        """Sets the phase of the step that comes.

        Raises:
            ValueError: the model has no wrapped layer.
        """
        self._wrappers = configs.wrappers_of(self.model)
        check_wrapped(self._wrappers, self.model, "trains with quantization")
        self._phase = None
        self._update()

    def on_train_batch_end(self, batch, logs=None):
        """Sets the next phase where it is due."""
        self._update()

    def next_step(self, done: int) -> int | None:
        """The next step behind which it must be called (`StepsPerExecution`)."""
        return min((step for step in (self._begin_step, self._freeze_step)
                    if step is not None and step > done), default=None)

    def _update(self):
        step = steps_done(self.model)
        phase = (observers.OBSERVE if step < self._begin_step else
                 observers.TRAIN if self._freeze_step is None
                 or step < self._freeze_step else observers.FROZEN)
        if phase != self._phase:
            self._phase = phase
            for wrapper in self._wrappers.values():
                if hasattr(wrapper, "phase"):  # some have static ranges
                    wrapper.phase.assign(phase)
