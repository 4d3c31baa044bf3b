"""`fit`: it learns, keeps the best, stops when it should, and resumes exactly."""

from __future__ import annotations

import functools
import shutil

import numpy as np
import pytest

from tfopt import data, model
from tfopt.backend import keras, tf
from tfopt.model.layers import Dropout, LayerNorm
from tfopt.train import Settings, callbacks, fit, loop, run_state
from tfopt.train.distribute import strategy
from tfopt.types import INPUT_NAMES

TINY = model.EncoderConfig.uniform(
    hidden_size=8, num_layers=1, num_heads=2, intermediate_size=16, vocab_size=103,
    max_positions=64)
HEAD = model.Head(outputs=3)
RATE = 4e-3  # of the model that `learned` is
NO_DROPOUT = {"hidden_dropout": 0.0, "attention_dropout": 0.0}
NO_DROPOUT_HEAD = HEAD.replace(dropout=0.0)


def bag(dropout: float = 0.0, head: str = "head") -> keras.Model:
    """Mean of word vectors, normalized, to logits: trains in a moment."""
    inputs = {name: keras.Input([None], dtype="int32", name=name)
              for name in INPUT_NAMES}

    def initializer(seed):
        return keras.initializers.RandomNormal(seed=seed)

    x = keras.layers.Embedding(103, 8, embeddings_initializer=initializer(1),
                               name="words")(inputs["input_ids"])
    x = LayerNorm(name="norm")(keras.layers.GlobalAveragePooling1D()(x))
    x = Dropout(dropout)(x)
    return keras.Model(inputs, keras.layers.Dense(
        3, kernel_initializer=initializer(2), name=head)(x))


def bert() -> keras.Model:
    return model.build(TINY, HEAD)


def weights(trained: keras.Model) -> np.ndarray:
    """All weights in one row."""
    return np.concatenate([w.ravel() for w in trained.get_weights()])


def accuracy(trained: keras.Model, batches) -> float:
    hits = [np.argmax(trained(x), axis=-1) == y for x, y in batches.dataset()]
    return float(np.mean(np.concatenate(hits)))


class Script(keras.callbacks.Callback):
    """Tells `fit` dev accuracies of our own; notes each epoch's weights."""

    def __init__(self, *accuracies):
        super().__init__()
        self.accuracies, self.weights = accuracies, []

    def on_epoch_end(self, epoch, logs=None):
        if self.accuracies:
            logs["val_accuracy"] = self.accuracies[epoch]
        self.weights.append(weights(self.model))


class Count(keras.callbacks.Callback):
    """Counts the steps trained."""

    steps = 0

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1


@pytest.fixture(scope="module")
def learned(tmp_path_factory, tiny_dir, tiny_examples):
    """A tiny BERT that was fitted: (model, batches, history, TensorBoard entries)."""
    batches = data.Batches(*tiny_examples, batch_size=8, shuffle_seed=0)
    log_dir = tmp_path_factory.mktemp("log")
    trained = model.load(tiny_dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "TrainingLog",
                      functools.partial(callbacks.TrainingLog, every=1))
        history = fit(trained, batches, batches, log_dir=log_dir,
                      settings=Settings(epochs=5, learning_rate=RATE))
    tags = {}
    for file in log_dir.glob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                if not value.tag.startswith("_hparams_"):
                    tags.setdefault(value.tag, {})[event.step] = float(
                        tf.make_ndarray(value.tensor))
    return trained, batches, history, tags


def test_it_learns(learned):
    trained, batches, history, _ = learned
    assert accuracy(trained, batches) > 0.9  # chance is a third
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]


def test_history_has_an_entry_an_epoch(learned):
    _, _, history, _ = learned
    assert len(history) == 5
    for entry in history:
        assert set(entry) == {"loss", "accuracy", "val_loss", "val_accuracy"}
        assert all(type(value) is float for value in entry.values())


