"""The lookup on a SparseCore, as far as it goes without a TPU."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tfopt import model, train
from tfopt.backend import keras, tf
from tfopt.model import layer_names
from tfopt.sparse import embedding

FEATURES = tf.tpu.experimental.HardwareFeature.EmbeddingFeature
ROWS, WIDTH, BATCH, LENGTH = 103, 20, 4, 6
IDS = np.random.default_rng(1).integers(0, ROWS, [BATCH, LENGTH]).astype(np.int32)


@pytest.fixture
def table() -> np.ndarray:
    return np.random.default_rng(0).standard_normal([ROWS, WIDTH]).astype(np.float32)


class Tpu(tf.distribute.TPUStrategy):
    """What `embedding` and TensorFlow's own class ask of a strategy, and no more."""

    def __init__(self, found: FEATURES = FEATURES.V2, replicas: int = 2,
                 each: int = 4):
        self._extended = SimpleNamespace(
            _num_replicas_in_sync=replicas,
            _tpu_devices=np.array([["/cpu:0"]] * replicas),
            tpu_hardware_feature=SimpleNamespace(
                embedding_feature=found, num_embedding_devices_per_chip=each))

    def scope(self):
        return tf.name_scope("tpu")


@pytest.fixture
def tpu(monkeypatch) -> Tpu:
    """Two chips of four SparseCores, as the current strategy."""
    strategy = Tpu()
    source = sys.modules[embedding._API.TPUEmbeddingV2.__module__]
    monkeypatch.setattr(source.distribute_lib, "get_strategy", lambda: strategy)
    return strategy


def test_the_probe_asks_the_hardware():
    embedding.check(Tpu(FEATURES.V2))
    for found in (FEATURES.V1, FEATURES.UNSUPPORTED):
        with pytest.raises(ValueError, match=re.escape(
                "only on a TPU that has one (v5p, v6e), under "
                "tf.distribute.TPUStrategy. Received: a TPU with "
                f"embedding_feature={found.value}")):
            embedding.check(Tpu(found))
    with pytest.raises(ValueError, match="Received: MirroredStrategy$"):
        embedding.check(train.strategy.make("mirrored"))


def test_without_a_tpu_none_is_started():
    with pytest.raises(ValueError, match="TPUStrategy. Received: no TPU, [^.]*$"):
        embedding.connect()


def test_a_cpu_looks_up_the_same_rows_by_the_same_description(table):
    described = embedding.feature(table, BATCH, LENGTH, cores=8)
    found = embedding.on_cpu(IDS, tf.Variable(table), described)
    np.testing.assert_array_equal(found, table[IDS])
    # TensorFlow's class for servers makes the table by the initializer.
    serving = tf.tpu.experimental.embedding.TPUEmbeddingForServing(described, None)
    np.testing.assert_array_equal(serving.embedding_lookup(tf.constant(IDS)),
                                  table[IDS])


