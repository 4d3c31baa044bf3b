r"""What a teacher's kept logits cost: memory, disk, and the steps that read them.

    python experiments/benchmarks/kept_logits.py --texts=300000 --report=FILE.json

Random texts are read by a student's tokenizer and by a teacher's, the teacher's logits
are kept and read again: the memory that it takes above that of the texts, without pages
mapped from files, which the system takes back when it wants them. Then steps of the
student in turn, with the logits and without. The teacher is a tiny one, for what it
computes takes no memory that stays. Cost: a few minutes on two cores. Expected: 400 MB
at most for 300,000 texts, and steps of 1.05 times a plain one at most.
"""

from __future__ import annotations

import random
import tempfile
import threading
from pathlib import Path

import common
import numpy as np
from absl import flags

from tfopt import data, model, train
from tfopt.cli import script as shared

FLAGS = flags.FLAGS
_SAMPLED_S = 0.02
_WORDS = (3, 24)  # of a text, the fewest and the most


class Peak:
    """The most anonymous memory of this process while the block ran, above its start.

    Attributes:
        megabytes: of it.
    """

    def __enter__(self) -> Peak:
        """Begins to look."""
        self._before, self._most = anonymous_mb(), 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        """Ends it."""
        self._end.set()
        self._thread.join()
        self.megabytes = self._most - self._before

    def _look(self) -> None:
        while True:
            self._most = max(self._most, anonymous_mb())
            if self._end.wait(_SAMPLED_S):
                return


def anonymous_mb() -> float:
    """Memory of this process that is no file's, in MB."""
    line, = (line for line in Path("/proc/self/status").read_text().splitlines()
             if line.startswith("RssAnon:"))
    return int(line.split()[1]) / 1e3


def random_texts(words: list[str], count: int) -> data.Texts:
    """Texts of random words."""
    chance = random.Random(0)
    plain = [word for word in words if word.isalpha()]
    return data.Texts(texts=[" ".join(chance.choices(plain, k=chance.randint(*_WORDS)))
                             for _ in range(count)])


def main() -> None:
    """Keeps logits, reads them, and reports."""
    student = model.load(FLAGS.model_dir, num_labels=FLAGS.classes)
    tokenizer = data.tokenizer_from(FLAGS.model_dir)
    teacher = model.build(model.EncoderConfig.uniform(
        hidden_size=8, num_layers=1, num_heads=1, intermediate_size=8,
        vocab_size=tokenizer.vocab_size), model.Head(outputs=FLAGS.classes))
    texts = random_texts(tokenizer.words, 200 if FLAGS.smoke else FLAGS.texts)
    options = {"batch_size": FLAGS.batch_size, "shuffle_seed": 0}
    with tempfile.TemporaryDirectory() as place:
        with Peak() as peak:
            batches = data.Batches(data.encode(texts, tokenizer, FLAGS.max_length),
                                   [0] * len(texts), **options)
            read_as = data.Batches(data.encode(texts, tokenizer, FLAGS.max_length),
                                   **options)
            carrying = train.with_cached_logits(batches, teacher, place,
                                                read_as=read_as)
            for _ in carrying.dataset():
                pass
        kept, = Path(place).glob("*.float16")
        size = kept.stat().st_size
        seconds = common.steps_in_turn(
            {name: step_of(student, source) for name, source in (
                ("plain", batches), ("kept_logits", carrying))})
    common.write_report({
        "texts": len(texts), "classes": FLAGS.classes, "file_mb": size / 1e6,
        "peak_anonymous_mb": peak.megabytes,
        "step_ms": {name: common.spread(times) for name, times in seconds.items()},
        "over_plain": common.over(seconds["kept_logits"], seconds["plain"]),
    }, batch_size=FLAGS.batch_size, median_tokens=float(np.median(batches.lengths)))


def step_of(student, batches: data.Batches):
    """What makes a step of a student's copy on the next batch."""
    from tfopt import compress

    copy = compress.copy_model(student)
    objective = train.objective.cross_entropy()
    first = next(iter(batches.dataset()))
    if isinstance(first[1], tuple):
        copy = train.Distillation().goal().prepare(copy)
    copy.compile(train.AdamW(1e-5), objective.loss())
    endless = iter(batches.dataset(epochs=1000 if len(batches) < 10_000 else 4))

    def step(_):
        copy.train_on_batch(*next(endless))

    return step


def define_flags() -> None:
    """Defines the flags of this script."""
    shared.define_model()
    shared.define_measuring()
    common.define_report()
    common.define_steps(50)
    flags.DEFINE_integer("texts", 300_000, "Texts.", lower_bound=1)
    flags.DEFINE_integer("classes", 77, "Classes.", lower_bound=2)
    flags.DEFINE_integer("max_length", 128, "Tokens of a text, at most.", lower_bound=4)


if __name__ == "__main__":
    define_flags()
    shared.run(main)
