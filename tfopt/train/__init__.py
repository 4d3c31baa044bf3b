"""Training: `fit`, its settings and callbacks, and distillation from a teacher."""

from tfopt.train import callbacks, objective, strategy
from tfopt.train.distillation import Distillation
from tfopt.train.loop import Settings, fit, lean_step
from tfopt.train.optimizer import AdamW
from tfopt.train.precision import retype
from tfopt.train.schedule import WarmupLinearDecay
from tfopt.train.taught import Taps
from tfopt.train.teacher_cache import with_cached_logits

__all__ = ["AdamW", "Distillation", "Settings", "Taps", "WarmupLinearDecay",
           "callbacks", "fit", "lean_step", "objective", "retype", "strategy",
           "with_cached_logits"]
