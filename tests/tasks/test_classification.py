"""Classification: quality and answers against figures computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tfopt import data
from tfopt.tasks.classification import Classification

TASK = Classification(labels=("a", "b", "c"))


def one_hot(predicted, classes=3):
    return np.eye(classes)[predicted]


@pytest.mark.parametrize(("predicted", "labels", "accuracy", "macro_f1"), [
    ([0, 1, 2], [0, 1, 2], 1.0, 1.0),
    ([1, 2, 0], [0, 1, 2], 0.0, 0.0),
    # Class 0: TP 2, FP 1, FN 0 -> 4/5; class 1: TP 1, FP 0, FN 1 -> 2/3.
    ([0, 0, 0, 1], [0, 0, 1, 1], 0.75, (4 / 5 + 2 / 3) / 2),
    # All of one class: accuracy hides it, macro F1 does not. 6/7 and 0.
    ([0, 0, 0, 0], [0, 0, 0, 1], 0.75, (6 / 7 + 0) / 2),
    # A class that is neither among labels nor predictions does not count.
    ([0, 0, 2, 2], [0, 0, 2, 2], 1.0, 1.0),
    # One that is only predicted does: 4/5, 0.
    ([0, 0, 2], [0, 0, 0], 2 / 3, (4 / 5 + 0) / 2),
    ([1], [1], 1.0, 1.0),
])
def test_table(predicted, labels, accuracy, macro_f1):
    assert TASK.quality(one_hot(predicted), labels) == pytest.approx(
        {"accuracy": accuracy, "macro_f1": macro_f1})


def test_the_largest_logit_counts_whatever_its_size():
    logits = [[-5.0, -4.0], [1e6, 1e6 + 1], [0.1, 0.0]]
    assert TASK.quality(logits, [1, 1, 1])["accuracy"] == pytest.approx(2 / 3)


def test_figures_are_plain_floats():
    assert {type(value) for value in TASK.quality(
        one_hot([0, 1]), np.array([0, 1])).values()} == {float}


@pytest.mark.parametrize(("logits", "labels"), [(2, 3), (3, 2), (0, 0), (0, 1)])
def test_refuses_other_numbers_of_labels_and_none(logits, labels):
    with pytest.raises(ValueError,
                       match=f"Received: {logits} outputs, {labels} targets"):
        TASK.quality(np.zeros([logits, 3]), np.zeros(labels, int))


def test_answers_have_the_softmax_of_each_label_the_likeliest_first():
    answers = TASK.decode(np.log([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]]))
    assert [answer["label"] for answer in answers] == ["b", "a"]
    assert list(answers[0]["scores"]) == ["b", "c", "a"]
    assert answers[0]["scores"] == pytest.approx({"b": 0.5, "c": 0.3, "a": 0.2})
    assert answers[1]["score"] == pytest.approx(0.6)


def test_large_logits_overflow_nothing():
    assert TASK.decode(np.array([[1e4, 0.0, -1e4]]))[0]["score"] == 1.0


def test_answers_of_another_number_of_classes_are_refused():
    with pytest.raises(ValueError, match="the model's 2 classes. Received: 3 labels"):
        TASK.decode(np.zeros([1, 2]))


def test_figures_of_each_class_are_those_counted_by_hand():
    # Answers: a, a, b, c, c; a is right once of two, c twice of two, b never.
    found = TASK.by_class(one_hot([0, 0, 1, 2, 2]), [0, 1, 0, 2, 2])
    assert list(found) == ["a", "b", "c"]
    assert found["a"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2.0}
    assert found["b"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1.0}
    assert found["c"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 2.0}


def test_a_class_that_is_nowhere_has_zeros():
    found = TASK.by_class(one_hot([0, 0]), [0, 1])
    assert found["c"] == dict.fromkeys(("precision", "recall", "f1", "support"), 0.0)
    assert found["a"] == pytest.approx(
        {"precision": 0.5, "recall": 1.0, "f1": 2 / 3, "support": 1.0})
    quality = TASK.quality(one_hot([0, 0]), [0, 1])  # of classes that occur
    assert quality["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_figures_of_classes_need_examples():
    with pytest.raises(ValueError, match="Received: 2 outputs, 3 targets"):
        TASK.by_class(np.zeros([2, 3]), np.zeros(3, int))


@pytest.mark.parametrize(("labels", "received"), [
    (("a", ""), "'' among 2 labels"),
    (("a", "b", "a"), "'a' among 3 labels"),
    (("two\nlines", "b"), r"'two\\nlines' among 2 labels"),
    (("a\r",), r"'a\\r' among 1 labels"),
    (("\ufeffa", "b"), r"'\\ufeffa' among 2 labels"),
    (("half \ud83d", "b"), r"'half \\ud83d' among 2 labels"),
    ((1, "b"), "1 among 2 labels"),
    (("a" * 9999 + "\n",), r"a{199}\.\.\. \(10,003 letters\) among 1 labels"),
])
def test_labels_that_a_label_list_cannot_hold_are_refused(labels, received):
    with pytest.raises(ValueError, match=f"Received: '?{received}$"):
        Classification(labels=labels)


def test_labels_that_a_label_list_holds_are_taken(tmp_path):
    labels = ("two words", " a", "día", "a\u2028b", "#3", "\x85")
    path = tmp_path / "labels.txt"
    path.write_text(data.labels_text(Classification(labels=labels).labels), "utf-8")
    assert tuple(data.read_labels(path)) == labels


def corpus_of(*labels):
    return data.Corpus(path="train.tsv", texts=["text"] * len(labels), pairs=None,
                       labels=list(labels), lines=list(range(len(labels))))


@pytest.mark.parametrize(("labels", "received"), [
    (["x"], "1 examples of 'x'"), (["x"] * 9, "9 examples of 'x'"),
    (["3.8", "4.0", "3.8"], "3.8, 4.0"), (["1", "2.5"], "1, 2.5"),
    (["-0.5", "1e3"], "-0.5, 1e3")])
def test_what_cannot_be_classes_is_refused(labels, received):
    with pytest.raises(ValueError, match=f"^train.tsv: .*Received: {received}$"):
        Classification.from_corpus(corpus_of(*labels), ["x", "3.8", "1"])


@pytest.mark.parametrize("labels", [
    ["0", "1"], ["0.0", "1.0"], ["v3.8", "4.0"], ["nan", "3.8"], ["3.8", "none"]])
def test_whole_numbers_and_words_are_classes(labels):
    assert Classification.from_corpus(corpus_of(*labels)).outputs == 2
