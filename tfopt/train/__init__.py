"""Training: `fit`, its settings and callbacks."""

from tfopt.train import callbacks, objective, strategy
from tfopt.train.loop import Settings, fit
from tfopt.train.optimizer import AdamW
from tfopt.train.precision import retype
from tfopt.train.schedule import WarmupLinearDecay

__all__ = ["AdamW", "Settings", "WarmupLinearDecay", "callbacks", "fit", "objective",
           "retype", "strategy"]
