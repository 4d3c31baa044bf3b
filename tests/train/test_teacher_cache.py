"""A teacher's logits on disk: computed once, used, and made anew when stale."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from tfopt import data, model
from tfopt.backend import keras, tf
from tfopt.train import Distillation, Settings, fit, with_cached_logits

CONFIG = model.EncoderConfig.uniform(
    hidden_size=8, num_layers=1, num_heads=2, intermediate_size=16, vocab_size=103,
    max_positions=64, initializer_range=0.3, hidden_dropout=0.0,
    attention_dropout=0.0)
HEAD = model.Head(outputs=3, dropout=0.0)


@keras.utils.register_keras_serializable(package="tests")
class Counting(keras.layers.Layer):
    """Passes logits on and counts the examples."""

    seen = 0

    def call(self, logits):
        def count(rows):
            Counting.seen += len(rows)
            return rows

        counted = tf.numpy_function(count, [logits], logits.dtype)
        return tf.ensure_shape(counted, logits.shape)


@pytest.fixture
def counting():
    """A teacher that counts what it reads."""
    Counting.seen = 0
    bert = model.build(CONFIG, HEAD, seed=1)
    return keras.Model(bert.inputs, Counting()(bert.output))


@pytest.fixture
def batches(tiny_examples):
    return data.Batches(*tiny_examples, batch_size=10, shuffle_seed=0)


def logits_of(batches) -> np.ndarray:
    return np.concatenate([logits for _, (_, logits) in batches.dataset()])


def test_each_batch_carries_the_logits_of_its_examples(counting, batches, tmp_path):
    cached = with_cached_logits(batches, counting, tmp_path / "new" / "logits.npz")
    assert Counting.seen == 48
    for inputs, (class_ids, logits) in cached.dataset():
        np.testing.assert_allclose(logits, counting(inputs), atol=1e-5)
        assert class_ids.shape == logits.shape[:1]
    assert [len(x["input_ids"]) for x, _ in batches.dataset()] == [
        len(x["input_ids"]) for x, _ in cached.dataset()]


def test_a_second_run_reads_the_file(counting, batches, tmp_path, caplog):
    file = tmp_path / "logits.npz"
    first = logits_of(with_cached_logits(batches, counting, file))
    second = logits_of(with_cached_logits(batches, counting, file))
    np.testing.assert_array_equal(first, second)
    assert Counting.seen == 48
    assert "anew" not in caplog.text


@pytest.mark.parametrize("stale, reason", [
    ("teacher", "another teacher hash"), ("examples", "another examples hash"),
    ("broken", "cannot be read"), ("cut", "cannot be read")])
def test_a_stale_file_is_made_anew(counting, tiny_examples, batches, tmp_path, caplog,
                                   stale, reason):
    file = tmp_path / "logits.npz"
    with_cached_logits(batches, counting, file)
    if stale == "teacher":
        counting.get_layer("classifier").bias.assign([1.0, 2.0, 3.0])
    elif stale == "examples":
        encoded, class_ids = tiny_examples
        batches = data.Batches(data.Encoded(
            ids=[ids[::-1] for ids in encoded.ids],
            first_lengths=encoded.first_lengths), class_ids, batch_size=10)
    else:
        file.write_bytes(b"no zip" if stale == "broken" else file.read_bytes()[:200])
    with caplog.at_level(logging.INFO, "absl"):
        cached = with_cached_logits(batches, counting, file)
    assert reason in caplog.text
    assert Counting.seen == 2 * 48
    inputs, (_, logits) = next(iter(cached.dataset()))
    np.testing.assert_allclose(logits, counting(inputs), atol=1e-5)
    with_cached_logits(batches, counting, file)
    assert Counting.seen == 2 * 48 + len(logits)  # those of the check above


def test_cached_logits_teach_what_the_teacher_does(counting, batches, tmp_path):
    cached = with_cached_logits(batches, counting, tmp_path / "logits.npz")
    settings = Settings(epochs=2, learning_rate=1e-3)
    trained = []
    for source, goal in ((batches, Distillation().goal(counting)),
                         (cached, Distillation().goal())):
        student = model.build(CONFIG, HEAD, seed=2)
        fit(student, source, settings=settings, goal=goal)
        trained.append(np.concatenate([w.ravel() for w in student.get_weights()]))
    np.testing.assert_allclose(*trained, atol=1e-4)
    fresh = model.build(CONFIG, HEAD, seed=2).get_weights()
    assert np.abs(trained[0] - np.concatenate([w.ravel() for w in fresh])).max() > 1e-3


def test_batches_that_tell_no_examples_apart_are_refused(counting, tmp_path):
    with pytest.raises(ValueError, match="data.Batches.*Received: list"):
        with_cached_logits([], counting, tmp_path / "logits.npz")


def test_probabilities_are_no_logits(counting, batches, tmp_path):
    file = tmp_path / "logits.npz"
    soft = keras.Model(counting.inputs, keras.layers.Softmax()(counting.output))
    with pytest.raises(ValueError, match="before softmax.*Received: .*probabilities"):
        with_cached_logits(batches, soft, file)
    assert not file.exists()
    with pytest.raises(ValueError, match="before softmax"):
        batches.with_teacher_logits(np.full([48, 3], 1 / 3))
    batches.with_teacher_logits(np.log(np.full([48, 3], 1 / 3)))
