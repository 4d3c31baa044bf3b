"""Every Keras callback of tfopt, for a user's own `model.fit`."""

from tfopt.compress.callbacks import (
    KeepMask,
    PruningStep,
    QuantizationStep,
    SparsityLog,
)
from tfopt.train.callbacks import ProgressLine, StopOnNonFinite, TrainingLog

__all__ = ["KeepMask", "ProgressLine", "PruningStep", "QuantizationStep", "SparsityLog",
           "StopOnNonFinite", "TrainingLog"]
