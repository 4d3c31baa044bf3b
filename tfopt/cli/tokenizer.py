r"""Writes a bundle's WordPiece as one file for devices that have no tokenizer library.

    tfopt tokenizer --bundle=runs/mine --out_file=wordpiece.bin
    tfopt tokenizer minilm --out_file=wordpiece.bin    # of a checkpoint

`tfopt/data/portable_wordpiece.py` reads the file, in 150 lines that are to be ported to
C, Kotlin or Swift; docs/portable_wordpiece.md describes it. Cost: seconds; needs no
TensorFlow.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from tfopt import data
from tfopt.data import wordpiece_table
from tfopt.files import check_place, write_whole
from tfopt.serve import manifest

FLAGS = flags.FLAGS
flags.disclaim_key_flags()
FIRST = ("bundle",)


def main() -> None:
    """Writes the file.

    Raises:
        ValueError: the directory has no tokenizer, or one that is no WordPiece.
    """
    check_place(FLAGS.out_file)
    if (Path(FLAGS.bundle) / manifest.MANIFEST_FILE).is_file():
        manifest.read(Path(FLAGS.bundle))  # which checks that it is whole
    tokenizer = data.tokenizer_from(FLAGS.bundle)
    contents = wordpiece_table.to_bytes(tokenizer)
    write_whole(FLAGS.out_file, contents)
    print(f"{FLAGS.out_file}: {len(contents):,} bytes, {tokenizer.vocab_size:,} "
          f"entries, {'lower case' if tokenizer.lowercase else 'cased'}")


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("bundle", None, "Directory of a bundle, or another with a "
                        "tokenizer, or a name such as minilm.", required=True)
    flags.DEFINE_string("out_file", None, "The file to write.", required=True)
