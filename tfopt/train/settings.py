"""How to train: checked numbers, and what a machine fills in."""

from __future__ import annotations

import dataclasses
import math

from tfopt.train import precision, trackers
from tfopt.train.optimizer import accelerated
from tfopt.types import check_fields, check_types

# Of BERT-Base at batch 64 an H100 makes some 50 steps a second.
_STEPS_PER_EXECUTION = 50


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How to train.

    Attributes:
        epochs: passes over the train set, >= 1.
        learning_rate: the peak.
        weight_decay: fraction per step, times the rate; not on biases and LayerNorm.
        warmup: fraction of all steps in which the rate rises, [0, 1).
        clip_norm: largest global norm of the gradient; None does not clip.
        patience: epochs without a better one on dev before stopping; None never.
        seed: of dropout.
        jit_compile: whether XLA compiles the step, anew for each length of batches;
            None does so on accelerators.
        mixed_precision: "float32" or "mixed_bfloat16"; "auto" for the latter where the
            hardware has it.
        steps_per_execution: steps of one call of the training function, at most; what
            callbacks do at certain steps is never late, logs and saves come after a
            call. None for 50 on accelerators, 1 elsewhere.
        trackers: where figures go: "jsonl", "tensorboard", "wandb" (`train.trackers`).
    """

    epochs: int = 3
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip_norm: float | None = 1.0
    patience: int | None = None
    seed: int = 0
    jit_compile: bool | None = None
    mixed_precision: str = "auto"
    steps_per_execution: int | None = None
    trackers: tuple[str, ...] = trackers.DEFAULT

    def __post_init__(self):
        """Checks the values.

        Raises:
            ValueError: one is out of its range.
        """
        check_types(self)
        trackers.check(self.trackers)
        check_fields(self, {
            "epochs": (self.epochs >= 1, "at least 1"),
            "learning_rate": (0 < self.learning_rate < math.inf,
                              "a finite number above 0"),
            "weight_decay": (0 <= self.weight_decay < math.inf,
                             "a finite number from 0"),
            "warmup": (0 <= self.warmup < 1, "a fraction in [0, 1)"),
            "clip_norm": (self.clip_norm is None or self.clip_norm > 0, "above 0"),
            "patience": (self.patience is None or self.patience >= 1, "at least 1"),
            "mixed_precision": (self.mixed_precision in ("auto", *precision.NAMES),
                                f"one of {('auto', *precision.NAMES)}"),
            "steps_per_execution": (self.steps_per_execution is None
                                    or self.steps_per_execution >= 1, "at least 1"),
        })

    def on_this_machine(self) -> Settings:
        """The settings with nothing left open."""
        here = accelerated()
        return dataclasses.replace(
            self, jit_compile=here if self.jit_compile is None else self.jit_compile,
            mixed_precision=precision.best() if self.mixed_precision == "auto"
            else self.mixed_precision,
            steps_per_execution=self.steps_per_execution or (
                _STEPS_PER_EXECUTION if here else 1))
