"""`tfopt COMMAND --flag=value ...`: finds the command, and says which there are.

Help on all of them imports neither TensorFlow nor LiteRT.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

flags.disclaim_key_flags()

# What each does, in the order of their use.
COMMANDS = {
    "compress": "fine-tune, compress by a recipe, export, measure and report",
    "explain": "which words decided an answer, before and after compression",
    "finetune": "fine-tune alone",
    "gate": "hold a report against another: exit status 2 where it is worse",
    "measure": "measure any .tflite or Keras directory on any labelled file",
    "bench": "write what benchmark_model needs to time a .tflite on a device",
    "monitor": "draw the request log of a service; needs no TensorFlow",
    "search": "try recipes and their numbers for the best of many goals",
    "predict": "answer texts, a JSON object a line; needs no TensorFlow",
    "serve": "answer texts over HTTP; needs no TensorFlow",
    "tokenizer": "write the tokenizer as one file for devices; needs no TensorFlow",
}


def help_text() -> str:
    """What `tfopt --help` says."""
    recipes = Path(__file__).parents[1] / "recipes"
    lines = ["tfopt makes text encoders small and fast on TensorFlow.", "",
             "    tfopt COMMAND --flag=value ...", "    tfopt COMMAND --help", "",
             "Commands:", *(f"  {name:10} {what}" for name, what in COMMANDS.items()),
             "", "Recipes of `tfopt compress --recipe=NAME`:",
             f"  {', '.join(sorted(path.stem for path in recipes.glob('*.json')))}",
             "", "Exit status: 0 done; 1 a mistake in the data or the flags, in one "
             "sentence;", "2 a target was missed; 130 interrupted."]
    return "\n".join(lines)


def main() -> None:
    """Runs the command that the arguments name, and ends the process."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("help", "-h", "--help", "-help"):
        with _while_read():
            print(help_text())
        sys.exit(0)
    name = arguments[0]
    if name in ("version", "--version"):
        from tfopt import __version__

        print(__version__)
        sys.exit(0)
    if name not in COMMANDS:
        print(f"tfopt: A command must be one of {', '.join(COMMANDS)}. Received: "
              f"{name}", file=sys.stderr)
        sys.exit(1)
    sys.argv = [f"tfopt {name}", *arguments[1:]]
    run(name)


def run(name: str) -> None:
    """Runs a command with the flags in sys.argv, and ends the process.

    Args:
        name: of the command; sys.argv[0] says by what it was called.
    """
    # The start-up lines of TensorFlow and its compiler; errors still show.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        command = importlib.import_module(f"tfopt.cli.{name}")
        from tfopt.cli import ending
    except ImportError as error:  # TensorFlow is missing, or holds Keras 3
        print(f"{os.path.basename(sys.argv[0])}: {error}", file=sys.stderr)
        sys.exit(1)
    _name_words(getattr(command, "FIRST", ()))
    # absl shows it as what the flags of --help are of.
    sys.modules["__main__"].__doc__ = command.__doc__
    command.define_flags()
    with _while_read():  # --help ends before a command's own guard begins
        ending.run(command.main)


def _name_words(names: Sequence[str]) -> None:
    """Puts --name= before words that are no flags, nor the value of one before them.

    Args:
        names: flags of the command that may be given by value alone, in order.
    """
    pairs = enumerate(itertools.pairwise(sys.argv), 1)
    words = [place for place, (before, word) in pairs if not word.startswith("-")
             and ("=" in before or not before.startswith("-"))]
    for name, place in zip(names, words, strict=False):
        sys.argv[place] = f"--{name}={sys.argv[place]}"


@contextlib.contextmanager
def _while_read() -> Iterator[None]:
    """Ends the process quietly where whoever read the output, `head` say, is gone."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
