"""Several labels a text: figures by hand, thresholds, files, losses, signals."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tfopt import data, model, tasks, train
from tfopt.backend import keras, tf
from tfopt.tasks.multi_label import MultiLabel

TASK = MultiLabel(labels=("a", "b", "c"))
# Rows of a, b, c, and how many more.
TARGETS = [[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]]
OUTPUTS = np.array([[2.0, -1.0, -1.0], [1.0, 1.0, -3.0], [-1.0, -1.0, -2.0],
                    [-4.0, -4.0, 4.0]])


def corpus(*labels: tuple[str, ...]) -> data.Corpus:
    return data.Corpus(path="f.jsonl", texts=["t"] * len(labels), pairs=None,
                       labels=list(labels), lines=list(range(1, 1 + len(labels))))


def test_figures_by_hand():
    """Answered: a; a, b; none; c. Hits 3, answers 4, wanted 4 and one more."""
    quality = TASK.quality(OUTPUTS, TARGETS)
    assert quality["micro_f1"] == pytest.approx(2 * 3 / (4 + 5))
    # a: 1 of 2 answers, 1 wanted; b: 1 of 1, 2 wanted; c: all right.
    assert quality["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert quality["exact_match"] == 0.5  # the third and the fourth
    assert TASK.by_class(OUTPUTS, TARGETS)["a"] == {
        "precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1.0}


def test_without_any_label_f1_is_zero_and_sets_are_right():
    assert TASK.quality(np.full([2, 3], -1.0), [[0] * 4] * 2) == {
        "micro_f1": 0.0, "macro_f1": 0.0, "exact_match": 1.0}


def test_the_metric_of_training_counts_what_weighs_and_what_is_known():
    metric, = TASK.objective().metrics()
    targets = tf.constant([*TARGETS, [1, 1, 1, 1], [-1, -1, 1, 0]])
    outputs = tf.constant(np.vstack([OUTPUTS, -np.ones([1, 3]), np.ones([1, 3])]))
    metric.update_state(targets, outputs, sample_weight=[1, 1, 0.5, 2, 0, 1])
    # From 1.0 on: the hits and answers of above, and b is not known in the last.
    by_cut = {2.0: 2 * 2 / (2 + 6), 1.0: 2 * 4 / (5 + 6), -1.0: 2 * 5 / (9 + 6),
              -4.0: 2 * 5 / (13 + 6)}
    assert float(metric.result()) == pytest.approx(max(by_cut.values()))
    np.testing.assert_allclose(
        TASK.fitted(OUTPUTS, TARGETS).quality(OUTPUTS, TARGETS)["micro_f1"],
        2 * 3 / (4 + 5))


def test_the_threshold_is_the_best_for_all_labels_together():
    random = np.random.default_rng(0)
    wanted = random.random([60, 3]) < 0.3
    outputs = np.where(wanted, -1.0, -3.0) + 0.7 * random.normal(size=[60, 3])
    targets = np.pad(wanted.astype(int), [[0, 0], [0, 1]])
    chosen = TASK.fitted(outputs, targets)
    value = chosen.value(chosen.quality(outputs, targets))
    tried = [dataclasses.replace(TASK, threshold=threshold).quality(outputs, targets)[
        "micro_f1"] for threshold in np.linspace(0.01, 0.99, 99)]
    assert value == pytest.approx(max(tried)) and chosen.threshold < 0.3
    metric, = TASK.objective().metrics()
    metric.update_state(tf.constant(targets), tf.constant(outputs, tf.float32))
    assert float(metric.result()) == pytest.approx(value)
    assert TASK.quality(outputs, targets)["micro_f1"] < 0.5 < value
    # No example had a part in the threshold by which it is judged.
    by_folds = TASK.fitted_quality(outputs, targets)["micro_f1"]
    assert value - 0.1 < by_folds <= value
    assert chosen.fitted_quality(outputs, targets)["micro_f1"] == pytest.approx(
        by_folds)


def test_folds_are_honest_where_a_threshold_cannot_be_learned():
    random = np.random.default_rng(1)
    outputs = random.normal(size=[40, 1])
    task = MultiLabel(labels=("a",))
    targets = np.pad((random.random([40, 1]) < 0.15).astype(int), [[0, 0], [0, 1]])
    best = task.fitted(outputs, targets)
    assert task.fitted_quality(outputs, targets)["micro_f1"] < best.quality(
        outputs, targets)["micro_f1"]


@pytest.mark.parametrize(("outputs", "targets"), [
    (np.zeros([20, 3]), [[0] * 4] * 20),  # no label
    (np.full([20, 3], 9.0), [[1, 1, 1, 0]] * 20)])  # all thresholds are as good
def test_a_threshold_that_cannot_be_chosen_stays(outputs, targets):
    assert TASK.fitted(outputs, targets) == TASK


def test_the_threshold_decides_in_every_place():
    high = dataclasses.replace(TASK, threshold=0.9)
    outputs = np.array([[3.0, 1.0, -1.0]])
    for task, labels in ((TASK, ("a", "b")), (high, ("a",))):
        answer, = task.decode(outputs)
        assert tuple(answer["labels"]) == labels == task.signals(outputs)[0].label
        assert task.guess(tf.constant(outputs)).numpy().tolist() == [
            [int(label in labels) for label in "abc"] + [0]]
        assert list(answer["scores"]) == ["a", "b", "c"]
        assert answer["scores"]["b"] == pytest.approx(1 / (1 + np.exp(-1)))


def test_confidence_is_that_of_the_least_sure_label_and_entropy_the_mean():
    seen, far = TASK.signals(np.array([[2.0, 0.5, -3.0], [900.0, -900.0, 900.0]]))
    probabilities = 1 / (1 + np.exp(-np.array([2.0, 0.5, -3.0])))
    assert seen.confidence == pytest.approx(probabilities[1])
    assert seen.entropy == pytest.approx(np.mean([
        -p * np.log(p) - (1 - p) * np.log(1 - p) for p in probabilities]))
    assert far == (1.0, pytest.approx(0.0), ("a", "c"))


def test_labels_of_files(tmp_path):
    columns = data.Columns(form="set")
    for name, contents in {
            "a.tsv": "text\tlabel\nt\tb; a\nt\t\nt\tc;c\n",
            "a.csv": 'text,label\nt,"b;a"\nt,\nt,c\n',
            "a.jsonl": '{"text": "t", "label": ["b", "a"]}\n'
                       '{"text": "t", "label": []}\n{"text": "t", "label": ["c"]}\n'
            }.items():
        (tmp_path / name).write_text(contents)
        found = data.read(tmp_path / name, columns)
        assert found.labels == [("b", "a"), (), ("c",)]
        task = MultiLabel.from_corpus(found)
        assert task.labels == ("a", "b", "c")
        assert task.targets(found) == [[1, 1, 0, 0], [0] * 4, [0, 0, 1, 0]]
    (tmp_path / "n.csv").write_text('text,label\nt,"10, 9"\n')
    found = data.read(tmp_path / "n.csv", data.Columns(form="set", separator=","))
    assert found.label_list() == ["9", "10"]


@pytest.mark.parametrize(("name", "contents", "message"), [
    ("a.tsv", "text\tlabel\nt\ta;;b\n", r"a.tsv:2: each label of a set must be one "
                                        r"line, not empty. Received: label='a;;b'"),
    ("a.jsonl", '{"text": "t", "label": "a"}\n', "a.jsonl:1: .*a list of texts"),
    ("a.jsonl", '{"text": "t", "label": [1.5]}\n', "a.jsonl:1: .*a list of texts"),
    ("a.jsonl", '{"text": "t", "label": [true]}\n', "a.jsonl:1: .*a list of texts"),
    ("a.jsonl", '{"text": "t", "label": ["a\\nb"]}\n', "a.jsonl:1: each label"),
])
def test_labels_that_are_none_are_refused_by_file_and_line(tmp_path, name, contents,
                                                           message):
    (tmp_path / name).write_text(contents)
    with pytest.raises(ValueError, match=message):
        data.read(tmp_path / name, data.Columns(form="set"))


def test_a_train_file_of_empty_sets_is_refused():
    with pytest.raises(ValueError, match="^f.jsonl: .*Received: 2 examples, each of an "
                                         "empty set$"):
        MultiLabel.from_corpus(corpus((), ()))


@pytest.mark.parametrize("fields", [
    {"threshold": 0.0}, {"threshold": 1.0}, {"threshold": "high"},
    {"labels": ["a", "a"]}, {"labels": [""]}])
def test_fields_that_cannot_be_are_refused(fields):
    with pytest.raises(ValueError, match="Received: "):
        tasks.from_fields({"task": "multi_label", "labels": ["a", "b"]} | fields)


def test_labels_that_the_task_lacks_are_counted_as_missed():
    found = corpus(("a", "new"), ("other", "new"), ())
    assert TASK.unknown_labels(found) == [("new",), ("other", "new"), ()]
    assert TASK.evaluation_targets(found) == [[1, 0, 0, 1], [0, 0, 0, 2], [0] * 4]
    outputs = np.array([[1.0, -1, -1], [-1, -1, -1], [-1, -1, -1]])
    assert TASK.quality(outputs, TASK.evaluation_targets(found)) == {
        "micro_f1": 2 * 1 / (1 + 4), "macro_f1": 1.0,
        "exact_match": pytest.approx(1 / 3)}


def test_a_teacher_teaches_each_label_by_itself():
    soft = TASK.objective().soft_loss
    student, teacher = np.array([[1.0, -2.0, 0.0]]), np.array([[1.0, 2.0, 0.0]])

    def divergence(s, t):
        p, q = (1 / (1 + np.exp(-x / 2.0)) for x in (t, s))
        return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))

    np.testing.assert_allclose(soft(tf.constant(student), tf.constant(teacher), 2.0),
                               [4.0 * divergence(-2.0, 2.0) / 3], rtol=1e-6)
    # A softmax would not see that all labels became likelier.
    assert soft(tf.constant(student + 1.0), tf.constant(student), 2.0).numpy()[0] > 0.1


def test_a_model_that_ends_in_a_sigmoid_is_refused():
    inputs = keras.Input([3])
    wrong = keras.Model(inputs, keras.layers.Dense(3, "sigmoid")(inputs))
    with pytest.raises(ValueError, match="for a sigmoid is taken of what it gives"):
        TASK.objective().check(wrong)
    one = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    MultiLabel(labels=("a",)).objective().check(one)


def test_a_model_learns_which_words_are_there():
    random = np.random.default_rng(0)
    ids = [[2, *random.integers(5, 25, 6).tolist(), 3] for _ in range(96)]
    labels = [tuple(label for label, word in (("a", 7), ("b", 9), ("c", 12))
                    if any(abs(token - word) < 2 for token in row)) for row in ids]
    rows = TASK.targets(corpus(*labels))
    encoded = data.Encoded(ids=ids, first_lengths=[8] * 96)
    bert = model.build(model.EncoderConfig.uniform(
        hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32, vocab_size=50,
        max_positions=16, initializer_range=0.2), TASK.head())
    history = train.fit(
        bert, data.Batches(encoded, rows, batch_size=16, shuffle_seed=0),
        data.Batches(encoded, rows, batch_size=96),
        train.Settings(epochs=12, learning_rate=1e-2), goal=TASK.objective())
    batch, = data.Batches(encoded, rows, batch_size=96).dataset()
    outputs, targets = bert(batch[0]).numpy(), batch[1].numpy()
    found = TASK.fitted(outputs, targets).quality(outputs, targets)
    assert found["micro_f1"] == pytest.approx(
        max(epoch["val_micro_f1"] for epoch in history), rel=1e-5)
    assert found["micro_f1"] > 0.9
