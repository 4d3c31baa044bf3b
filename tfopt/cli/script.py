"""What scripts share with the commands: flags, figures, how they end."""

from __future__ import annotations

from pathlib import Path

from absl import flags

from tfopt import report
from tfopt.cli.ending import guard, run
from tfopt.cli.flags import (
    define,
    define_columns,
    define_data,
    define_devices,
    define_measuring,
    define_model,
    define_task,
    define_training,
    fine_tuning,
    read,
)
from tfopt.files import read_json, to_json, write_whole
from tfopt.pipeline.options import Devices
from tfopt.report import command

__all__ = ["command", "define", "define_columns", "define_data", "define_devices",
           "define_measuring", "define_model", "define_task", "define_training",
           "fine_tuning", "guard", "placement", "read", "reported_figures", "run",
           "write_figures"]

# The flags count as those of the script that asks for them: --help lists them.
flags.disclaim_key_flags()


def placement():
    """Where the flags say that training runs; the same at each call.

    Raises:
        ValueError: as `tfopt.strategy`.
    """
    return read(Devices).placement()


def write_figures(path: str, figures: dict) -> None:
    """Writes an experiment's figures with their environment, as JSON."""
    here = report.environment(command=command())
    write_whole(path, to_json({"environment": here, "figures": figures}, indent=1)
                + "\n")


def reported_figures(path: str) -> dict | None:
    """The figures that a killed run of this very command has written; else None.

    Raises:
        ValueError: the file is there, and no report of figures.
    """
    file = Path(path)
    if not file.exists():
        return None
    found = read_json(file, "--report must be new, or what this script wrote",
                      finite=False)
    here, figures = found.get("environment"), found.get("figures")
    if not isinstance(here, dict) or not isinstance(figures, dict):
        raise ValueError("--report must be new, or what this script wrote. Received: "
                         f"{file} without environment or figures")
    return figures if here.get("command") == command() else None
