r"""Counts lines of text of which a WordPiece table gives the ids of `tokenizers`.

    tfopt tokenizer minilm --out_file=wordpiece.bin
    python experiments/tools/compare_wordpiece.py --bundle=minilm \
        --table=wordpiece.bin --text_file=train.tsv --text_file=other.txt

Each line is a text, whatever the file; lines of the files in turn, empty ones left
out, each once. Neighbours make pairs, cut to --pair_length ids. Cost: a millisecond a
line. Expected: all equal; exit status 1 otherwise, with the first that differ.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from tfopt import data
from tfopt.cli import script as shared
from tfopt.data import wordpiece_table
from tfopt.data.portable_wordpiece import PortableWordPiece

FLAGS = flags.FLAGS
_SHOWN = 5  # lines that differ


def lines(files: Sequence[str], most: int) -> list[str]:
    """Different lines that are not empty, a line of each file in turn.

    Raises:
        ValueError: a file cannot be read, or is not UTF-8.
    """
    found: dict[str, None] = {}
    for row in itertools.zip_longest(*map(_lines, files)):
        found |= dict.fromkeys(line for line in row if line)
    return list(found)[:most]


def _lines(file: str) -> Iterator[str]:
    try:
        text = Path(file).read_bytes().decode("utf-8")
    except OSError as error:
        raise ValueError(f"--text_file cannot be read: {error.strerror}. Received: "
                         f"{file}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"--text_file must be UTF-8. Received: {file}: {error}"
                         ) from error
    # Not splitlines(): U+2028 and its like are parts of a text.
    return (line.rstrip("\r") for line in text.split("\n"))


def main() -> None:
    """Compares and prints.

    Raises:
        ValueError: a line or a pair differs.
    """
    tokenizer = data.tokenizer_from(FLAGS.bundle)
    table = PortableWordPiece(Path(FLAGS.table).read_bytes() if FLAGS.table
                              else wordpiece_table.to_bytes(tokenizer))
    texts = lines(FLAGS.text_file, FLAGS.most)
    figures: dict = {"tokenizer": FLAGS.bundle, "not_ascii": sum(
        not text.isascii() for text in texts)}
    differ = 0
    for name, first, second, length in (
            ("lines", texts, None, FLAGS.max_length),
            ("pairs", texts[:-1], texts[1:], FLAGS.pair_length)):
        expected = tokenizer.encode(first, second, max_length=length)
        pairs = second or [None] * len(first)
        wrong = [place for place, (one, other) in enumerate(
            zip(first, pairs, strict=True)) if table.encode(one, other, length) != (
                expected.ids[place], expected.first_lengths[place])]
        for place in wrong[:_SHOWN]:
            print(f"differs: {first[place]!r}, {pairs[place]!r}")
        print(f"{len(first) - len(wrong):,} of {len(first):,} {name} equal, at most "
              f"{length} ids")
        differ += len(wrong)
        figures |= {name: len(first), f"{name}_equal": len(first) - len(wrong)}
    if FLAGS.report:
        shared.write_figures(FLAGS.report, figures)
    if differ:
        raise ValueError("The table must give the ids of `tokenizers`. Received: "
                         f"{differ} that differ")


def define_flags() -> None:
    """Defines the flags of this script."""
    flags.DEFINE_string("bundle", None, "Directory of a bundle, or another with a "
                        "tokenizer, or a name such as minilm.", required=True)
    flags.DEFINE_string("table", None, "File of `tfopt tokenizer`. Left out: made "
                        "anew.")
    flags.DEFINE_multi_string("text_file", None, "Lines of text; may be given several "
                              "times.", required=True)
    flags.DEFINE_string("report", None, "JSON file for the figures.")
    flags.DEFINE_integer("most", 10_000, "Lines to compare.", lower_bound=2)
    flags.DEFINE_integer("max_length", 512, "Ids of a line at most.", lower_bound=4)
    flags.DEFINE_integer("pair_length", 32, "Ids of a pair at most.", lower_bound=5)


if __name__ == "__main__":
    define_flags()
    shared.run(main)
