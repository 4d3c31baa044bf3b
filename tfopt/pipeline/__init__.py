"""The road from a checkpoint and files to a bundle: a job, its options, its stages.

    result = tfopt.Job(model="minilm", train="train.tsv", out_dir="runs/mine").run()

Names are imported when first used, so that the options alone bring no TensorFlow.
"""

import importlib
from typing import Any

_HOMES = {
    "Batching": "options",
    "Data": "options",
    "Dataset": "dataset",
    "Devices": "options",
    "Exports": "export_options",
    "Files": "options",
    "FineTuning": "fine_tuning",
    "Job": "job",
    "Measuring": "options",
    "Result": "result",
    "Split": "splits",
    "Tables": "options",
    "Targets": "options",
    "Teacher": "teacher_options",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
