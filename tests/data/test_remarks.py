"""What is said of examples that are no error and explain a figure."""

from __future__ import annotations

from tfopt import data
from tfopt.data import remarks


def corpus(texts, labels=None, pairs=None) -> data.Corpus:
    labels = labels or ["x"] * len(texts)
    return data.Corpus(path="a.tsv", texts=list(texts), pairs=pairs, labels=labels,
                       lines=list(range(2, len(texts) + 2)))


def test_of_plain_examples_nothing_is_said():
    assert remarks.on_examples({"train": corpus(["a", "b"], ["x", "y"]),
                                "dev": corpus(["c"], ["x"])}) == []


def test_labels_that_a_reader_takes_for_one_are_named():
    labels = ["Good", "good", "two  words", "two words", "bad"]
    assert remarks.on_examples({"train": corpus("abcde", labels)}) == [
        "Labels that differ in letters' case or spaces alone are different classes: "
        "'Good', 'good'.",
        "Labels that differ in letters' case or spaces alone are different classes: "
        "'two  words', 'two words'."]


def test_texts_of_train_in_other_files_are_counted():
    train = corpus(["a", "b", "b"])
    assert remarks.on_examples({
        "train": train, "dev": corpus(["b", "b", "c"]), "test": corpus(["d"])}) == [
        "2 of dev's 3 texts are in train, too: figures on dev are too good for new "
        "texts."]


def test_a_pair_is_known_as_a_whole():
    train = corpus(["a", "b"], pairs=["1", "2"])
    assert remarks.on_examples({
        "train": train, "dev": corpus(["a", "b"], pairs=["2", "2"])}) == [
        "1 of dev's 2 texts are in train, too: figures on dev are too good for new "
        "texts."]


def test_empty_texts_are_counted():
    assert remarks.on_examples({
        "train": corpus(["a", " ", ""]), "dev": corpus(["b"])}) == [
        "2 of train's 3 texts are empty."]
    assert remarks.on_examples({"train": corpus(["", ""], pairs=["a", ""])}) == [
        "1 of train's 2 texts are empty."]


def test_texts_that_are_cut_are_counted():
    whole = data.Encoded(ids=[[2, 3]], first_lengths=[2])
    cut = data.Encoded(ids=[[2, 3]] * 5, first_lengths=[2] * 5, truncated=4)
    assert remarks.on_lengths({"train": cut, "dev": whole}, 16) == [
        "4 of train's 5 texts are cut to 16 tokens (--max_length)."]
