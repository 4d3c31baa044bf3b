"""Changed copies of texts: what is dropped, replaced and cut, from a seed."""

from __future__ import annotations

import pytest

from tfopt.data import Augmentation, Texts, label_words
from tfopt.data.augment import bare

WORDS = [f"w{i}" for i in range(40)]
SOURCE = Texts(texts=[" ".join(WORDS[:20]), " ".join(WORDS[20:])])
NOTHING = {"drop": 0.0, "replace": 0.0, "ngram": 0.0}


def test_without_chances_copies_are_the_texts():
    assert Augmentation(**NOTHING)(SOURCE, 3).texts == SOURCE.texts * 3


def test_dropped_words_leave_the_others_in_their_order():
    found = Augmentation(**{**NOTHING, "drop": 0.3})(SOURCE, 50)
    assert len(found) == 100
    kept = 0
    for text, source in zip(found.texts, SOURCE.texts * 50, strict=True):
        words = text.split()
        assert words == [word for word in source.split() if word in words]
        kept += len(words)
    assert kept / (100 * 20) == pytest.approx(0.7, abs=0.05)


def test_replaced_words_are_words_of_the_texts_by_frequency():
    source = Texts(texts=["a a a b", "c c c c c c c c c c c c"])
    found = Augmentation(**{**NOTHING, "replace": 1.0})(source, 300)
    words = " ".join(found.texts).split()
    assert len(words) == 300 * 16
    for word, count in {"a": 3, "b": 1, "c": 12}.items():
        assert words.count(word) / len(words) == pytest.approx(count / 16, abs=0.03)


def test_parts_are_a_few_words_in_a_row():
    found = Augmentation(**{**NOTHING, "ngram": 1.0}, longest=3)(SOURCE, 100)
    lengths = set()
    for text, source in zip(found.texts, SOURCE.texts * 100, strict=True):
        assert f" {text} " in f" {source} "
        lengths.add(len(text.split()))
    assert lengths == {1, 2, 3}


@pytest.mark.parametrize("text", ["one", "one two"])
def test_a_word_is_always_left(text):
    for copy in Augmentation(drop=1.0, replace=0.0)(Texts(texts=[text]), 20).texts:
        assert copy in text.split()


def test_texts_of_a_pair_stay_together():
    source = Texts(texts=["a b", "c d"], pairs=["e f", "g h"])
    found = Augmentation(drop=0.4, replace=0.0)(source, 2)
    assert len(found.texts) == len(found.pairs) == 4
    for text, pair, number in zip(found.texts, found.pairs, [0, 1, 0, 1], strict=True):
        assert set(text.split()) <= set(source.texts[number].split())
        assert set(pair.split()) <= set(source.pairs[number].split())


INTENTS = [(f"please {verb} my {thing} {when}", f"{verb} {thing}") for verb in (
    "cancel", "find", "replace") for thing in ("card", "order", "refund") for when in (
    "now", "today", "at once", "soon", "please", "as it is")]


def test_words_that_tell_labels_apart_are_found_by_counts():
    texts, labels = zip(*INTENTS, strict=True)
    found = label_words(texts, [(label,) for label in labels])
    assert found == {"cancel", "find", "replace", "card", "order", "refund"}
    # Of a set each label counts: a verb is said by half of those of its texts.
    assert label_words(texts, [tuple(label.split()) for label in labels]) <= found
    assert not label_words(texts, [("one",)] * len(texts))
    assert not label_words(["a b", "c d"], [("x",), ("y",)])  # seen once, they may not


def test_words_that_are_kept_are_neither_lost_nor_gained():
    texts, labels = zip(*INTENTS, strict=True)
    keep = label_words(texts, [(label,) for label in labels])
    source = Texts(texts=[text.replace("card", "Card?") for text in texts])
    found = Augmentation(drop=0.3, replace=0.4, ngram=0.5, keep=keep)(source, 40)
    assert len({*found.texts}) > 200
    for text, label in zip(found.texts, labels * 40, strict=True):
        assert [bare(word) for word in text.split() if bare(word) in keep] == (
            label.split())
    plain = Augmentation(drop=0.3, replace=0.4, ngram=0.5)(source, 40)
    assert sum([bare(word) for word in text.split() if bare(word) in keep]
               == label.split() for text, label in zip(
                   plain.texts, labels * 40, strict=True)) < 0.3 * len(plain)


def test_a_seed_fixes_the_copies():
    first = Augmentation(seed=1)(SOURCE, 2)
    assert Augmentation(seed=1)(SOURCE, 2) == first
    assert Augmentation(seed=2)(SOURCE, 2) != first


@pytest.mark.parametrize("changes", [
    {"drop": -0.1}, {"drop": 1.1}, {"replace": 0.95}, {"ngram": 2.0}, {"longest": 0}])
def test_chances_out_of_range_are_refused(changes):
    (name, value), = changes.items()
    with pytest.raises(ValueError, match=f"`{name}` must be .*{name}={value}$"):
        Augmentation(**changes)


def test_no_copies_are_refused():
    with pytest.raises(ValueError, match="Received: copies=0$"):
        Augmentation()(SOURCE, 0)
