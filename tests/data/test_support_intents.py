"""The embedded demo data: large enough, fair, varied, and dev unlike train."""

from __future__ import annotations

import collections
import re

import numpy as np
import pytest

from tfopt import data


@pytest.fixture(scope="session")
def train():
    return data.read(data.DEMO_TRAIN_FILE)


@pytest.fixture(scope="session")
def dev():
    return data.read(data.DEMO_DEV_FILE)


def words(text):
    return re.findall(r"\w+", text.casefold())


def four_grams(text):
    folded = " ".join(words(text))
    return [folded[i:i + 4] for i in range(max(1, len(folded) - 3))]


def jaccard(first, second, features):
    """<float>[N, M], shared features / all features, of each text with each."""
    def sets(texts):
        return [set(features(text)) for text in texts]

    first, second = sets(first), sets(second)
    places = {f: i for i, f in enumerate(sorted(set().union(*first, *second)))}

    def matrix(rows):
        x = np.zeros([len(rows), len(places)], np.float32)
        for row, features_here in zip(x, rows, strict=True):
            row[[places[feature] for feature in features_here]] = 1
        return x

    first, second = matrix(first), matrix(second)
    shared = first @ second.T
    return shared / (first.sum(1)[:, None] + second.sum(1)[None] - shared)


def test_there_are_enough_utterances_and_labels(train, dev):
    assert len(train) + len(dev) >= 1500
    assert len(train.label_list()) >= 15
    assert dev.label_list() == train.label_list()


@pytest.mark.parametrize("part", ["train", "dev"])
def test_every_label_has_a_fair_share(part, request):
    counts = collections.Counter(request.getfixturevalue(part).labels)
    fair = counts.total() / len(counts)
    assert min(counts.values()) >= 0.5 * fair
    assert max(counts.values()) <= 2 * fair


def test_no_utterance_comes_twice(train, dev):
    counts = collections.Counter(" ".join(words(t)) for t in train.texts + dev.texts)
    assert [text for text, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("features", [words, four_grams])
def test_no_dev_utterance_is_nearly_one_of_train(train, dev, features):
    alike = jaccard(dev.texts, train.texts, features)
    assert alike.shape == (len(dev), len(train))
    near = [(dev.texts[i], train.texts[j]) for i, j in np.argwhere(alike >= 0.5)]
    assert near == []


def test_likeness_of_known_texts():
    alike = jaccard(["a b c", "x"], ["B, c d!", "A b c."], words)
    np.testing.assert_allclose(alike, [[0.5, 1.0], [0.0, 0.0]])


def test_lengths_vary(train, dev):
    lengths = [len(text.split()) for text in train.texts + dev.texts]
    assert np.mean(np.array(lengths) < 5) > 0.05
    assert np.mean(np.array(lengths) > 20) > 0.05


@pytest.mark.parametrize("part", ["train", "dev"])
def test_texts_and_labels_are_clean(part, request):
    corpus = request.getfixturevalue(part)
    assert [t for t in corpus.texts if t != " ".join(t.split()) or not words(t)] == []
    assert [label for label in corpus.label_list()
            if not re.fullmatch("[a-z]+(_[a-z]+)*", label)] == []
    assert corpus.lines == list(range(2, len(corpus) + 2))
