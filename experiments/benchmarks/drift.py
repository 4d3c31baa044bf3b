r"""How often a clean window raises an alarm of drift, and how often a drifted one does.

    python experiments/benchmarks/drift.py --bundle=DIR --dev_file=FILE \
        --off_domain_file=FILE --report=FILE.json

Windows are drawn from dev without putting back, and held against the bundle's own
`reference.json`. As that is of the same texts, the clean windows are drawn once more
from one half of dev and held against a reference of the other, both anew in each trial.
Drifted are: words with typos, the first three words of each text alone, and texts of
another domain. Cost: dev four times through the model, and a minute. Expected: of 200
clean windows at most 2 % raise an alarm, of drifted ones at least 95 %.
"""

from __future__ import annotations

from collections.abc import Sequence

import common
import numpy as np
from absl import flags

from tfopt import data
from tfopt.cli import script as shared
from tfopt.serve import Bundle
from tfopt.serve.observation import Observation, observe
from tfopt.serve.reference import Drift, Reference

FLAGS = flags.FLAGS
_WORDS = 3
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def with_typos(text: str, share: float, random: np.random.Generator) -> str:
    """A text of whose words a share has a letter dropped, doubled, changed or swapped.

    Args:
        text: words between spaces.
        share: of the words of two letters or more.
        random: draws.
    """
    def wrong(word: str) -> str:
        if len(word) < 2 or random.random() >= share:
            return word
        at = int(random.integers(len(word) - 1))
        return [word[:at] + word[at + 1:], word[:at] + word[at] + word[at:],
                word[:at] + str(random.choice([*_LETTERS])) + word[at + 1:],
                word[:at] + word[at + 1] + word[at] + word[at + 2:]][
                    int(random.integers(4))]

    return " ".join(wrong(word) for word in text.split(" "))


def observations(bundle: Bundle, texts: Sequence[str], pairs: Sequence[str] | None
                 ) -> list[Observation]:
    """What is watched of the bundle's answers."""
    encoded = bundle.tokenizer.encode(texts, pairs, max_length=bundle.max_length)
    return observe(bundle.task, bundle.outputs(texts, pairs), encoded.ids,
                   bundle.tokenizer.unknown_id)


def alarms(drift: Drift, seen: Sequence[Observation]) -> list[str]:
    """Signals above their thresholds after a window of observations."""
    for each in seen:
        drift.add(each)
    return drift.alarms()


def trials(kinds: dict[str, list[Observation]], reference: Reference, count: int,
           window: int, random: np.random.Generator) -> dict[str, dict]:
    """Kind of texts -> share of windows with an alarm, in all and by signal."""
    drift, found = Drift(reference, window), {}
    for name, seen in kinds.items():
        told = [alarms(drift, [seen[row] for row in random.permutation(len(seen))[
            :window]] if len(seen) >= window else [
                seen[row] for row in random.integers(len(seen), size=window)])
            for _ in range(count)]
        found[name] = _shares(told)
    return found


def held_out(seen: list[Observation], count: int, window: int,
             random: np.random.Generator) -> dict:
    """The same of clean windows, each held against texts that are not in it."""
    told = []
    for _ in range(count):
        rows = random.permutation(len(seen))
        half = len(seen) // 2
        drift = Drift(Reference.of([seen[row] for row in rows[:half]]),
                      min(window, len(seen) - half))
        told.append(alarms(drift, [seen[row] for row in rows[half:half + window]]))
    return _shares(told)


def _shares(told: Sequence[Sequence[str]]) -> dict:
    signals = sorted({signal for each in told for signal in each})
    return {"any": float(np.mean([bool(each) for each in told])), "by_signal": {
        signal: float(np.mean([signal in each for each in told]))
        for signal in signals}}


def main() -> None:
    """Draws windows, and reports.

    Raises:
        ValueError: the bundle has no reference.
    """
    random = np.random.default_rng(FLAGS.seed)
    bundle = Bundle.open(FLAGS.bundle)
    reference = Reference.read(FLAGS.bundle)
    dev = data.read_texts(FLAGS.dev_file)
    seen = {"clean": observations(bundle, dev.texts, dev.pairs)}
    if reference is None:
        reference = Reference.of(seen["clean"])
    seen["typos"] = observations(bundle, [
        with_typos(text, FLAGS.typos, random) for text in dev.texts], dev.pairs)
    seen["first_three_words"] = observations(bundle, [
        " ".join(text.split()[:_WORDS]) for text in dev.texts], dev.pairs)
    if FLAGS.off_domain_file:
        other = data.read_texts(FLAGS.off_domain_file).texts[:len(dev.texts)]
        seen["off_domain"] = observations(
            bundle, other, None if dev.pairs is None else dev.pairs[:len(other)])
    count = 5 if FLAGS.smoke else FLAGS.trials
    figures = trials(seen, reference, count, FLAGS.window, random)
    figures["clean_held_out"] = held_out(seen["clean"], count, FLAGS.window, random)
    common.write_report({"alarms": figures, "trials": count, "window": FLAGS.window,
                         "dev_texts": len(dev.texts), "typos": FLAGS.typos},
                        num_threads=FLAGS.num_threads)


if __name__ == "__main__":
    shared.define_measuring()
    common.define_report()
    flags.DEFINE_string("bundle", None, "A directory that `Bundle.open` takes.",
                        required=True)
    flags.DEFINE_string("dev_file", None, "The texts of dev.", required=True)
    flags.DEFINE_string("off_domain_file", None, "Texts of another domain.")
    flags.DEFINE_integer("trials", 200, "Windows of each kind.", lower_bound=1)
    flags.DEFINE_integer("window", 300, "Texts of a window.", lower_bound=2)
    flags.DEFINE_float("typos", 0.6, "Share of words with a typo.", lower_bound=0.0,
                       upper_bound=1.0)
    flags.DEFINE_integer("seed", 0, "Of all that is drawn.")
    shared.run(main)
