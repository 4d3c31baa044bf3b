"""What every task must keep, whichever it is; a new task is tested by being there."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from tfopt import compress, data, model, tasks, train
from tfopt.backend import keras, tf
from tfopt.compress.structure import importance
from tfopt.data.places import Places
from tfopt.train import objective
from tfopt.types import INPUT_NAMES, is_labelled

TASKS = tasks.all_tasks()
CORPUS = data.Corpus(path="train.tsv", texts=["a", "b", "c", "d"], pairs=None,
                     labels=["1", "2", "0", "2"], lines=[2, 3, 4, 5])
# Of tasks whose labels are not a word or a number each: the second and the last
# example are alike, the first is another.
CORPORA: dict[str, data.Corpus] = {
    # Two pairs, which are two examples each: the first two are alike.
    "embedding": data.Corpus(
        path="train.tsv", texts=["a", "c"], pairs=["b", "d"], labels=["1", "0"],
        lines=[2, 4]),
    "multi_label": dataclasses.replace(
        CORPUS, labels=[("1", "0"), ("2",), (), ("2",)]),
    # Of as many tokens as words.
    "token_classification": data.Corpus(
        path="train.tsv", texts=["a b c"] * 4, pairs=None, lines=[2, 3, 4, 5],
        labels=[("O", "B-x", "O"), ("B-x", "I-x", "O"), ("O", "O", "B-y"),
                ("B-x", "I-x", "O")],
        word_spans=[[(0, 1), (2, 3), (4, 5)]] * 4)}
WIDTH = 8  # of outputs, for a task that takes the encoder's
TOKENS = 3
# A label for which there is no target, and how the error quotes it.
WRONG: dict[str, tuple] = {"multi_label": (("1", "neither"), "'neither'"),
                           "token_classification": (("O", "neither"), "'neither'")}


def corpus_of(name: str) -> data.Corpus:
    return CORPORA.get(name, CORPUS)


@pytest.fixture(params=sorted(TASKS))
def task(request) -> tasks.Task:
    return TASKS[request.param].from_corpus(corpus_of(request.param)).giving(WIDTH)


@pytest.fixture
def targets(task) -> tf.Tensor:
    """Those of the corpus, <int32>[4, ...] or <float32>[4, ...]."""
    values = np.asarray(task.targets(corpus_of(task.name())))
    return tf.constant(values, tf.int32 if values.dtype.kind == "i" else tf.float32)


@pytest.fixture
def outputs(task) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).normal(size=shape_of(task, 4)),
                       tf.float32)


def shape_of(task, examples: int) -> list[int]:
    """Of the outputs of so many examples."""
    return [examples, *([TOKENS] if task.per_token else []), task.outputs]


def best_outputs(task, targets) -> np.ndarray:
    """Outputs that are right, by way of gradient descent on the task's own loss."""
    found = tf.Variable(tf.random.stateless_normal(
        shape_of(task, len(targets)), seed=[0, 1], stddev=0.1))
    for _ in range(200):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(task.objective().hard_loss(found, targets))
        found.assign_sub(0.4 * tape.gradient(loss, found))
    return found.numpy()


def test_json_gives_it_back(task):
    fields = json.loads(json.dumps(task.to_fields()))
    assert fields["task"] == task.name() == type(task).__module__.rpartition(".")[2]
    assert tasks.from_fields(fields) == task


def test_figures_of_classes_are_of_its_labels_and_numbers(task, outputs, targets):
    found = task.by_class(outputs.numpy(), targets.numpy())
    classes = ("x", "y") if task.per_token else task.labels  # types of entities
    assert tuple(found) == classes
    assert json.loads(json.dumps(found)) == found
    assert len({tuple(figures) for figures in found.values()}) <= 1


def test_other_names_and_fields_are_refused(task):
    with pytest.raises(ValueError, match=r"one of .*Received: task='sorting'"):
        tasks.from_fields({"task": "sorting"})
    for wrong in ({"colour": 1}, {"labels": "abc"}, {"labels": [1, 2]}):
        with pytest.raises(ValueError, match="Received: "):
            tasks.from_fields({**task.to_fields(), **wrong})


