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
    """The figures that a killed run of this very command has written; else None."""
    file = Path(path)
    found = read_json(file, finite=False) if file.exists() else {}
    same = found.get("environment", {}).get("command") == command()
    return found["figures"] if same else None
