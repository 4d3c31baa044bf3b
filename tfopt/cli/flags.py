"""Flags of the commands and scripts, made of the fields of the pipeline's options.

`define` makes the flags of a record, `read` makes the record of what they were given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, TypeVar

from absl import flags, logging

from tfopt.checkpoint_names import for_trial
from tfopt.pipeline.export_options import Exports
from tfopt.pipeline.option import choices_of
from tfopt.pipeline.options import (
    Batching,
    Data,
    Devices,
    Files,
    Measuring,
    Tables,
    Targets,
)
from tfopt.pipeline.teacher_options import Teacher

if TYPE_CHECKING:
    from tfopt import train

FLAGS = flags.FLAGS
# The flags below count as those of the script that asks for them: its --help lists
# them.
flags.disclaim_key_flags()

Record = TypeVar("Record")
_COLUMNS = ("text_column", "text_pair_column", "label_column", "label_separator",
            "max_length")


def define(kind: type, only: Collection[str] | None = None,
           leave: Collection[str] = (), required: Collection[str] = ()) -> None:
    """Defines the flags of a record's fields.

    Args:
        kind: a record of options.
        only: names of the fields to define; None for all.
        leave: names of fields without a flag.
        required: names of fields whose flag must be given.
    """
    for field in _options(kind):
        if field.name not in leave and (only is None or field.name in only):
            _define(field, field.name in required)


def read(kind: type[Record], **more: Any) -> Record:
    """Makes a record of the flags that are defined.

    Args:
        kind: a record of options.
        **more: fields that have no flag.

    Raises:
        ValueError: a value is out of its range.
    """
    values = {}
    for field in _options(kind):
        name = _name(field)
        if name in FLAGS and field.name not in more:
            value = FLAGS[name].value
            values[field.name] = tuple(value) if isinstance(value, list) else value
    return kind(**values, **more)


def define_model() -> None:
    """Which checkpoint."""
    define(Files, only=("model",))


def define_data() -> None:
    """Which files, which columns, what is learned, and how exports are calibrated."""
    define(Files, leave=("model",))
    define(Data)
    define(Exports, only=("calibration_texts", "ranges"))


def define_task() -> None:
    """What is learned from the texts."""
    define(Files, only=("task",))


def define_columns() -> None:
    """Which columns, and how long a text may be."""
    define(Data, only=_COLUMNS)


def define_training() -> None:
    """How to train, on which devices."""
    flags.DEFINE_integer("epochs", 3, "Passes over the train file.", lower_bound=1)
    flags.DEFINE_float("learning_rate", 1e-4, "Peak learning rate.", lower_bound=1e-12)
    flags.DEFINE_float("weight_decay", 0.01, "Decoupled weight decay.", lower_bound=0.0)
    flags.DEFINE_float("clip_norm", 1.0, "Largest norm of a step's whole gradient; 0 "
                       "does not clip.", lower_bound=0.0)
    flags.DEFINE_integer("patience", None, "Epochs without a better dev accuracy (or "
                         "other metric of the task) after which training stops.",
                         lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of fresh weights, batch order and dropout.",
                         lower_bound=0)
    flags.DEFINE_list("trackers", ["jsonl", "tensorboard"], "Where the figures of "
                      "training go, below logs/: jsonl, tensorboard, wandb (extra "
                      "wandb).")
    define(Batching)
    define_devices()


def define_exporting() -> None:
    """What is in an exported file beside the model."""
    define(Exports, only=("export_length", "metadata", "for_old_runtimes"))


def define_devices() -> None:
    """Where training runs, and by what arithmetic."""
    define(Devices)
    flags.DEFINE_enum("mixed_precision", "auto", ["auto", "float32", "mixed_bfloat16"],
                      "Arithmetic of training; weights stay float32. auto: bfloat16 "
                      "where a GPU or TPU has it.")
    flags.DEFINE_bool("jit_compile", None, "Compile the training step by XLA, anew "
                      "for each length of batches (--pad_multiple). Left out: on "
                      "accelerators.")
    flags.DEFINE_integer("steps_per_execution", None, "Steps of a call, at most. Left "
                         "out: 50 on accelerators, else 1.", lower_bound=1)


def define_measuring() -> None:
    """How to time."""
    define(Measuring, leave=("sparse_core",))


def settings() -> train.Settings:
    """The training settings that the flags name."""
    from tfopt import train

    return train.Settings(
        epochs=FLAGS.epochs, learning_rate=FLAGS.learning_rate,
        weight_decay=FLAGS.weight_decay, clip_norm=FLAGS.clip_norm or None,
        patience=FLAGS.patience, seed=FLAGS.seed, jit_compile=FLAGS.jit_compile,
        mixed_precision=FLAGS.mixed_precision,
        steps_per_execution=FLAGS.steps_per_execution,
        trackers=tuple(FLAGS.trackers))


def fine_tuning(kind: type | None = None) -> Any:
    """The fine-tuning that the flags name.

    Args:
        kind: `pipeline.Job`, or None for `pipeline.FineTuning`.

    Raises:
        ValueError: a value is out of its range.
    """
    from tfopt.pipeline.fine_tuning import FineTuning

    records: dict[str, Any] = {
        "data": Data, "batching": Batching, "devices": Devices, "teacher": Teacher,
        "exports": Exports, "measuring": Measuring, "targets": Targets,
        "tables": Tables}
    kind = kind or FineTuning
    known = {field.name for field in dataclasses.fields(kind)}
    given = {name: read(record) for name, record in records.items() if name in known}
    tuning: Any = read(kind, settings=settings(), **given)
    model = for_trial(tuning.model) if tuning.measuring.smoke else tuning.model
    if model != tuning.model:
        logging.warning("%s is not installed: the trial takes %s", tuning.model, model)
    return dataclasses.replace(tuning, model=model)


def _options(kind: type) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(kind) if field.metadata]


def _name(field: dataclasses.Field) -> str:
    return field.metadata["flag"] or field.name


def _define(field: dataclasses.Field[Any], required: bool) -> None:
    about, kind = field.metadata["about"], str(field.type)
    name = _name(field)
    default: Any = None if required else field.default
    bounds = {"lower_bound": field.metadata["at_least"],
              "upper_bound": field.metadata["at_most"]}
    choices = choices_of(field)
    if choices is not None:
        flags.DEFINE_enum(name, default, list(choices), about)
    elif kind.startswith("int"):
        flags.DEFINE_integer(name, default, about, **bounds)
    elif kind.startswith("float"):
        flags.DEFINE_float(name, default, about, **bounds)
    elif kind.startswith("bool"):
        flags.DEFINE_bool(name, default, about)
    elif kind.startswith("tuple"):
        flags.DEFINE_list(name, [*default], about)
    else:
        flags.DEFINE_string(name, None if default is None else str(default), about,
                            required=required)
