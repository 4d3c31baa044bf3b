r"""What `tfopt predict --output_file` gains over one interpreter, one text at a time.

    python experiments/benchmarks/bulk_predict.py --bundle=DIR --text_file=FILE \
        --report=FILE.json

Held against each other, in turn: all texts in bulk, with the start of its processes;
and a part of them, in the order of the file, one by one through one interpreter, of one
thread, and of as many as answer fastest. All write the same lines. Cost: five minutes
for MiniLM on two cores. Expected: bulk answers at least 1.7 times as many texts a
second as either.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import common
import numpy as np
from absl import flags

from tfopt import data
from tfopt.cli import script as shared
from tfopt.serve import Bundle, answer_lines, bulk

FLAGS = flags.FLAGS
_TOP_K = 3


def one_by_one(bundle: Bundle, texts: bulk.Texts, output: Path) -> float:
    """Texts a second of one interpreter, in the order of the file."""
    begun = time.perf_counter()
    with open(output, "w", encoding="utf-8") as file:
        for text, pair in texts:
            answer, = bundle.predict([text], None if pair is None else [pair])
            file.write(answer_lines.line_of(answer_lines.fields_of(
                text, pair, answer, _TOP_K)) + "\n")
    return len(texts) / (time.perf_counter() - begun)


def main() -> None:
    """Answers in turn, and reports.

    Raises:
        ValueError: the two give other lines.
    """
    found = data.read_texts(FLAGS.text_file)
    pairs = found.pairs or [None] * len(found)
    count = 400 if FLAGS.smoke else FLAGS.texts
    texts = [(found.texts[row % len(found)], pairs[row % len(found)])
             for row in range(count)]
    part = texts[:max(1, count // FLAGS.part)]
    single = {name: Bundle.open(FLAGS.bundle, num_threads=threads, copies=1)
              for name, threads in (("one_thread", 1), ("as_many_as_pay", None))}
    rates: dict[str, list[float]] = {name: [] for name in ("bulk", *single)}
    with tempfile.TemporaryDirectory() as directory:
        for number in range(1 if FLAGS.smoke else FLAGS.rounds):
            lines = {}
            for name, bundle in single.items():
                output = Path(directory) / f"{name}_{number}"
                rates[name].append(one_by_one(bundle, part, output))
                lines[name] = output.read_text(encoding="utf-8").splitlines()
            output = Path(directory) / f"bulk_{number}"
            begun = time.perf_counter()
            bulk.answer(FLAGS.bundle, texts, output, top_k=_TOP_K,
                        processes=FLAGS.num_threads)
            rates["bulk"].append(count / (time.perf_counter() - begun))
            for mine in lines.values():
                with open(output, encoding="utf-8") as file:
                    same = [line.rstrip("\n") == one
                            for line, one in zip(file, mine, strict=False)]
                if not all(same):
                    raise ValueError("Bulk must answer as one by one. Received: "
                                     f"{same.count(False)} other lines")
    median = {name: float(np.median(values)) for name, values in rates.items()}
    common.write_report({
        "texts": count, "texts_one_by_one": len(part), "texts_per_s": median,
        "rounds": rates, "ratio_over_one_by_one": {
            name: float(np.median(np.array(rates["bulk"]) / np.array(rates[name])))
            for name in single}}, num_threads=FLAGS.num_threads)


if __name__ == "__main__":
    shared.define_measuring()
    common.define_report()
    flags.DEFINE_string("bundle", None, "A directory that `Bundle.open` takes.",
                        required=True)
    flags.DEFINE_string("text_file", None, "Texts, taken over and over.", required=True)
    flags.DEFINE_integer("texts", 100_000, "Texts in bulk.", lower_bound=1)
    flags.DEFINE_integer("part", 10, "One of so many is answered one by one, too.",
                         lower_bound=1)
    flags.DEFINE_integer("rounds", 3, "Turns of each.", lower_bound=1)
    shared.run(main)
