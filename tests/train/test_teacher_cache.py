"""A teacher's logits on disk: computed once, used, and made anew when stale."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from tfopt import data, model
from tfopt.backend import keras, tf
from tfopt.train import Distillation, Settings, fit, with_cached_logits
from tfopt.train.distill import teacher_cache
from tfopt.train.distill.logits_file import LogitsFile

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
    """A teacher that counts what it reads; small, for it is traced again and again."""
    Counting.seen = 0
    inputs = {name: keras.Input([None], dtype="int32", name=name) for name in (
        "input_ids", "attention_mask", "token_type_ids")}
    x = keras.layers.Embedding(103, 4, embeddings_initializer="normal")(
        inputs["input_ids"])
    x = keras.layers.Dot(1)([tf.cast(inputs["attention_mask"], tf.float32), x])
    x = keras.layers.Dense(3, name="classifier",
                           kernel_initializer=keras.initializers.RandomNormal(
                               stddev=4.0, seed=0))(x)
    return keras.Model(inputs, Counting()(x))


@pytest.fixture
def batches(tiny_examples):
    return data.Batches(*tiny_examples, batch_size=10, shuffle_seed=0)


def logits_of(batches) -> np.ndarray:
    return np.concatenate([logits for _, (_, logits) in batches.dataset()])


def note_in(directory: Path) -> Path:
    note, = directory.glob("*.json")
    return note


def test_each_batch_carries_the_logits_of_its_examples(counting, batches, tmp_path):
    cached = with_cached_logits(batches, counting, tmp_path / "new")
    assert Counting.seen == 48
    for inputs, (class_ids, logits) in cached.dataset():
        np.testing.assert_allclose(logits, counting(inputs), atol=2e-3)
        assert logits.dtype == tf.float32
        assert class_ids.shape == logits.shape[:1]
    assert [len(x["input_ids"]) for x, _ in batches.dataset()] == [
        len(x["input_ids"]) for x, _ in cached.dataset()]
    rows = np.fromfile(note_in(tmp_path / "new").with_suffix(".float16"), "<f2")
    for index, inputs in batches.each_once():
        np.testing.assert_allclose(rows.reshape([48, 3])[index], counting(inputs),
                                   atol=2e-3)


def test_a_second_run_reads_the_file(counting, batches, tmp_path, caplog):
    first = logits_of(with_cached_logits(batches, counting, tmp_path))
    second = logits_of(with_cached_logits(batches, counting, tmp_path))
    np.testing.assert_array_equal(first, second)
    assert Counting.seen == 48
    assert "anew" not in caplog.text


def test_another_teacher_and_other_texts_have_files_of_their_own(
        counting, tiny_examples, batches, tmp_path):
    kept = logits_of(with_cached_logits(batches, counting, tmp_path))
    encoded, class_ids = tiny_examples
    turned = data.Batches(data.Encoded(
        ids=[ids[::-1] for ids in encoded.ids],
        first_lengths=encoded.first_lengths), class_ids, batch_size=10)
    with_cached_logits(turned, counting, tmp_path)
    before = counting.get_layer("classifier").bias.numpy()
    counting.get_layer("classifier").bias.assign([1.0, 2.0, 3.0])
    moved = logits_of(with_cached_logits(batches, counting, tmp_path))
    assert Counting.seen == 3 * 48 and len(list(tmp_path.glob("*.float16"))) == 3
    np.testing.assert_allclose(moved - kept, [[1.0, 2.0, 3.0]] * 48, atol=5e-3)
    counting.get_layer("classifier").bias.assign(before)
    np.testing.assert_array_equal(
        kept, logits_of(with_cached_logits(batches, counting, tmp_path)))
    assert Counting.seen == 3 * 48


@pytest.mark.parametrize(("how", "reason"), [
    ("note", "cannot be read"), ("half a note", "cannot be read"),
    ("another digit", "the file is damaged"), ("cut", "the file is damaged"),
    ("longer", "the file is damaged")])
def test_a_damaged_file_is_made_anew(counting, batches, tmp_path, caplog, how, reason):
    kept = logits_of(with_cached_logits(batches, counting, tmp_path))
    note = note_in(tmp_path)
    rows = note.with_suffix(".float16")
    contents = rows.read_bytes()
    if "note" in how:
        note.write_text("[]" if how == "note" else note.read_text()[:40])
    else:
        rows.write_bytes({"cut": contents[:-1], "longer": contents + b"more"}.get(
            how, b"\x00\x01" + contents[2:]))
    with caplog.at_level(logging.INFO, "absl"):
        cached = with_cached_logits(batches, counting, tmp_path)
    assert reason in caplog.text
    assert Counting.seen == 2 * 48
    np.testing.assert_array_equal(logits_of(cached), kept)
    with_cached_logits(batches, counting, tmp_path)
    assert Counting.seen == 2 * 48


def test_logits_of_other_texts_are_refused(counting, tiny_examples, batches, tmp_path):
    with_cached_logits(batches, counting, tmp_path / "one")
    encoded, class_ids = tiny_examples
    other = data.Batches(data.Encoded(
        ids=[ids[::-1] for ids in encoded.ids],
        first_lengths=encoded.first_lengths), class_ids, batch_size=10)
    with_cached_logits(other, counting, tmp_path / "two")
    there, wanted = note_in(tmp_path / "one"), note_in(tmp_path / "two")
    shutil.copy(there, wanted)  # as if it were of those texts
    shutil.copy(there.with_suffix(".float16"), wanted.with_suffix(".float16"))
    with pytest.raises(ValueError, match="must be of these very texts.*Received: "
                                         f"{wanted} of other texts$"):
        with_cached_logits(other, counting, tmp_path / "two")


def test_a_killed_run_goes_on_where_it_was(counting, batches, tmp_path, monkeypatch,
                                           caplog):
    monkeypatch.setattr(teacher_cache, "_NOTED_S", -1.0)  # after each batch
    real = LogitsFile.note

    def killed(self, file, examples):
        if examples == 30:
            file.flush()
            raise KeyboardInterrupt
        real(self, file, examples)

    with monkeypatch.context() as patch:
        patch.setattr(LogitsFile, "note", killed)
        with pytest.raises(KeyboardInterrupt):
            with_cached_logits(batches, counting, tmp_path)
    assert Counting.seen == 30
    with caplog.at_level(logging.INFO, "absl"):
        cached = with_cached_logits(batches, counting, tmp_path)
    assert Counting.seen == 30 + 28  # the third batch once more
    assert "has read 20 of 48 examples before" in caplog.text
    assert "has read 40 of 48 examples, " in caplog.text
    whole = with_cached_logits(batches, counting, tmp_path / "at once")
    np.testing.assert_array_equal(logits_of(cached), logits_of(whole))


def test_a_teacher_reads_the_same_texts_by_tokens_of_its_own(batches, tiny_examples,
                                                             tmp_path):
    encoded, _ = tiny_examples
    wider = model.build(CONFIG.replace(vocab_size=207), HEAD, seed=1)
    own = data.Batches(data.Encoded(
        ids=[[1, *(2 * i for i in ids)] for ids in encoded.ids],
        first_lengths=[n + 1 for n in encoded.first_lengths]), batch_size=7)
    cached = with_cached_logits(batches, wider, tmp_path, read_as=own)
    expected = np.zeros([48, 3], np.float32)
    for index, inputs in own.each_once():
        expected[index] = wider(inputs)
    seen = 0
    for inputs, (_, logits) in cached.dataset():
        for ids, visible, row in zip(inputs["input_ids"].numpy(),
                                     inputs["attention_mask"].numpy(), logits,
                                     strict=True):
            example = encoded.ids.index(ids[:visible.sum()].tolist())
            np.testing.assert_allclose(row, expected[example], atol=2e-3)
            seen += 1
    assert seen == 48
    fewer = data.Batches(data.Encoded(ids=encoded.ids[1:],
                                      first_lengths=encoded.first_lengths[1:]))
    with pytest.raises(ValueError, match="same examples.*Received: 47 examples for 48"):
        with_cached_logits(batches, wider, tmp_path, read_as=fewer)


def test_cached_logits_teach_what_the_teacher_does(counting, batches, tmp_path):
    cached = with_cached_logits(batches, counting, tmp_path)
    settings = Settings(epochs=1, learning_rate=1e-3)
    trained = []
    for source, goal in ((batches, Distillation().goal(counting)),
                         (cached, Distillation().goal())):
        student = model.build(CONFIG, HEAD, seed=2)
        fit(student, source, settings=settings, goal=goal)
        trained.append(np.concatenate([w.ravel() for w in student.get_weights()]))
    fresh = np.concatenate([
        w.ravel() for w in model.build(CONFIG, HEAD, seed=2).get_weights()])
    assert np.abs(trained[0] - fresh).max() > 2e-3
    # Of a step of Adam an entry whose gradient is near 0 may go either way.
    assert np.mean(np.abs(trained[0] - trained[1])) < 0.01 * np.mean(
        np.abs(trained[0] - fresh))


def test_batches_that_tell_no_examples_apart_are_refused(counting, tmp_path):
    with pytest.raises(ValueError, match="data.Batches.*Received: list"):
        with_cached_logits([], counting, tmp_path)


@pytest.mark.parametrize("end", [
    keras.layers.Softmax(), keras.layers.Lambda(keras.activations.softmax)])
def test_of_probabilities_logarithms_are_kept(end, counting, batches, tmp_path, caplog):
    soft = keras.Model(counting.inputs, end(counting.output))
    with caplog.at_level(logging.INFO, "absl"):
        kept = logits_of(with_cached_logits(batches, soft, tmp_path / "soft"))
    assert "teaches by their logarithms" in caplog.text
    plain = logits_of(with_cached_logits(batches, counting, tmp_path / "plain"))
    np.testing.assert_allclose(*(tf.nn.softmax(rows / 2) for rows in (kept, plain)),
                               atol=2e-3)
    assert kept.max() <= 0 < plain.max()


def test_probabilities_of_what_has_no_classes_are_no_logits(counting, batches,
                                                            tmp_path):
    soft = keras.Model(counting.inputs, keras.layers.Softmax()(counting.output))
    with pytest.raises(ValueError, match="before softmax.*Received: .*probabilities"):
        with_cached_logits(batches, soft, tmp_path, classes=False)
    with pytest.raises(ValueError, match="before softmax"):
        batches.with_teacher_logits(np.full([48, 3], 1 / 3))
    batches.with_teacher_logits(np.log(np.full([48, 3], 1 / 3)))


@pytest.mark.parametrize(("bias", "message"), [
    (np.nan, "finite numbers. Received: 'spoilt', which gives NaN .* for 10 of 10"),
    (np.inf, "finite numbers. Received: 'spoilt'"),
    (1e5, "float16 holds, up to 65504. Received: 'spoilt', which gives 1000")])
def test_what_is_no_number_or_too_large_is_refused(bias, message, counting, batches,
                                                   tmp_path):
    counting.get_layer("classifier").bias.assign([0.0, bias, 0.0])
    spoilt = keras.Model(counting.inputs, counting.output, name="spoilt")
    with pytest.raises(ValueError, match=message):
        with_cached_logits(batches, spoilt, tmp_path)
    assert not list(tmp_path.glob("*.json"))


def test_the_rows_are_mapped_not_read(tmp_path):
    """Of a file of half a gigabyte none is in memory before it is asked for."""
    file = LogitsFile(tmp_path, {"texts": "many"}, np.ones(1 << 20, np.int64), 256)
    with file.open() as (stream, done):
        assert done == 0
        for example in (0, 5, (1 << 20) - 1):
            file.write(stream, example, np.full([1, 256], example % 7, np.float32))
        file.note(stream, 1 << 20)
    before = memory_kb("RssAnon")
    rows = file.whole()
    found = tf.gather(rows, [5, (1 << 20) - 1, 7])
    np.testing.assert_array_equal(found[:, 3], [5.0, ((1 << 20) - 1) % 7, 0.0])
    assert memory_kb("RssAnon") - before < 50_000


def memory_kb(kind: str) -> int:
    line, = (line for line in Path("/proc/self/status").read_text().splitlines()
             if line.startswith(f"{kind}:"))
    return int(line.split()[1])
