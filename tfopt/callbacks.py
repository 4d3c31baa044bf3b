"""Every Keras callback of tfopt, for a user's own `model.fit`."""

from tfopt.compress.pruning.callbacks import (
    KeepMask,
    PruningStep,
    SparsityLog,
)
from tfopt.compress.qat.callbacks import QuantizationStep
from tfopt.train.callbacks import ProgressLine, StopOnNonFinite, TrainingLog

__all__ = ["KeepMask", "ProgressLine", "PruningStep", "QuantizationStep", "SparsityLog",
           "StopOnNonFinite", "TrainingLog"]
