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
from typing import Any

# tfmot knows Keras 2 only. Set here as well as in `backend`, for scripts that import
# tfopt first and TensorFlow second.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

__version__ = "0.2.0"

# Name -> the module under tfopt that has it; "" for a module of that very name.
_HOMES = {
    "Bundle": "serve.bundle",
    "Distillation": "train.distill.config",
    "Fisher": "compress.passes.fisher",
    "HiddenWidth": "compress.passes.hidden_width",
    "Interpreter": "export.interpreter",
    "Job": "pipeline.job",
    "LowRank": "compress.passes.low_rank",
    "Magnitude": "compress.passes.magnitude",
    "Movement": "compress.passes.movement",
    "QuantizationAware": "compress.passes.quantization_aware",
    "Recipe": "compress.recipe",
    "Retrain": "compress.passes.retrain",
    "Search": "pipeline.searching",
    "SparseDense": "compress.passes.sparse_dense",
    "Structured": "compress.passes.structured",
    "Student": "compress.passes.student",
    "Taylor": "compress.passes.taylor",
    "Truncate": "compress.passes.truncate",
    "Vocabulary": "compress.passes.vocabulary",
    "add_metadata": "api",
    "callbacks": "",
    "compress": "",
    "compress_model": "api",
    "convert": "export.tflite",
    "data": "",
    "export": "",
    "measure": "",
    "model": "",
    "pipeline": "",
    "quantize_model": "api",
    "report": "",
    "serve": "",
    "sparse": "",
    "strategy": "train.distribute.strategy",
    "tasks": "",
    "tokenizer_from": "data",
    "train": "",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tfopt' has no attribute {name!r}")
    if not _HOMES[name]:
        return importlib.import_module(f"tfopt.{name}")
    return getattr(importlib.import_module(f"tfopt.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
