"""Training: `fit`, its settings and callbacks, and distillation from a teacher."""

from tfopt.train import callbacks, objective
from tfopt.train.distill.config import Distillation
from tfopt.train.distill.student import Taps
from tfopt.train.distill.teacher_cache import with_cached_logits
from tfopt.train.distribute import strategy
from tfopt.train.learning_rate import WarmupLinearDecay
from tfopt.train.loop import fit, lean_step
from tfopt.train.optimizer import AdamW
from tfopt.train.precision import retype
from tfopt.train.settings import Settings

__all__ = ["AdamW", "Distillation", "Settings", "Taps", "WarmupLinearDecay",
           "callbacks", "fit", "lean_step", "objective", "retype", "strategy",
           "with_cached_logits"]
