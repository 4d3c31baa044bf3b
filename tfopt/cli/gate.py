r"""Holds a report against another, and fails where it is worse by more than it may be.

    tfopt gate runs/base runs/new --max_drop=0.5 --max_p50_ratio=1.1

BASE and NEW are results directories, or their report.json. Exit status: 0 all limits
hold; 1 a mistake; 2 a limit does not hold. Times of two runs compare on one quiet
machine alone: leave room for its noise, such as 1.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from tfopt import gate, report
from tfopt.files import check_place, write_whole

FLAGS = flags.FLAGS
flags.disclaim_key_flags()
FIRST = ("base", "new")


def main() -> int:
    """Prints each check; the exit status.

    Raises:
        ValueError: a report is missing or damaged, or has no such figure.
    """
    if FLAGS.junit:
        check_place(FLAGS.junit)
    limits = gate.Limits(max_drop=FLAGS.max_drop, max_p50_ratio=FLAGS.max_p50_ratio,
                         max_bytes_ratio=FLAGS.max_bytes_ratio, metric=FLAGS.metric)
    found = gate.checks(_rows("base"), _rows("new"), limits, FLAGS.base_artifact,
                        FLAGS.new_artifact)
    print(*(check.sentence() for check in found), sep="\n")
    if FLAGS.junit:
        write_whole(FLAGS.junit, gate.to_junit(found))
    return 0 if all(check.passed for check in found) else 2


def _rows(name: str) -> Sequence[report.Row]:
    path = Path(FLAGS[name].value)
    if path.is_dir():
        path /= "report.json"
    if not path.is_file():
        raise ValueError(f"--{name} must be a results directory or its report.json. "
                         f"Received: no file {path}")
    try:
        return report.from_json(path.read_text(encoding="utf-8"))[1]
    except ValueError as error:
        raise ValueError(f"{error}, of {path}") from error


def define_flags() -> None:
    """Defines the flags of this command."""
    for name, what in (("base", "that is held to be good"), ("new", "in question")):
        flags.DEFINE_string(name, None, f"The report {what}: a results directory, or "
                            "its report.json.", required=True)
        flags.DEFINE_string(f"{name}_artifact", None, "Whose figures count. Left out: "
                            "the last of the report.")
    flags.DEFINE_float("max_drop", None, "Points (or the unit) that the quality may "
                       "lose.", lower_bound=0.0)
    flags.DEFINE_float("max_p50_ratio", None, "Most of the latency, new / base.",
                       lower_bound=0.0)
    flags.DEFINE_float("max_bytes_ratio", None, "Most of the file's bytes, new / base.",
                       lower_bound=0.0)
    flags.DEFINE_string("metric", None, "The quality. Left out: the first that the "
                        "base has.")
    flags.DEFINE_string("junit", None, "XML file of the checks, as JUnit has them.")
