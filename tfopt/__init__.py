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
(`tfopt.Interpreter`, `tfopt.data.WordPiece`) imports no TensorFlow.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

# tfmot knows Keras 2 only. Set here as well as in `backend`, for scripts that import
# tfopt first and TensorFlow second.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

if TYPE_CHECKING:
    from tfopt import compress, data, export, measure, model, report, train
    from tfopt.compress.passes.magnitude import Magnitude
    from tfopt.compress.recipe import Recipe
    from tfopt.export.interpreter import Interpreter
    from tfopt.export.tflite import convert

__version__ = "0.1.0"

__all__ = [
    "Interpreter",
    "Magnitude",
    "Recipe",
    "compress",
    "convert",
    "data",
    "export",
    "measure",
    "model",
    "report",
    "train",
]

_HOMES = {
    "Interpreter": "tfopt.export.interpreter",
    "Magnitude": "tfopt.compress.passes.magnitude",
    "Recipe": "tfopt.compress.recipe",
    "convert": "tfopt.export.tflite",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in __all__:
        return importlib.import_module(f"tfopt.{name}")
    raise AttributeError(f"module 'tfopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
