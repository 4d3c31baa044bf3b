"""tfopt makes BERT small and fast on TensorFlow.

    text --data--> ids --model--> logits            a checkpoint, loaded and fine-tuned
    Model --compress--> Model --export--> .tflite   passes by recipe, or by hand
    .tflite --measure--> rows --report--> report.{json,md,png}

By hand, in a Keras script of one's own:

    pruning = tfopt.Magnitude(final_sparsity=0.5, end_step=2000)
    wrapped = pruning.wrap(model)
    wrapped.compile(...)
    wrapped.fit(data, callbacks=pruning.callbacks())
    small = pruning.strip(wrapped)
    open("small.tflite", "wb").write(tfopt.convert(small, "dynamic_wi8_afp32"))

Names are imported when first used, so that a server that only runs a `.tflite`
(`tfopt.Bundle`, `tfopt.Interpreter`) imports no TensorFlow.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

# tfmot knows Keras 2 only. Set here as well as in `backend`, for scripts that import
# tfopt first and TensorFlow second.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

if TYPE_CHECKING:
    from tfopt import (
        callbacks,
        compress,
        data,
        export,
        measure,
        model,
        report,
        serve,
        sparse,
        tasks,
        train,
    )
    from tfopt.api import compress_model, quantize_model
    from tfopt.compress.passes.fisher import Fisher
    from tfopt.compress.passes.low_rank import LowRank
    from tfopt.compress.passes.magnitude import Magnitude
    from tfopt.compress.passes.movement import Movement
    from tfopt.compress.passes.quantization_aware import QuantizationAware
    from tfopt.compress.passes.structured import Structured
    from tfopt.compress.passes.student import Student
    from tfopt.compress.passes.taylor import Taylor
    from tfopt.compress.passes.truncate import Truncate
    from tfopt.compress.passes.vocabulary import Vocabulary
    from tfopt.compress.recipe import Recipe
    from tfopt.export.interpreter import Interpreter
    from tfopt.export.tflite import convert
    from tfopt.serve.bundle import Bundle
    from tfopt.train.distill.config import Distillation
    from tfopt.train.distribute.strategy import strategy

__version__ = "0.2.0"

__all__ = [
    "Bundle",
    "Distillation",
    "Fisher",
    "Interpreter",
    "LowRank",
    "Magnitude",
    "Movement",
    "QuantizationAware",
    "Recipe",
    "Structured",
    "Student",
    "Taylor",
    "Truncate",
    "Vocabulary",
    "callbacks",
    "compress",
    "compress_model",
    "convert",
    "data",
    "export",
    "measure",
    "model",
    "quantize_model",
    "report",
    "serve",
    "sparse",
    "strategy",
    "tasks",
    "train",
]

_HOMES = {
    "Bundle": "tfopt.serve.bundle",
    "Distillation": "tfopt.train.distill.config",
    "Fisher": "tfopt.compress.passes.fisher",
    "Interpreter": "tfopt.export.interpreter",
    "LowRank": "tfopt.compress.passes.low_rank",
    "Magnitude": "tfopt.compress.passes.magnitude",
    "Movement": "tfopt.compress.passes.movement",
    "QuantizationAware": "tfopt.compress.passes.quantization_aware",
    "Recipe": "tfopt.compress.recipe",
    "Structured": "tfopt.compress.passes.structured",
    "Student": "tfopt.compress.passes.student",
    "Taylor": "tfopt.compress.passes.taylor",
    "Truncate": "tfopt.compress.passes.truncate",
    "Vocabulary": "tfopt.compress.passes.vocabulary",
    "compress_model": "tfopt.api",
    "convert": "tfopt.export.tflite",
    "quantize_model": "tfopt.api",
    "strategy": "tfopt.train.distribute.strategy",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"tfopt.{name}")
    raise AttributeError(f"module 'tfopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