def test_a_file_beside_a_model_gives_it_back(task, tmp_path):
    assert tasks.read(tmp_path) is None
    tasks.save(task, tmp_path)
    assert tasks.read(tmp_path, labels=["of", "another"]) == task
    for wrong in ("[]", "{", '{"task": "sorting"}', "3", "[" * 100_000, '{"task": []}'):
        (tmp_path / "task.json").write_text(wrong)
        with pytest.raises(ValueError, match="task.json$"):
            tasks.read(tmp_path)


def test_without_its_fields_it_has_losses_and_metrics(task, outputs, targets):
    plain = type(task)()
    np.testing.assert_array_equal(plain.example_loss(outputs, targets),
                                  task.example_loss(outputs, targets))
    assert plain.drop(0.25, 0.5) == task.drop(0.25, 0.5) != 0


def test_its_metrics_hold_the_monitor(task):
    name, better = task.monitor
    assert {metric.name: metric.better for metric in task.metrics}[name] == better
    assert better in ("higher", "lower")


def test_the_head_gives_its_outputs(task):
    assert (task.head().outputs or WIDTH) == task.outputs
    config = model.EncoderConfig.uniform(
        hidden_size=WIDTH, num_layers=1, num_heads=2, intermediate_size=16,
        vocab_size=50, max_positions=16)
    task.check_outputs(model.build(config, task.head()).output_shape)
    for wrong in ({"outputs": task.outputs + 1},
                  {"reads": "first" if task.head().reads == "all" else "all"}):
        built = model.build(config, task.head().replace(**wrong))
        with pytest.raises(ValueError, match=f"task '{task.name()}' must .*Received: "):
            task.check_outputs(built.output_shape)


def test_a_corpus_gives_a_target_an_example(task):
    corpus = corpus_of(task.name())
    found = task.targets(corpus)
    alike, other = ((0, 1), 2) if task.apart else ((1, 3), 0)
    assert len(found) == 4 and np.array_equal(*(found[place] for place in alike))
    assert not np.array_equal(found[other], found[1])
    assert {np.ndim(target) for target in found} == {task.target_rank}
    wrong, quoted = WRONG.get(task.name(), ("neither", "'neither'"))
    with pytest.raises(ValueError, match=f"^train.tsv:4: .*Received: {quoted}"):
        task.targets(dataclasses.replace(corpus, labels=[
            wrong if line == 4 else label
            for label, line in zip(corpus.labels, corpus.lines, strict=True)]))


def test_the_objective_is_the_mean_of_the_losses_of_examples(task, outputs, targets):
    plain = task.objective()
    assert isinstance(plain, objective.Objective) and plain.monitor == task.monitor
    each = plain.hard_loss(outputs, targets)
    assert each.shape == [4]
    np.testing.assert_allclose(plain.loss()(targets, outputs), np.mean(each), rtol=1e-5)
    np.testing.assert_allclose(task.example_loss(outputs, targets), each, rtol=1e-5)


def test_the_monitor_is_among_the_metrics_of_training(task, outputs, targets):
    metrics = {metric.name: metric for metric in task.objective().metrics()}
    metric = metrics[task.monitor[0]]
    metric.update_state(targets, outputs)
    found = outputs.numpy(), targets.numpy()
    assert float(metric.result()) == pytest.approx(
        task.value(task.fitted(*found).quality(*found)), rel=1e-5)


def with_missing(task, targets) -> list[tf.Tensor]:
    """Targets of which the first is missing; and none at all, as batches without."""
    none = tf.fill([1, *targets.shape[1:]], tf.cast(task.no_target, targets.dtype))
    return [tf.concat([none, targets[1:]], 0), tf.fill([4], -1)]


def examples_labelled(targets) -> np.ndarray:
    """Which examples have a number of their target, <bool>[4]."""
    return is_labelled(targets).numpy().reshape([4, -1]).any(axis=1)


def test_a_missing_target_has_no_hard_loss_and_no_gradient(task, outputs, targets):
    assert examples_labelled(targets).all()
    for own in with_missing(task, targets):
        known = examples_labelled(own)
        assert not known[0]
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            loss = task.objective().hard_loss(outputs, own)
        assert np.array_equal(loss.numpy() != 0, known)
        gradient = tape.gradient(loss, outputs).numpy()
        assert np.array_equal(np.any(gradient.reshape([4, -1]) != 0, axis=1), known)
        assert np.all(np.isfinite(gradient))


