"""When to prune and how far: sparsity as a pure function of the training step.

"polynomial" is equation 1 of Zhu & Gupta 2017, arXiv:1710.01878; "exponential" takes
the same fraction of the weights still left at every step.
"""

from __future__ import annotations

import dataclasses

from tfopt.backend import keras, tf, tfmot
from tfopt.types import check_fields, check_types

KINDS = ("polynomial", "exponential", "constant", "one_shot")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """Sparsity over the steps of a run.

    Attributes:
        kind: how it gets from `initial_sparsity` to `final_sparsity` between
            `begin_step` and `end_step`: along a "polynomial", or "exponential"; at once
            and with masks chosen anew until the end ("constant"), or chosen but once
            ("one_shot").
        final_sparsity: fraction that ends as zero, in (0, 1).
        initial_sparsity: fraction at `begin_step`, in [0, final_sparsity].
        begin_step: optimizer step of the first pruning, >= 0.
        end_step: step of the last one, >= `begin_step`; where they are equal, it is
            pruned once.
        frequency: steps between two prunings, >= 1. The last one is at `end_step`,
            whether or not that is a multiple.
        power: exponent of the polynomial, above 0.
    """

    kind: str = "polynomial"
    final_sparsity: float
    initial_sparsity: float = 0.0
    begin_step: int = 0
    end_step: int
    frequency: int = 100
    power: float = 3.0

    def __post_init__(self):
        """Checks the ranges.

        Raises:
            ValueError: a field is out of its range.
        """
        check_types(self)
        rules = {
            "kind": (self.kind in KINDS, f"one of {KINDS}"),
            "final_sparsity": (0 < self.final_sparsity < 1, "a fraction in (0, 1)"),
            "initial_sparsity": (0 <= self.initial_sparsity <= self.final_sparsity,
                                 "a fraction from 0 to `final_sparsity`"),
            "begin_step": (self.begin_step >= 0, "at least 0"),
            "end_step": (self.end_step >= self.begin_step,
                         f"at least begin_step={self.begin_step}"),
            "frequency": (self.frequency >= 1, "at least 1"),
            "power": (self.power > 0, "above 0"),
        }
        check_fields(self, rules)

    @property
    def last_step(self) -> int:
        """The step of the last pruning, from which the masks stay."""
        return self.begin_step if self.kind == "one_shot" else self.end_step

    def sparsity(self, step: int) -> float:
        """The sparsity to have at a step; 0 before `begin_step`."""
        if step < self.begin_step:
            return 0.0
        length = self.end_step - self.begin_step
        progress = min(1.0, (step - self.begin_step) / length) if length else 1.0
        return float(self._at(progress))

    def due(self, step: int) -> bool:
        """Whether the masks are chosen anew at a step."""
        if not self.begin_step <= step <= self.last_step:
            return False
        return (step == self.last_step
                or (step - self.begin_step) % self.frequency == 0)

    def latest_due(self, step: int) -> int | None:
        """The last step up to this one at which masks were due; None before any."""
        if step < self.begin_step:
            return None
        if step >= self.last_step:
            return self.last_step
        return step - (step - self.begin_step) % self.frequency

    def next_due(self, step: int) -> int | None:
        """The first step after this one at which masks are due; None if none is."""
        if step < self.begin_step:
            return self.begin_step
        if step >= self.last_step:
            return None
        beat = self.frequency - (step - self.begin_step) % self.frequency
        return min(step + beat, self.last_step)

    def to_tfmot(self) -> tfmot.sparsity.keras.PruningSchedule:
        """The same as a schedule for tfmot's own `prune_low_magnitude`."""
        return TfmotSchedule(**dataclasses.asdict(self))

    def _at(self, progress):
        """Sparsity at a fraction of the ramp: a float, or a tensor of them."""
        first, last = self.initial_sparsity, self.final_sparsity
        if self.kind == "polynomial":
            return last + (first - last) * (1 - progress) ** self.power
        if self.kind == "exponential":
            return 1 - (1 - first) * ((1 - last) / (1 - first)) ** progress
        return last + 0 * progress


@keras.utils.register_keras_serializable(package="tfopt")
class TfmotSchedule(tfmot.sparsity.keras.PruningSchedule):
    """A `Schedule` in tfmot's form; its arguments are the schedule's fields."""

    def __init__(self, **fields):
        self._schedule = Schedule(**fields)

    def __call__(self, step):
        """(whether to prune at a step <bool>[], the sparsity <float>[])."""
        plan = self._schedule
        step = tf.cast(step, tf.int64)
        length = max(1, plan.end_step - plan.begin_step)
        progress = tf.clip_by_value(
            tf.cast(step - plan.begin_step, tf.float32) / length, 0.0, 1.0)
        if plan.end_step == plan.begin_step:
            progress = tf.ones_like(progress)
        within = tf.logical_and(step >= plan.begin_step, step <= plan.last_step)
        on_beat = tf.logical_or(
            tf.equal((step - plan.begin_step) % plan.frequency, 0),
            tf.equal(step, plan.last_step))
        return (tf.logical_and(within, on_beat),
                tf.where(step >= plan.begin_step, plan._at(progress), 0.0))

    def get_config(self):
        """Tfmot's form: class name and arguments."""
        return {"class_name": "tfopt>TfmotSchedule",
                "config": dataclasses.asdict(self._schedule)}

    @classmethod
    def from_config(cls, config):
        """Mirrors `get_config`, with or without the class name round it."""
        return cls(**config.get("config", config))