def test_model_left_is_the_one_of_the_best_dev_accuracy(learned):
    trained, batches, history, _ = learned
    assert accuracy(trained, batches) == pytest.approx(
        max(entry["val_accuracy"] for entry in history))


def test_callers_model_is_left_without_an_optimizer(learned):
    assert getattr(learned[0], "optimizer", None) is None


def test_log_has_training_and_dev_figures(learned):
    _, _, history, tags = learned
    assert set(tags) == {"train/loss", "train/learning_rate", "train/examples_per_s",
                         "dev/loss", "dev/accuracy"}
    assert sorted(tags["train/loss"]) == list(range(1, 31))
    assert [tags["dev/accuracy"][6 * epoch] for epoch in range(1, 6)] == pytest.approx(
        [entry["val_accuracy"] for entry in history])
    assert tags["train/loss"][6] == pytest.approx(history[0]["loss"])
    rates = tags["train/learning_rate"]
    assert max(rates, key=rates.get) == 4  # after the warm-up of 3 steps
    assert rates[4] == pytest.approx(RATE)
    assert rates[30] == pytest.approx(RATE / 27)  # nothing is lost on a rate of zero


def test_a_seed_fixes_the_weights(tiny_batches):
    def run(seed):
        trained = bag(dropout=0.5)
        fit(trained, tiny_batches, settings=Settings(epochs=2, seed=seed))
        return weights(trained)

    first = run(3)
    np.testing.assert_array_equal(run(3), first)
    assert np.abs(run(4) - first).max() > 1e-5


@pytest.mark.parametrize("accuracies,best", [((0.2, 0.9, 0.1), 1),
                                             ((0.9, 0.2, 0.1), 0)])
def test_a_worse_later_epoch_is_not_kept(tiny_batches, accuracies, best):
    trained, script = bag(), Script(*accuracies)
    fit(trained, tiny_batches, tiny_batches, Settings(epochs=3), callbacks=[script])
    np.testing.assert_array_equal(weights(trained), script.weights[best])


def test_without_dev_the_last_epoch_stays(tiny_batches):
    trained, script = bag(), Script()
    fit(trained, tiny_batches, settings=Settings(epochs=2), callbacks=[script])
    np.testing.assert_array_equal(weights(trained), script.weights[-1])


def test_patience_stops_early(tiny_batches):
    trained, script = bag(), Script(0.5, 0.4, 0.3, 0.9)
    history = fit(trained, tiny_batches, tiny_batches,
                  Settings(epochs=4, patience=2), callbacks=[script])
    assert [entry["val_accuracy"] for entry in history] == [0.5, 0.4, 0.3]
    np.testing.assert_array_equal(weights(trained), script.weights[0])


def test_epochs_before_the_settle_step_are_not_kept(tiny_batches):
    trained, script = bag(), Script(0.9, 0.1, 0.2)
    fit(trained, tiny_batches, tiny_batches, Settings(epochs=3), callbacks=[script],
        first_valid_step=7)  # an epoch has 6 steps
    np.testing.assert_array_equal(weights(trained), script.weights[2])


def test_only_kernels_and_embeddings_decay(tiny_examples):
    """One step with and without decay, from the same weights."""
    whole = data.Batches(*tiny_examples, batch_size=48)

    def step(decay):
        trained = bag(head="beta_head")  # a name like that of a LayerNorm's beta
        trained.set_weights([w + 0.1 for w in trained.get_weights()])
        before = {w.name: w.numpy() for w in trained.weights}
        fit(trained, whole, settings=Settings(epochs=1, learning_rate=1e-2,
                                              weight_decay=decay, warmup=0.0))
        return before, {w.name: w.numpy() for w in trained.weights}

    before, without = step(0.0)
    _, decayed = step(0.5)
    lost = {name: without[name] - decayed[name] for name in before}
    for name in ("words/embeddings:0", "beta_head/kernel:0"):
        np.testing.assert_allclose(lost[name], 1e-2 * 0.5 * before[name], atol=1e-6)
    for name in ("norm/gamma:0", "norm/beta:0", "beta_head/bias:0"):
        np.testing.assert_array_equal(lost.pop(name), 0.0)
    assert len(lost) == 2