def test_each_core_has_its_rows(table, tpu, monkeypatch):
    """By TensorFlow's own class and layout; only variables on a TPU are left out."""
    kind = embedding._API.TPUEmbeddingV2
    monkeypatch.setattr(kind, "build", lambda self: None)
    core = embedding.Lookup(table, tpu, BATCH, LENGTH).core
    layout = core.embedding_layouts[embedding.NAME]
    assert (layout.num_sparse_cores, layout.num_partitions) == (8, 2)
    assert list(layout.unsharded_shape) == [ROWS, WIDTH]
    rows, width = layout.unsharded_padded_shape
    assert rows >= ROWS and width >= WIDTH and rows % 8 == 0
    tables = core._stacked_table_to_tables[embedding.NAME]
    shards = [core._initialize_stacked_table_for_device(tables, chip, 2)["parameters"]
              for chip in range(2)]
    assert [tuple(shard.shape) for shard in shards] == [(rows // 2, width)] * 2
    own = np.concatenate(shards).reshape(8, -1, width)  # of each core
    for row in range(ROWS):
        np.testing.assert_array_equal(own[row % 8, row // 8, :WIDTH], table[row])
    assert np.count_nonzero(own) == table.size  # the rest is padding
    # A core may be asked for one row by all tokens that another has.
    assert core._table_to_max_ids_per_sparse_core == {embedding.NAME: 6}


@pytest.mark.parametrize(("optimizer", "kind"), [
    (None, "SGD"), (keras.optimizers.SGD(0.1), "SGD"),
    (keras.optimizers.Adagrad(0.1), "Adagrad"), (keras.optimizers.Adam(0.1), "Adam"),
    (train.AdamW(0.1, weight_decay=0.5), "Adam")])
def test_optimizers_are_those_of_the_core(optimizer, kind):
    found = embedding.optimizer_of(optimizer)
    assert type(found).__name__ == kind
    assert found.weight_decay_factor is None  # which TPUEmbeddingV2 refuses
    if optimizer is None:
        assert found.learning_rate == 0.0
    elif kind == "Adam":
        assert (found.beta_1, found.beta_2) == (0.9, 0.999)
        assert found.epsilon == optimizer.epsilon and not found.sum_inside_sqrt
    else:
        assert float(found.learning_rate()) == pytest.approx(0.1)


def test_adams_rate_corrects_the_moments_and_follows_a_schedule():
    schedule = keras.optimizers.schedules.PolynomialDecay(0.4, 10, 0.0)
    optimizer = keras.optimizers.Adam(schedule, beta_1=0.8, beta_2=0.9)
    rate = embedding.optimizer_of(optimizer).learning_rate
    variable, row = tf.Variable([1.0]), np.array([1.0])
    first, second = 0.0, 0.0
    for gradient in (0.5, -2.0, 1.0):
        first = 0.8 * first + 0.2 * gradient
        second = 0.9 * second + 0.1 * gradient ** 2
        row = row - rate() * first / (np.sqrt(second) + optimizer.epsilon)
        optimizer.apply_gradients([(tf.constant([gradient]), variable)])
        np.testing.assert_allclose(variable, row, rtol=1e-5)
    assert abs(row - 1.0) > 0.1


@pytest.mark.parametrize("optimizer", [
    keras.optimizers.SGD(0.1, momentum=0.9), keras.optimizers.Adam(amsgrad=True),
    keras.optimizers.RMSprop()])
def test_optimizers_that_the_core_has_not_are_refused(optimizer):
    with pytest.raises(ValueError, match="SGD without momentum, Adagrad or Adam. "
                       f"Received: {type(optimizer).__name__}"):
        embedding.optimizer_of(optimizer)


def test_a_gradient_goes_to_the_core(table, tpu, monkeypatch):
    class Core:
        """A stand-in for TPUEmbeddingV2: looks up, and keeps what it is given."""

        def __init__(self, described, **_):
            self.described, self.given = described, []

        def build(self):
            pass

        def __call__(self, ids):
            return tf.gather(table, ids), {"kept": ids}

        def apply_gradients(self, gradients, preserved_outputs):
            self.given.append((gradients, preserved_outputs["kept"]))

    monkeypatch.setattr(embedding._API, "TPUEmbeddingV2", Core)
    lookup = embedding.Lookup(table, tpu, BATCH, LENGTH)
    weights = tf.Variable(np.linspace(-1, 1, WIDTH).astype(np.float32))
    with tf.GradientTape() as tape:
        rows = lookup(tf.constant(IDS))
        loss = tf.reduce_sum(tf.sin(rows * weights))
    np.testing.assert_array_equal(rows, table[IDS])
    zero, dw = tape.gradient(loss, [lookup.trap, weights])
    (given, kept), = lookup.core.given
    assert float(zero) == 0.0
    assert np.abs(dw).max() > 0.1
    np.testing.assert_allclose(given, np.cos(table[IDS] * weights) * weights, rtol=1e-5)
    np.testing.assert_array_equal(kept, IDS)


@pytest.mark.parametrize("strategy", ["one_device", "mirrored"])
def test_a_model_is_served_with_the_lookup_outside_of_it(strategy, tiny_dir):
    strategy = train.strategy.make(strategy)
    with strategy.scope():
        whole = model.load(tiny_dir)
    layer = whole.get_layer(layer_names.TOKEN_EMBEDDING)
    described = embedding.feature(layer.embeddings.numpy(), 2, LENGTH, cores=4)
    seen = []

    def lookup(ids):
        seen.append(tuple(ids.shape))
        return embedding.on_cpu(ids, layer.embeddings, described)

    run = embedding.served(whole, layer.name, strategy, 2, LENGTH, lookup)
    ids = np.concatenate([IDS, IDS[:1] + 1])  # 5: the last batches are filled up
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids),
              "token_type_ids": ids % 2}
    inputs["attention_mask"][2, 3:] = 0
    found = run(inputs)
    assert found.shape == (5, 3)
    np.testing.assert_allclose(found, whole(inputs), rtol=1e-5, atol=1e-6)
    assert set(seen) == {(2, LENGTH)}


@pytest.mark.parametrize(("change", "message"), [
    ({"length": 7, "batch_size": 2}, "4 SparseCores. Received: batch_size=2, length=7"),
    ({"batch_size": 0}, "4 SparseCores. Received: batch_size=0, length=6"),
    ({"table": np.ones([3])}, r"of two axes. Received: shape=\(3,\)"),
    ({"table": np.full([3, 4], np.nan)}, r"must be finite.*Received: shape=\(3, 4\)")])
def test_bad_arguments_are_refused(table, tpu, change, message):
    with pytest.raises(ValueError, match=message):
        embedding.Lookup(**{"table": table, "strategy": tpu, "batch_size": BATCH,
                            "length": LENGTH} | change)
