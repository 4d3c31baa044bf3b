r"""Holds whole texts out of a file that has their parts too, and the parts with them.

    python experiments/studies/hold_out_whole.py --input_file=F.tsv --fraction=0.2 \
        --train_file=train.tsv --holdout_file=holdout.tsv

SST-2's train set holds sentences and the phrases they are made of, its dev set
sentences alone: accuracy on phrases held out by chance says little of accuracy on dev.
A text counts as whole if no longer one contains it, word for word, and it has five
words at least. With a whole text every part of four words or more is kept out of train;
what is shorter says too little to give the text away. Cost: seconds.
"""

from __future__ import annotations

import collections
import random

from absl import flags, logging

from tfopt import data
from tfopt.cli import script as shared
from tfopt.files import write_whole
from tfopt.pipeline.options import Data

FLAGS = flags.FLAGS
_LEAST_WHOLE, _LEAST_PART = 5, 4  # words
_KEY = 3  # words by which the texts that may contain another are found


def parts_of(texts: list[str]) -> tuple[list[int], dict[int, set[int]]]:
    """Which texts are whole, and of which whole texts the others are part.

    Args:
        texts: N texts.

    Returns:
        The numbers of the whole texts, the longest first; number of a part -> numbers
        of the texts that contain it.
    """
    containing = collections.defaultdict(set)  # words in sequence -> texts
    whole, parents = [], {}
    for number in sorted(range(len(texts)), key=lambda i: -len(texts[i])):
        words = texts[number].split()
        longer = {i for i in containing[tuple(words[:_KEY])]
                  if f" {texts[number]} " in f" {texts[i]} "}
        if longer:
            parents[number] = longer
        elif len(words) >= _LEAST_WHOLE:
            whole.append(number)
            for size in range(1, _KEY + 1):
                for start in range(len(words) - size + 1):
                    containing[tuple(words[start:start + size])].add(number)
    return whole, parents


def main() -> None:
    """Splits the file."""
    if not FLAGS.input_file.endswith(".tsv"):
        raise ValueError("--input_file must be a .tsv. Received: "
                         f"--input_file={FLAGS.input_file}")
    corpus = data.read(FLAGS.input_file, shared.read(Data).columns())
    texts = [text.strip() for text in corpus.texts]
    whole, parents = parts_of(texts)
    count = int(len(whole) * FLAGS.fraction)
    held = set(random.Random(FLAGS.seed).sample(whole, count))
    kept = [i for i in range(len(texts)) if i not in held
            and not (len(texts[i].split()) >= _LEAST_PART
                     and held & parents.get(i, set()))]
    left = {texts[i] for i in kept}
    out = [i for i in sorted(held) if texts[i] not in left]
    for path, numbers in ((FLAGS.train_file, kept), (FLAGS.holdout_file, out)):
        rows = [(FLAGS.text_column, FLAGS.label_column)] + [
            (corpus.texts[i], corpus.labels[i]) for i in numbers]
        write_whole(path, "".join(f"{text}\t{label}\n" for text, label in rows))
    logging.info("%d whole texts of %d; %d held out, %d kept to learn from",
                 len(whole), len(texts), len(out), len(kept))


def define_flags() -> None:
    """Defines the flags of this script."""
    shared.define_columns()
    flags.DEFINE_string("input_file", None, "A .tsv with a header.", required=True)
    flags.DEFINE_float("fraction", 0.2, "Part of the whole texts to hold out.",
                       lower_bound=0.0, upper_bound=0.5)
    flags.DEFINE_integer("seed", 0, "Of the choice.")
    flags.DEFINE_string("train_file", None, "Where what is kept goes.", required=True)
    flags.DEFINE_string("holdout_file", None, "Where what is held out goes.",
                        required=True)


if __name__ == "__main__":
    define_flags()
    shared.run(main)