@pytest.fixture
def saved_each_step(monkeypatch):
    """The state of a run is saved after each step."""
    monkeypatch.setattr(loop, "SaveRunState",
                        functools.partial(callbacks.SaveRunState, every_s=0))


def test_loss_that_is_no_number_ends_training(tiny_batches, tmp_path, saved_each_step):
    broken = bag()
    broken.get_layer("head").bias.assign([0.0, np.nan, 0.0])
    with pytest.raises(FloatingPointError, match="at step 1;.*Received: loss=nan$"):
        fit(broken, tiny_batches, state_dir=tmp_path)
    assert not list(tmp_path.glob("ckpt*"))  # no state that a second run would take up


def test_learning_rate_too_high_names_the_step_it_broke_at(tiny_batches):
    with pytest.raises(FloatingPointError, match="lower the learning rate") as error:
        fit(bag(), tiny_batches, settings=Settings(learning_rate=1e38, warmup=0.0))
    assert "at step 2;" in str(error.value)  # the first step still was a good one


def test_jit_compiled_training_gives_the_same_weights(tiny_examples):
    batches = data.Batches(*tiny_examples, batch_size=8, shuffle_seed=0, pad_to=16)
    trained = {}
    for jit_compile in (False, True):
        trained[jit_compile] = bag()
        fit(trained[jit_compile], batches,
            settings=Settings(epochs=1, jit_compile=jit_compile))
    np.testing.assert_allclose(weights(trained[True]), weights(trained[False]),
                               atol=1e-5)
    assert np.abs(weights(trained[True]) - weights(bag())).max() > 1e-4


def test_bfloat16_trains_float32_weights(tiny_batches):
    losses, trained = {}, {}
    for name in ("float32", "mixed_bfloat16"):
        trained[name] = model.build(
            TINY.replace(**NO_DROPOUT, initializer_range=0.3), NO_DROPOUT_HEAD)
        history = fit(trained[name], tiny_batches, settings=Settings(
            epochs=4, learning_rate=1e-2, mixed_precision=name))
        losses[name] = np.array([entry["loss"] for entry in history])
    assert all(w.dtype == tf.float32 for w in trained["mixed_bfloat16"].weights)
    assert trained["mixed_bfloat16"].get_layer("pooler").compute_dtype == "float32"
    np.testing.assert_allclose(losses["mixed_bfloat16"], losses["float32"], rtol=0.05)
    assert losses["mixed_bfloat16"][-1] < 0.9 * losses["mixed_bfloat16"][0]
    assert np.any(losses["mixed_bfloat16"] != losses["float32"])  # it was bfloat16
    # The caller's model is the trained one.
    assert np.abs(weights(trained["mixed_bfloat16"])
                  - weights(model.build(TINY, HEAD))).max() > 1e-2


def test_two_devices_do_what_one_does(tiny_examples):
    batches = data.Batches(*tiny_examples, batch_size=8, shuffle_seed=0)
    settings = Settings(epochs=2, learning_rate=1e-3)
    results = []
    for name in ("one_device", "mirrored"):
        with strategy.make(name).scope():
            trained = model.build(TINY.replace(**NO_DROPOUT), NO_DROPOUT_HEAD)
        history = fit(trained, batches, batches, settings)
        logits = np.concatenate([trained(x) for x, _ in batches.dataset()])
        results.append((logits, [[*entry.values()] for entry in history]))
    assert trained.distribute_strategy.num_replicas_in_sync == 2
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(two, one, atol=1e-5)


class Kill(keras.callbacks.Callback):
    """Ends the process, so to speak, when `event` happens for the n-th time."""

    def __init__(self, event: str, nth: int):
        super().__init__()
        self.left = nth
        setattr(self, event, self._count)

    def _count(self, *_):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