def test_the_models_guess_stands_for_a_missing_target(task, outputs, targets):
    guess = task.guess(outputs)
    assert guess.shape == targets.shape and guess.dtype == targets.dtype
    for own in with_missing(task, targets):
        known = examples_labelled(own)
        found = task.with_guesses(outputs, own).numpy()
        np.testing.assert_array_equal(found[known], targets.numpy()[known])
        np.testing.assert_array_equal(found[~known], guess.numpy()[~known])
        assert np.all(np.isfinite(task.example_loss(outputs, own)))
    right = tf.constant(best_outputs(task, targets))
    np.testing.assert_allclose(task.guess(right), targets, atol=0.05)


def test_each_example_has_a_gradient_with_and_without_a_target(
        task, outputs, targets):
    for own in (targets, *with_missing(task, targets)):
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            loss = tf.reduce_sum(task.example_loss(outputs, own))
        gradient = tape.gradient(loss, outputs).numpy().reshape([4, -1])
        assert np.all(np.abs(gradient).sum(axis=1) > 1e-4)


def test_a_student_equal_to_its_teacher_has_no_soft_loss(task, outputs):
    soft = task.objective().soft_loss
    np.testing.assert_allclose(soft(outputs, outputs, 2.0), np.zeros(
        [4, TOKENS] if task.per_token else 4), atol=1e-6)
    # Turned round, the outputs are others, whatever is added to all of a row.
    assert np.all(soft(outputs, -3.0 * outputs, 2.0).numpy() > 1e-3)


def test_right_answers_are_better_than_others(task, outputs, targets):
    right = task.quality(best_outputs(task, targets), targets.numpy())
    other = task.quality(outputs.numpy(), targets.numpy())
    assert set(right) == {metric.name for metric in task.metrics}
    assert {type(value) for value in right.values()} == {float}
    best = 1.0 if task.monitor[1] == "higher" else 0.0
    assert task.value(right) == pytest.approx(best, abs=0.05)
    assert task.better(task.value(right), task.value(other))
    assert not task.better(task.value(other), task.value(right))
    assert task.drop(task.value(right), task.value(other)) > 0
    assert task.drop(task.value(other), task.value(right)) < 0


def test_other_numbers_of_targets_and_none_are_refused(task, outputs, targets):
    for count in (3, 0):
        with pytest.raises(ValueError, match=f"Received: {count} outputs, 4 targets"):
            task.quality(outputs.numpy()[:count], targets.numpy())
    with pytest.raises(ValueError, match="Received: 0 outputs, 0 targets"):
        task.quality(outputs.numpy()[:0], targets.numpy()[:0])


def test_answers_are_json(task, outputs):
    places = Places("a b c", ((0, 1), (2, 3), (4, 5)), (0, 1, 2))
    encoded = data.Encoded(ids=[[2, 5, 3]] * 4, first_lengths=[3] * 4,
                           places=[places] * 4)
    answers = json.loads(json.dumps(task.decode(outputs.numpy(), encoded)))
    assert len(answers) == 4 and all(
        {"score", "scores", "embedding", "spans"} & {*each} for each in answers)
    assert answers[0] != answers[1]


def test_what_is_watched_is_of_its_labels_and_in_range(task, outputs):
    found = task.signals(outputs.numpy())
    assert len(found) == 4
    for seen in found:
        if not task.labels:
            assert seen == (None, None, None)
            continue
        words = (seen.label,) if isinstance(seen.label, str) else seen.label or ()
        assert {*words} <= {*task.labels}
        assert 0 < seen.confidence <= 1 and seen.entropy >= 0


def test_what_answers_choose_is_undone_and_a_file_keeps_it(task, targets, tmp_path):
    many, wanted = np.repeat(best_outputs(task, targets), 5, axis=0), np.repeat(
        targets.numpy(), 5, axis=0)
    chosen = task.fitted(many - 2.0, wanted)
    assert chosen.unfitted == task
    tasks.save(chosen, tmp_path)
    assert tasks.read(tmp_path) == chosen
    moved = task.quality(many - 2.0, wanted) if not task.fitted_fields else (
        task.quality(many, wanted))
    assert task.value(task.fitted_quality(many - 2.0, wanted)) == pytest.approx(
        task.value(moved), abs=1e-6)


