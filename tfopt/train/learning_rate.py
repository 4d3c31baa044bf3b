"""The learning rate over a run: linear warm-up, then linear decay to zero.

After Devlin et al. 2018, arXiv:1810.04805, appendix A.2.
"""

from __future__ import annotations

from tfopt.backend import keras, tf


@keras.utils.register_keras_serializable(package="tfopt")
class WarmupLinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """peak * min(step / warmup, (total - step) / (total - warmup)), never below 0.

    Args:
        peak: the highest learning rate.
        warmup_steps: steps until it is reached, >= 0.
        total_steps: step at which it is zero, > `warmup_steps`.

    Raises:
        ValueError: the steps are not in that order.
    """

    def __init__(self, peak: float, warmup_steps: int, total_steps: int):
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(
                "The schedule needs 0 <= warmup_steps < total_steps. Received: "
                f"warmup_steps={warmup_steps}, total_steps={total_steps}")
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps

    def __call__(self, step):
        """The rate at a step, counted from 0; the first update is not lost on 0."""
        done = tf.cast(step, tf.float32) + 1.0
        rising = done / (self.warmup_steps + 1.0)
        falling = (self.total_steps + 1.0 - done) / (
            self.total_steps - self.warmup_steps)
        return self.peak * tf.maximum(0.0, tf.minimum(rising, falling))

    def get_config(self):
        """Mirrors `__init__`."""
        return {"peak": self.peak, "warmup_steps": self.warmup_steps,
                "total_steps": self.total_steps}