RESUMED = Settings(epochs=3, learning_rate=1e-2, seed=5)  # of 6 steps each


@pytest.fixture(scope="module")
def unbroken(tiny_examples):
    """Kind of model -> (weights, history) of a run that was never killed."""
    def run(build):
        trained, batches = build(), data.Batches(*tiny_examples, batch_size=8,
                                                 shuffle_seed=0)
        return weights(trained), fit(trained, batches, batches, RESUMED), trained

    @functools.cache
    def result(build):
        start, history, trained = run(build)
        assert np.abs(weights(trained) - start).max() > 1e-2
        return weights(trained), history

    return result


dropped_bag = functools.partial(bag, dropout=0.5)


@pytest.mark.parametrize("build,event,nth,steps_left", [
    (dropped_bag, "on_train_batch_end", 4, 15),
    (dropped_bag, "on_epoch_end", 1, 13),  # step 6 is not saved without its figures
    (dropped_bag, "on_epoch_begin", 2, 12),
    (dropped_bag, "on_train_batch_end", 16, 3),
    (dropped_bag, "on_train_end", 1, 0),
    (bert, "on_train_batch_end", 10, 9),
])
def test_killed_run_goes_on_to_the_same_weights(
        tiny_batches, tmp_path, saved_each_step, unbroken, build, event, nth,
        steps_left):
    with pytest.raises(KeyboardInterrupt):
        fit(build(), tiny_batches, tiny_batches, RESUMED, state_dir=tmp_path,
            callbacks=[Kill(event, nth)])
    resumed, count = build(), Count()
    history = fit(resumed, tiny_batches, tiny_batches, RESUMED, state_dir=tmp_path,
                  callbacks=[count])
    expected, expected_history = unbroken(build)
    np.testing.assert_array_equal(weights(resumed), expected)
    assert count.steps == steps_left
    for figure in ("val_loss", "val_accuracy"):
        assert ([entry[figure] for entry in history]
                == [entry[figure] for entry in expected_history])


def test_run_killed_twice_goes_on_to_the_same_weights(
        tiny_batches, tmp_path, saved_each_step, unbroken):
    for nth in (9, 2):
        with pytest.raises(KeyboardInterrupt):
            fit(dropped_bag(), tiny_batches, tiny_batches, RESUMED,
                state_dir=tmp_path, callbacks=[Kill("on_train_batch_end", nth)])
    resumed = dropped_bag()
    fit(resumed, tiny_batches, tiny_batches, RESUMED, state_dir=tmp_path)
    np.testing.assert_array_equal(weights(resumed), unbroken(dropped_bag)[0])


def test_finished_run_is_not_trained_again(tiny_batches, tmp_path):
    first, second, count = bag(), bag(), Count()
    history = fit(first, tiny_batches, tiny_batches, Settings(epochs=2),
                  callbacks=[Script(0.5, 0.2)], state_dir=tmp_path)
    again = fit(second, tiny_batches, tiny_batches, Settings(epochs=2),
                callbacks=[count], state_dir=tmp_path)
    assert count.steps == 0
    assert again == history
    np.testing.assert_array_equal(weights(second), weights(first))


def test_run_killed_after_patience_ended_it_is_not_trained_on(tiny_batches, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(bag(), tiny_batches, tiny_batches, Settings(epochs=4, patience=1),
            callbacks=[Script(0.5, 0.4, 0.9, 0.9), Kill("on_train_end", 1)],
            state_dir=tmp_path)
    resumed, count = bag(), Count()
    history = fit(resumed, tiny_batches, tiny_batches, Settings(epochs=4, patience=1),
                  callbacks=[count], state_dir=tmp_path)
    assert (count.steps, len(history)) == (0, 2)


@pytest.mark.parametrize("name,value", [
    ("epochs", 0), ("epochs", -1),
    ("learning_rate", 0.0), ("learning_rate", -1e-4), ("learning_rate", float("nan")),
    ("weight_decay", -0.1),
    ("warmup", 1.0), ("warmup", -0.1),
    ("clip_norm", 0.0), ("clip_norm", -1.0),
    ("patience", 0),
    ("mixed_precision", "mixed_float16"), ("mixed_precision", "bfloat16"),
    ("steps_per_execution", 0),
])
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError) as error:
        Settings(**{name: value})
    assert str(error.value).startswith(f"`{name}` must be ")
    assert str(error.value).endswith(f"Received: {name}={value!r}")