def small(task, seed: int) -> keras.Model:
    """The mean of word vectors, or these, to the task's outputs."""
    inputs = {name: keras.Input([None], dtype="int32", name=name)
              for name in INPUT_NAMES}
    words = keras.layers.Embedding(50, 8, embeddings_initializer=(
        keras.initializers.RandomNormal(seed=seed)))(inputs["input_ids"])
    read = words if task.per_token else keras.layers.GlobalAveragePooling1D()(words)
    return keras.Model(inputs, keras.layers.Dense(
        task.outputs, kernel_initializer=keras.initializers.RandomNormal(seed=seed))(
            read))


def test_a_student_learns_from_targets_and_teacher_where_targets_are_missing(
        task, targets):
    """Batches of which the last is smaller; dev chooses the epoch by the monitor."""
    count, size = (6, 4) if task.apart else (7, 3)
    kind = data.PairedBatches if task.apart else data.Batches
    ids = [[2, 5 + i, 3] for i in range(count)]
    encoded = data.Encoded(ids=ids, first_lengths=[3] * count)
    known = [*targets.numpy(), *[None] * (count - 4)]
    tokens = {"per_token": task.per_token, "pad_multiple": 1}
    dev = kind(data.Encoded(ids=ids[:4], first_lengths=[3] * 4), known[:4],
               batch_size=size, **tokens)
    student, teacher = small(task, 1), small(task, 2)
    goal = train.Distillation().goal(teacher, of=task.objective())
    history = train.fit(
        student, kind(encoded, known, batch_size=size, shuffle_seed=0, **tokens), dev,
        train.Settings(epochs=2, learning_rate=0.05), goal=goal)
    name, better = task.monitor
    inputs, own = next(iter(data.Batches(encoded, known, batch_size=4, **tokens
                                         ).dataset()))
    assert all(np.isfinite(value) for epoch in history for value in epoch.values())
    assert history[1]["loss"] < history[0]["loss"]
    best = (max if better == "higher" else min)(
        epoch[f"val_{name}"] for epoch in history)
    judged = student(inputs).numpy(), own.numpy()
    found = task.value(task.fitted(*judged).quality(*judged))
    assert found == pytest.approx(best, rel=1e-5)


def test_a_model_of_its_head_shows_what_matters_where_targets_are_missing(task):
    built = model.build(model.EncoderConfig.uniform(
        hidden_size=8, num_layers=1, num_heads=2, intermediate_size=16, vocab_size=50,
        max_positions=16, initializer_range=0.3), task.head())
    task.check_outputs(built.output_shape)
    encoded = data.Encoded(ids=[[2, 7, 3], [2, 9, 3]], first_lengths=[3, 3])
    scores = importance.of(built, "fisher", data.Batches(encoded), task=task)
    for block in (*scores.heads, *scores.neurons):
        assert np.all(np.diff(block.loss) > 0)


def test_a_model_of_other_outputs_is_refused_before_it_is_trained(task):
    right, wrong = small(task, 1), small(task, 1)
    wrong = keras.Model(wrong.inputs, keras.layers.Dense(
        task.outputs + 1)(wrong.output))
    context = compress.Context(task=task, train=data.Batches(
        data.Encoded(ids=[[2, 9, 3]], first_lengths=[3]),
        task.targets(corpus_of(task.name()))[:1], per_token=task.per_token))
    context.training_inputs(right)
    message = f"task '{task.name()}' must .*Received: .*{task.outputs + 1}\\)$"
    with pytest.raises(ValueError, match=message):
        context.training_inputs(wrong)
    recipe = compress.Recipe(passes=(compress.all_passes()["magnitude"].example(),))
    with pytest.raises(ValueError, match=message):
        compress.run(wrong, recipe, context)


def test_no_task_imports_tensorflow():
    code = ("import sys; from tfopt import tasks; tasks.all_tasks(); "
            "sys.exit('tensorflow' in sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True)
