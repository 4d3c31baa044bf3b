r"""Runs the Colab notebook where nothing is but what Colab has, and what it installs.

    python experiments/tools/fresh_notebook.py --runtime=tpu --python=python3.13 --smoke

Sources: `colab_tpu.ipynb`, and the lists of packages that Colab publishes of its
runtimes (the repository googlecolab/backend-info, 2026-08-19: Python 3.13). There is
no TPU here: of that runtime's software all is tried but the connection. Cost: some
minutes, and 2 GB of packages. Expected: status 0, and what the notebook answers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from absl import flags, logging

from tfopt.cli import script as shared

FLAGS = flags.FLAGS
ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "experiments" / "colab_tpu.ipynb"
_BOTH = ["absl-py==1.4.0", "h5py==3.16.0", "keras==3.13.2", "ml_dtypes==0.6.0",
         "numpy==2.1.3", "safetensors==0.8.0", "tokenizers==0.22.2"]
# What a runtime has, of what tfopt needs.
RUNTIMES = {
    "cpu": [*_BOTH, "flatbuffers==25.12.19", "protobuf==5.29.6", "tensorboard==2.20.0",
            "tensorflow==2.20.0", "tf_keras==2.20.1"],
    "tpu": [*_BOTH, "libtpu==0.0.21.1", "protobuf==7.35.1"],
    "bare": [],
}
# Words of the notebook -> what a trial has in their place.
SMOKE = {"EPOCHS = 32, 5": "EPOCHS = 32, 2", "EXAMPLES = None": "EXAMPLES = 64"}
_NO_TPU = {"tpu='local' if TPU else None": "tpu=None"}
_SHOWN = ("tensorflow", "tensorflow-tpu", "tf-keras", "keras", "numpy", "protobuf",
          "ai-edge-litert", "libtpu")


def cells(replaced: Mapping[str, str], tags: set[str]) -> str:
    """The Python of the notebook's cells.

    Args:
        replaced: words -> others; each must be there.
        tags: of the cells to take; cells without any, where it is empty.

    Raises:
        ValueError: a word is not there.
    """
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    text = "\n\n".join(
        "".join(cell["source"]) for cell in notebook["cells"]
        if cell["cell_type"] == "code"
        and set(cell["metadata"].get("tags", [])) == tags)
    for word, other in replaced.items():
        if word not in text:
            raise ValueError(f"The notebook must have {word!r}. Received: {NOTEBOOK}")
        text = text.replace(word, other)
    return text


def main() -> None:
    """Makes the environment, and runs the cells in it as two sessions."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        _run(FLAGS.python, "-m", "venv", place / "env")
        python = place / "env" / "bin" / "python"
        if RUNTIMES[FLAGS.runtime]:
            _run(python, "-m", "pip", "install", "--quiet", *RUNTIMES[FLAGS.runtime])
        work = place / "content"
        work.mkdir()
        _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps",
             f"--wheel-dir={work}", ROOT)
        logging.info("The environment took %.0f s", time.monotonic() - start)
        # In Colab, too, the session may be restarted after the first cell.
        for name, text in {
                "install": cells({}, {"install"}),
                "the other cells": cells({**(SMOKE if FLAGS.smoke else {}), **_NO_TPU},
                                         set())}.items():
            start = time.monotonic()
            _run(python, "-c", _ended(text), cwd=work)
            logging.info("Done: %s, in %.0f s", name, time.monotonic() - start)
        _run(python, "-c", "import importlib.metadata as m\n"
             f"for name in {_SHOWN}:\n"
             "    print(name, *{d.version for d in m.distributions(name=name)})")


def _ended(text: str) -> str:
    """The cells, the last of which shows its value as a notebook does."""
    head, line, last = text.rpartition("\n\n")
    return text if "\n" in last else f"{head}{line}print({last})"


def _run(*command, **options) -> None:
    # Without a TPU its library would ask its host's network for one, for minutes; and
    # the environment is to have nothing of this one.
    environment = {name: value for name, value in os.environ.items()
                   if name != "PYTHONPATH"} | {"TPU_SKIP_MDS_QUERY": "1"}
    done = subprocess.run([str(part) for part in command], check=False, text=True,
                          stderr=subprocess.PIPE, env=environment, **options)
    if done.returncode:
        raise ValueError(f"A command must end well. Received: {command[:4]}, status "
                         f"{done.returncode}: {done.stderr[-2000:]}")


def define_flags() -> None:
    """Defines the flags of this script."""
    flags.DEFINE_enum("runtime", "cpu", list(RUNTIMES), "Whose packages are there "
                      "before; of cpu, the GPU's has the same.")
    flags.DEFINE_string("python", sys.executable, "The interpreter of the environment.")
    flags.DEFINE_bool("smoke", False, "Few examples and epochs.")


if __name__ == "__main__":
    define_flags()
    shared.run(main)