def test_a_state_of_another_model_is_refused(tiny_model, tiny_batches, tmp_path):
    fit(tiny_model, tiny_batches, settings=Settings(epochs=1), state_dir=tmp_path)
    other = model.build(model.config_of(tiny_model).replace(hidden_size=16), HEAD, 0)
    with pytest.raises(ValueError, match="same model. Received: "):
        fit(other, tiny_batches, settings=Settings(epochs=1), state_dir=tmp_path)


@pytest.fixture(scope="module")
def killed(tiny_examples, tmp_path_factory):
    """The state of a run whose second epoch was the best, killed in the third."""
    place = tmp_path_factory.mktemp("killed")
    batches = data.Batches(*tiny_examples, batch_size=8, shuffle_seed=0)
    with pytest.raises(KeyboardInterrupt):
        fit(bag(), batches, batches, RESUMED, state_dir=place, callbacks=[
            Script(0.2, 0.9, 0.3), Kill("on_train_batch_end", 14)])
    assert sorted(file.name for file in place.iterdir()) == [
        "best.npz", "checkpoint", "ckpt-12.data-00000-of-00001", "ckpt-12.index"]
    return place


def halved(file) -> None:
    file.write_bytes(file.read_bytes()[:file.stat().st_size // 2])


def of_another_model(file) -> None:
    np.savez(file, *(np.zeros(w.shape[::-1]) for w in bag().get_weights()))


@pytest.mark.parametrize("name, damage, said", [
    ("best.npz", halved, "cannot be read; remove it.*best.npz: "),
    ("best.npz", lambda file: file.unlink(), "cannot be read.*No such file.*best.npz"),
    ("best.npz", lambda file: file.write_bytes(b""), "cannot be read.*best.npz"),
    ("best.npz", of_another_model, "of the same model. Received: .*best.npz$"),
    ("checkpoint", halved, "cannot be read.*checkpoint names no state$"),
    ("checkpoint", lambda file: file.write_bytes(b""), "cannot be read"),
    ("checkpoint", lambda file: file.write_bytes(b"\xff"), "cannot be read"),
    ("ckpt-12.index", lambda file: file.unlink(), "cannot be read"),
    ("ckpt-12.index", halved, "cannot be read"),
    ("ckpt-12.data-00000-of-00001", lambda file: file.unlink(), "cannot be read"),
    ("ckpt-12.data-00000-of-00001", halved, "cannot be read"),
    ("note", "", "cannot be read"), ("note", "[]", "cannot be read"),
    ("note", '{"best_epoch": 1}', "cannot be read.*'best_value'"),
], ids=lambda value: getattr(value, "__name__", str(value))[:12])
def test_a_damaged_state_is_told_and_nothing_trained(
        killed, tmp_path, tiny_batches, monkeypatch, name, damage, said):
    place, count = shutil.copytree(killed, tmp_path / "state"), Count()
    if name == "note":
        monkeypatch.setattr(run_state._Note, "deserialize",
                            lambda self, _: setattr(self, "text", damage))
    else:
        damage(place / name)
    with pytest.raises(ValueError, match=said) as error:
        fit(bag(), tiny_batches, tiny_batches, RESUMED, state_dir=place,
            callbacks=[count])
    assert str(place) in str(error.value) and "\n" not in str(error.value)
    assert count.steps == 0
