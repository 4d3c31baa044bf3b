r"""What importing tfopt costs, against the libraries it stands on.

    python experiments/benchmarks/import_time.py --report=FILE.json

Each import is a process of its own, timed whole, in turn. Cost: two minutes. Expected:
`tfopt.backend` takes as long as TensorFlow and tfmot by themselves (a ratio of 1), and
`tfopt` alone, which imports them when they are first needed, next to nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

import common
import numpy as np
from absl import flags

from tfopt.cli import script as shared
from tfopt.measure import latency

FLAGS = flags.FLAGS
REFERENCE = "tensorflow_and_tfmot"
STATEMENTS = {
    REFERENCE: "import tensorflow, tensorflow_model_optimization",
    "tfopt_backend": "import tfopt.backend",
    "tfopt": "import tfopt",
    "tfopt_model_train_compress": "import tfopt.model, tfopt.train, tfopt.compress",
    "nothing": "pass",
}


def import_s(statement: str, directory: str) -> float:
    """Seconds of a Python process that does this and ends.

    Raises:
        ValueError: it fails.
    """
    environment = {**os.environ, **latency.environment(2), "TF_USE_LEGACY_KERAS": "1",
                   "TF_CPP_MIN_LOG_LEVEL": "1"}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", statement], cwd=directory,
                          env=environment, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise ValueError("An import fails. Received: "
                         f"{statement!r}: {done.stderr.strip().splitlines()[-1:]}")
    return seconds


def main() -> None:
    """Times the imports in turn, and reports."""
    names = list(STATEMENTS)
    seconds = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as directory:
        # Round -1 brings the files into the system's cache.
        for number in range(-1, 1 if FLAGS.smoke else FLAGS.rounds):
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                taken = import_s(STATEMENTS[name], directory)
                if number >= 0:
                    seconds[name].append(taken)
    median = {name: float(np.median(value)) for name, value in seconds.items()}
    common.write_report({
        "median_s": median,
        "ratio": {name: value / median[REFERENCE] for name, value in median.items()
                  if name not in (REFERENCE, "nothing")},
        "rounds_s": seconds,
        "statements": STATEMENTS,
    })


if __name__ == "__main__":
    common.define_report()
    flags.DEFINE_integer("rounds", 7, "Processes of each import.", lower_bound=1)
    flags.DEFINE_bool("smoke", False, "One round: shows that everything runs.")
    shared.run(main)
