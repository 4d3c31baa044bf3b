"""Where the figures of a training go: JSON lines, TensorBoard, Weights & Biases.

    {"step": 20, "time": 1764271234.5, "train/loss": 0.61}     a line of figures.jsonl

A tracker of one's own has the methods of `Tracker`, and stands in `TRACKERS` by a name.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tfopt.backend import tf
from tfopt.files import to_json
from tfopt.types import PathLike

JSONL_FILE = "figures.jsonl"
DEFAULT = ("jsonl", "tensorboard")


class Tracker(Protocol):
    """Takes the figures of one training."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Takes what the training was told, once, before its figures."""

    def scalars(self, figures: Mapping[str, float], step: int) -> None:
        """Takes figures, by name, of an optimizer step."""

    def flush(self) -> None:
        """Leaves nothing unwritten, as at an epoch's end."""


class JsonLines:
    """Appends to a file, a JSON object a line; a killed run goes on in it.

    Args:
        log_dir: where `figures.jsonl` lies.
    """

    def __init__(self, log_dir: PathLike):
        self._place = Path(log_dir) / JSONL_FILE
        self._place.parent.mkdir(parents=True, exist_ok=True)

    def params(self, values: Mapping[str, Any]) -> None:
        """See `Tracker`."""
        self._append({"params": dict(values)})

    def scalars(self, figures: Mapping[str, float], step: int) -> None:
        """See `Tracker`; a figure that is no finite number is null."""
        self._append({"step": step, "time": round(time.time(), 3)} | {
            name: float(value) if math.isfinite(value) else None
            for name, value in figures.items()})

    def flush(self) -> None:
        """Does nothing: each line is written at once."""

    def _append(self, fields: Mapping[str, Any]) -> None:
        with open(self._place, "a", encoding="utf-8") as file:
            file.write(to_json(fields, default=str) + "\n")


class TensorBoard:
    """Writes an event file, with the page HParams.

    Args:
        log_dir: where it goes.
    """

    def __init__(self, log_dir: PathLike):
        self._writer = tf.summary.create_file_writer(str(log_dir))

    def params(self, values: Mapping[str, Any]) -> None:
        """See `Tracker`; values that are neither numbers nor words become words."""
        # The package comes with TensorFlow, but need not.
        with contextlib.suppress(ImportError), self._writer.as_default():
            from tensorboard.plugins.hparams import api

            api.hparams({name: value if isinstance(value, bool | int | float | str)
                         else str(value) for name, value in values.items()})

    def scalars(self, figures: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        with self._writer.as_default():
            for name, value in figures.items():
                tf.summary.scalar(name, value, step=step)

    def flush(self) -> None:
        """See `Tracker`."""
        self._writer.flush()


class WeightsAndBiases:
    """Sends to Weights & Biases, by what its environment variables say.

    WANDB_MODE=offline keeps all in `log_dir`, to be sent by `wandb sync`; WANDB_PROJECT
    and WANDB_API_KEY name where it goes.

    Args:
        log_dir: where its files go; the directories above it name the run.
    """

    def __init__(self, log_dir: PathLike):
        import wandb

        place = Path(log_dir)
        place.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            name="/".join(place.absolute().parts[-3:]), dir=str(place),
            reinit="create_new")

    def params(self, values: Mapping[str, Any]) -> None:
        """See `Tracker`."""
        self._run.config.update(dict(values), allow_val_change=True)

    def scalars(self, figures: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        self._run.log({name: float(value) for name, value in figures.items()},
                      step=step)

    def flush(self) -> None:
        """Does nothing: its own process sends, and ends with this one."""


# Name -> what makes one for a directory.
TRACKERS: dict[str, Callable[[PathLike], Tracker]] = {
    "jsonl": JsonLines, "tensorboard": TensorBoard, "wandb": WeightsAndBiases}
_EXTRAS = {"wandb": "wandb"}  # tracker -> the package that must be installed


def check(names: Sequence[str]) -> None:
    """Checks names of trackers, before any training.

    Raises:
        ValueError: one is unknown, stands twice, or its package is not installed.
    """
    if set(names) - set(TRACKERS) or len(set(names)) < len(names):
        raise ValueError(f"`trackers` must be of {', '.join(TRACKERS)}, each once. "
                         f"Received: trackers={','.join(map(str, names))}")
    for name in names:
        package = _EXTRAS.get(name)
        if package and importlib.util.find_spec(package) is None:
            raise ValueError(f"The tracker {name!r} needs a package: pip install "
                             f"'tfopt[{name}]'. Received: trackers={','.join(names)}")


def opened(names: Sequence[str], log_dir: PathLike) -> list[Tracker]:
    """Makes the trackers of a training.

    Args:
        names: of `TRACKERS`.
        log_dir: where their files go.
    """
    return [TRACKERS[name](log_dir) for name in names]
