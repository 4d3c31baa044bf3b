"""Vectors of texts: losses of pairs, the correlation that judges them, answers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tfopt import data, model, tasks, train
from tfopt.backend import tf
from tfopt.compress.structure import importance
from tfopt.tasks.embedding import Embedding
from tfopt.train import sentence_vectors

PAIRS = data.Corpus(path="pairs.tsv", texts=["a", "b", "c", "d"],
                    pairs=["e", "f", "g", "h"], labels=["5", "0", "2.5", "2.5"],
                    lines=[2, 3, 4, 5])
TEXTS = data.Corpus(path="texts.txt", texts=["a", "b", "c"], pairs=None,
                    labels=[""] * 3, lines=[0] * 3)
# Two and two: cosines 1, 0, -1 and 0.6.
ROWS = np.float32([[2, 0], [3, 0], [1, 0], [0, 1], [0, 5], [0, -2], [1, 0], [3, 4]])
COSINES = [1.0, 0.0, -1.0, 0.6]


def test_scores_are_scaled_to_those_of_the_train_set():
    task = Embedding.from_corpus(PAIRS)
    assert (task.low, task.high, task.learns_from_labels) == (0.0, 5.0, True)
    assert task.targets(PAIRS) == [1, 1, 0, 0, 0.5, 0.5, 0.5, 0.5]
    assert task.monitor == ("spearman", "higher") and task.drop_unit == "points"
    with pytest.raises(ValueError, match="pairs.tsv: scores .* must differ.*4 pairs"):
        Embedding.from_corpus(data.Corpus(
            path="pairs.tsv", texts=PAIRS.texts, pairs=PAIRS.pairs, labels=["1"] * 4,
            lines=PAIRS.lines))


@pytest.mark.parametrize("label", ["alike", "nan", "inf", ""])
def test_a_score_that_is_no_number_is_refused_with_its_line(label):
    wrong = data.Corpus(path="pairs.tsv", texts=["a"], pairs=["b"], labels=[label],
                        lines=[7])
    with pytest.raises(ValueError, match="^pairs.tsv:7: a score must be a finite"):
        Embedding().targets(wrong)


def test_texts_alone_have_no_targets_and_are_judged_by_the_baseline():
    task = Embedding.from_corpus(TEXTS)
    assert not task.learns_from_labels and all(map(math.isnan, task.targets(TEXTS)))
    assert task.monitor == ("cosine_to_baseline", "higher")
    assert task.quality(ROWS, 3.0 * ROWS) == {"cosine_to_baseline": pytest.approx(1.0)}
    turned = ROWS[:, ::-1] * [1, -1]
    assert task.quality(ROWS, turned) == {"cosine_to_baseline": pytest.approx(0.0)}
    judged = task.of(PAIRS)
    assert judged.monitor == ("spearman", "higher")
    assert judged.targets(PAIRS)[:4] == [1, 1, 0, 0]  # of dev's own scale
    assert task.of(PAIRS) == task  # a model of the one is one of the other
    assert Embedding(reads="first") != task


def test_cosines_of_neighbours():
    found = sentence_vectors.cosines(tf.constant(ROWS)).numpy()
    np.testing.assert_allclose(found, np.repeat(COSINES, 2), atol=1e-6)
    alone = sentence_vectors.cosines(tf.constant(ROWS[:3])).numpy()
    np.testing.assert_allclose(alone, [1, 1, 1], atol=1e-6)


def test_the_loss_of_a_pair_is_the_square_of_what_its_cosine_is_off():
    scores = tf.constant([0.5, 0.5, 0, 0, np.nan, np.nan, 0, 0])
    found = sentence_vectors.pair_loss(tf.constant(ROWS), scores).numpy()
    np.testing.assert_allclose(found, [0.25, 0.25, 0, 0, 0, 0, 0.36, 0.36], atol=1e-6)
    loss = float(Embedding().objective().loss()(scores, ROWS))
    assert loss == pytest.approx(found.mean())
    odd = sentence_vectors.pair_loss(tf.constant(ROWS[:3]), scores[:3]).numpy()
    np.testing.assert_allclose(odd, [0.25, 0.25, 0], atol=1e-6)


def test_both_texts_of_a_pair_are_moved_as_by_the_loss_of_the_pair():
    rows = tf.constant(np.random.default_rng(0).normal(size=[4, 3]), tf.float32)
    scores = tf.constant([0.2, 0.2, 0.9, 0.9])
    with tf.GradientTape() as tape:
        tape.watch(rows)
        each = tf.reduce_sum(sentence_vectors.pair_loss(rows, scores))
    found = tape.gradient(each, rows)
    with tf.GradientTape() as tape:
        tape.watch(rows)
        units = sentence_vectors.unit(rows)
        whole = tf.reduce_sum((tf.reduce_sum(units[::2] * units[1::2], 1)
                               - scores[::2]) ** 2)
    np.testing.assert_allclose(found, tape.gradient(whole, rows), atol=1e-5)


def test_a_probe_has_the_squared_change_of_the_vector_for_its_squared_gradient():
    random = np.random.default_rng(0)
    rows = tf.constant(random.normal(size=[4000, 8]), tf.float32)
    change = tf.constant(random.normal(size=[8]), tf.float32)
    size = tf.Variable(tf.zeros([4000, 1]))
    with tf.GradientTape() as tape:
        loss = sentence_vectors.probe(rows + size * change)
    found = tape.gradient(loss, size).numpy()
    step = 1e-3
    moved = (sentence_vectors.unit(rows + step * change)
             - sentence_vectors.unit(rows)) / step
    expected = np.sum(moved.numpy() ** 2, axis=1)
    assert np.mean(found ** 2) == pytest.approx(np.mean(expected), rel=0.05)
    np.testing.assert_array_equal(loss, sentence_vectors.probe(rows))


def spearman(x, y) -> float:
    """As of the mean places of equal numbers."""
    x, y = (np.array([np.mean(np.flatnonzero(np.sort(v) == one)) for one in v])
            for v in (np.asarray(x), np.asarray(y)))
    return float(np.corrcoef(x, y)[0, 1])


def test_quality_is_spearmans_correlation_with_ties_by_mean_rank():
    scores = [0.5, 0.2, 0.2, 0.9]
    found = Embedding().quality(ROWS, np.repeat(scores, 2))
    assert found["spearman"] == pytest.approx(spearman(COSINES, scores))
    assert found["pearson"] == pytest.approx(np.corrcoef(COSINES, scores)[0, 1])
    with pytest.raises(ValueError, match="two and two. Received: 3 outputs"):
        Embedding().quality(ROWS[:3], [1, 1, 2])


def test_the_metric_of_training_is_the_same_over_batches_and_passes_over_others():
    random = np.random.default_rng(0)
    rows = random.normal(size=[40, 4]).astype(np.float32)
    scores = np.repeat(random.integers(0, 4, 20), 2).astype(np.float32)
    metric = sentence_vectors.Spearman()
    assert float(metric.result()) == 0
    for start in (0, 16, 32):
        batch = slice(start, start + 16)
        metric.update_state(scores[batch, np.newaxis], rows[batch])
        metric.update_state(scores[batch], rows[batch],
                            sample_weight=np.zeros(len(scores[batch])))
        metric.update_state(np.full(4, np.nan), rows[:4])
    expected = Embedding().quality(rows, scores)["spearman"]
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)
    metric.reset_state()
    assert float(metric.result()) == 0


def test_the_metric_keeps_the_last_pairs(monkeypatch):
    monkeypatch.setattr(sentence_vectors, "_MOST_PAIRS", 8)
    random = np.random.default_rng(0)
    rows = random.normal(size=[40, 4]).astype(np.float32)
    scores = np.repeat(np.arange(20.0, dtype=np.float32), 2)
    metric = sentence_vectors.Spearman()
    for start in range(0, 40, 4):
        metric.update_state(scores[start:start + 4], rows[start:start + 4])
    expected = Embedding().quality(rows[-16:], scores[-16:])["spearman"]
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


def test_the_metric_is_compiled_by_xla():
    random = np.random.default_rng(1)
    rows = random.normal(size=[16, 4]).astype(np.float32)
    scores = np.repeat(random.permutation(8), 2).astype(np.float32)
    metric = sentence_vectors.Spearman()

    @tf.function(jit_compile=True)
    def update(targets, batch):
        metric.update_state(targets, batch)
        return metric.result()

    update(scores[:8], rows[:8])
    expected = Embedding().quality(rows, scores)["spearman"]
    assert float(update(scores[8:], rows[8:])) == pytest.approx(expected, rel=1e-5)


def test_the_metric_of_replicas_is_of_all_their_pairs():
    random = np.random.default_rng(1)
    rows = random.normal(size=[16, 4]).astype(np.float32)
    scores = np.repeat(random.permutation(8), 2).astype(np.float32)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        metric = sentence_vectors.Spearman()

    @tf.function
    def update(batch, targets):
        metric.update_state(targets, batch)

    def of(values):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(
                np.split(values, 2)[context.replica_id_in_sync_group]))

    strategy.run(update, (of(rows), of(scores)))
    expected = Embedding().quality(rows, scores)["spearman"]
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)


def test_answers_are_vectors_of_length_one_and_cosines():
    task = Embedding().giving(2)
    assert task.outputs == 2 and tasks.from_fields(task.to_fields()).width == 2
    assert task.decode(ROWS[-1:]) == [{"embedding": [0.6, 0.8]}]
    np.testing.assert_allclose(task.vectors(ROWS[:1]), [[1.0, 0.0]])
    np.testing.assert_allclose(Embedding(normalize=False).vectors(ROWS), ROWS)
    found = task.decode_pairs(ROWS[::2], ROWS[1::2])
    np.testing.assert_allclose([each["score"] for each in found], COSINES, atol=1e-6)
    with pytest.raises(ValueError, match="task embedding. Received: one of Regression"):
        tasks.named("regression")().vectors(ROWS)


@pytest.mark.parametrize("fields, said", [
    ({"reads": "all"}, "reads='all'"), ({"width": -1}, "width=-1"),
    ({"low": 1.0, "high": 1.0}, "high=1.0")])
def test_wrong_fields_are_refused(fields, said):
    with pytest.raises(ValueError, match=f"Received: {said}"):
        Embedding(**fields)


def small_model(reads="mean"):
    return model.build(model.EncoderConfig.uniform(
        hidden_size=8, num_layers=2, num_heads=2, intermediate_size=16, vocab_size=50,
        max_positions=16, initializer_range=0.3), Embedding(reads=reads).head())


def some_texts(count=24):
    random = np.random.default_rng(0)
    ids = [[2, *random.integers(5, 50, random.integers(1, 10)).tolist(), 3]
           for _ in range(count)]
    return data.Encoded(ids=ids, first_lengths=[len(each) for each in ids])


def test_what_matters_to_a_vector_without_labels_shows_what_changes_it():
    """The Fisher score of a unit is half of what the vector moves without it, about."""
    built, encoded = small_model(), some_texts()
    task = Embedding.from_corpus(TEXTS)
    batches = data.Batches(encoded, [math.nan] * 24, batch_size=8)
    scores = importance.of(built, "fisher", batches, task=task)
    block = scores.neurons[0]
    assert np.all(np.diff(block.loss) > 0)
    inputs, _ = next(iter(data.Batches(encoded, [math.nan] * 24,
                                       batch_size=24).dataset()))
    before, moved = task.vectors(built(inputs).numpy()), []
    dense = built.get_layer("layer_0_ffn_output")
    kernel, bias = dense.get_weights()
    for unit in range(16):
        dense.set_weights([kernel * (np.arange(16) != unit)[:, np.newaxis], bias])
        moved.append(np.mean(np.sum(
            (task.vectors(built(inputs).numpy()) - before) ** 2, axis=1)))
    ranked = np.empty(16)
    ranked[list(block.order)] = np.arange(16)
    assert spearman(ranked, moved) > 0.6


def test_pairs_are_learned_and_dev_chooses_the_epoch():
    encoded = some_texts(16)
    scores = np.repeat([0.0, 1.0, 0.3, 0.8, 0.1, 0.9, 0.5, 0.6], 2).tolist()
    batches = data.PairedBatches(encoded, scores, batch_size=8, shuffle_seed=0)
    student, task = small_model(), Embedding()
    history = train.fit(
        student, batches, data.PairedBatches(encoded, scores, batch_size=8),
        train.Settings(epochs=6, learning_rate=0.01), goal=task.objective())
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    outputs = np.concatenate([student(data.Batches(data.Encoded(
        ids=[ids], first_lengths=[len(ids)])).dataset().get_single_element()).numpy()
        for ids in encoded.ids])
    best = max(epoch["val_spearman"] for epoch in history)
    assert task.quality(outputs, scores)["spearman"] == pytest.approx(best, abs=1e-5)


def test_vectors_of_a_teacher_are_learned_without_any_label():
    encoded, teacher, student = some_texts(32), small_model(), small_model()
    random = np.random.default_rng(1)
    student.set_weights([weight + 0.1 * random.normal(size=weight.shape)
                         for weight in student.get_weights()])
    task = Embedding.from_corpus(TEXTS)
    goal = train.Distillation(hard_weight=0.0).goal(teacher, of=task.objective())
    batches = data.Batches(encoded, [math.nan] * 32, batch_size=8, shuffle_seed=0)
    history = train.fit(student, batches, None, train.Settings(
        epochs=6, learning_rate=0.01), goal=goal)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]


def test_pooling_is_that_of_the_checkpoint_or_of_the_model_before(tmp_path):
    assert Embedding().of(PAIRS, tmp_path).reads == "mean"
    for name, fields in {
            "modules.json": [{"path": "", "type": "x.Transformer"},
                             {"path": "1_Pooling", "type": "x.Pooling"}],
            "1_Pooling/config.json": {"pooling_mode": "cls"}}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(fields))
    found = Embedding().of(TEXTS, tmp_path)
    assert (found.reads, found.normalize) == ("first", False)
    assert found.head().reads == "first" and not found.judged_by_scores
    tasks.save(Embedding(normalize=False), tmp_path)
    assert Embedding().of(PAIRS, tmp_path) == Embedding(normalize=False)
