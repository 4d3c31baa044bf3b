"""The sparse layer: from a Dense, trained, saved in each way, on two devices."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sparse.conftest import FORMS

from tfopt import train
from tfopt.backend import keras, tf
from tfopt.sparse import SparseDense, storage

# Keras' advice against the format that is tested, too.
HDF5 = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
SPARSE = [form for form in FORMS if form[0] != "dense"]


@pytest.fixture
def dense(kernel):
    """A pruned Dense 64 -> 96."""
    layer = keras.layers.Dense(96, activation="tanh", name="pruned")
    layer.build([None, 64])
    layer.set_weights([kernel / 4, np.linspace(-1, 1, 96)])
    return layer


@pytest.fixture
def model_of():
    """What puts a layer into a model of unknown batch and tokens."""
    def make(layer):
        x = keras.Input([None, 64], name="x")
        return keras.Model(x, keras.layers.Dense(2, name="head")(layer(x)))

    return make


@pytest.mark.parametrize(("backend", "block"), FORMS)
def test_from_dense_computes_the_same(dense, x, backend, block):
    layer = SparseDense.from_dense(dense, backend, block)
    np.testing.assert_allclose(layer(x), dense(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tf.function(layer)(x[0]), dense(x[0]), rtol=1e-5,
                               atol=1e-6)
    np.testing.assert_array_equal(layer.dense_kernel(), dense.kernel)
    assert layer.name == "pruned" and layer.activation is dense.activation
    trainable = [weight.name for weight in layer.trainable_weights]
    assert trainable == ["pruned/values:0", "pruned/bias:0"]
    kernel = dense.kernel.numpy()
    nonzeros = np.count_nonzero(kernel)
    held = {"dense": kernel.size, "coo": nonzeros, "csr": nonzeros}.get(
        backend, 9 * 16 * 16)
    assert np.prod(layer.values.shape) == held


def test_what_a_dense_has_is_taken_over(kernel, x):
    layer = keras.layers.Dense(
        96, "relu", use_bias=False, kernel_regularizer=keras.regularizers.L2(0.5),
        dtype="mixed_bfloat16", trainable=False, name="d")
    layer.build([None, 64])
    layer.kernel.assign(kernel)
    found = SparseDense.from_dense(layer, "block_unrolled", 16)
    assert found(x).dtype == "bfloat16" and found.values.dtype == tf.float32
    assert found.bias is None and not found.trainable_weights
    # A zero costs nothing: the penalty is that of the whole kernel.
    np.testing.assert_allclose(found.losses, layer.losses, rtol=1e-5)
    assert found.losses[0] > 100
    np.testing.assert_allclose(tf.cast(found(x), tf.float32), np.maximum(x @ kernel, 0),
                               atol=0.4)


@HDF5
@pytest.mark.parametrize(("backend", "block"), FORMS)
@pytest.mark.parametrize("file_name", ["m.keras", "m.weights.h5", "m.h5", "saved"])
def test_saves_and_loads(dense, x, model_of, tmp_path, backend, block, file_name):
    keras_model = model_of(SparseDense.from_dense(dense, backend, block))
    path = tmp_path / file_name
    if "weights" in file_name:
        keras_model.save_weights(path)
        loaded = keras.Model.from_config(keras_model.get_config())
        if backend == "csr":
            assert loaded.get_layer("pruned")(x).shape == (3, 5, 96)  # any pattern
        loaded.load_weights(path)
    else:
        keras_model.save(path)
        loaded = keras.models.load_model(path)
    layer = loaded.get_layer("pruned")
    assert type(layer) is SparseDense and layer.backend == backend
    np.testing.assert_array_equal(layer.dense_kernel(), dense.kernel)
    np.testing.assert_allclose(loaded(x), keras_model(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loaded.predict(x, verbose=0), keras_model(x), rtol=1e-5,
                               atol=1e-6)


@HDF5
@pytest.mark.parametrize(("backend", "block"), SPARSE)
def test_files_hold_no_dense_copy(dense, tmp_path, backend, block):
    random = np.random.default_rng(0)
    large = keras.layers.Dense(1024)
    large.build([None, 1024])
    kept = random.random([64, 64]) < 0.05
    large.set_weights([random.standard_normal([1024, 1024])
                       * kept.repeat(16, 0).repeat(16, 1), np.zeros(1024)])
    keras_model = keras.Sequential([SparseDense.from_dense(large, backend, block)])
    keras_model(np.ones([2, 1024], np.float32))
    nonzeros = 256 * kept.sum()
    for name in ("m.keras", "m.h5", "saved"):
        keras_model.save(tmp_path / name)
        files = [tmp_path / name] if "." in name else (tmp_path / name).rglob("*")
        size = sum(file.stat().st_size for file in files)
        # Values, places of single ones, a graph; of 4 MB that a dense copy takes.
        assert size < (4 if block else 12) * nonzeros + 4e5 < 1.1e6


_PLAIN = """
import sys
import numpy as np
import tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
with np.load(sys.argv[2]) as given:
    y = loaded.signatures["serving_default"](x=tf.constant(given["x"]))
    again = loaded(tf.constant(given["x"][:1, :2]))
    np.testing.assert_allclose(list(y.values())[0], given["y"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(again, given["y"][:1, :2], rtol=1e-4, atol=1e-5)
assert not [name for name in sys.modules if name.split(".")[0] == "tfopt"]
"""


def test_a_saved_model_runs_in_plain_tensorflow(dense, x, model_of, tmp_path):
    for backend, block in FORMS:
        keras_model = model_of(SparseDense.from_dense(dense, backend, block))
        keras_model.save(tmp_path / backend)
        np.savez(tmp_path / f"{backend}.npz", x=x, y=keras_model(x))
    script = ("import sys\n" + "".join(
        f"sys.argv[1:] = [{str(tmp_path / backend)!r}, "
        f"{str(tmp_path / backend) + '.npz'!r}]\n{_PLAIN}" for backend, _ in FORMS))
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(("backend", "block"), FORMS)
def test_training_changes_values_alone(dense, x, model_of, backend, block):
    layer = SparseDense.from_dense(dense, backend, block)
    keras_model = model_of(layer)
    keras_model.compile(keras.optimizers.Adam(0.01), "mse")
    before = layer.dense_kernel()
    y = np.random.default_rng(3).standard_normal([3, 5, 2]).astype(np.float32)
    losses = keras_model.fit(x, y, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    after = layer.dense_kernel()
    changed = after != before
    if layer.block:  # the zero within a block is a value, too
        kept = storage.kept_blocks(before, 16)
        assert changed[16, 3]
        assert not after[~kept.repeat(16, 0).repeat(16, 1)].any()
    else:
        assert not after[before == 0].any()
    assert changed.sum() > 0.9 * np.count_nonzero(before)


@pytest.mark.parametrize(("backend", "block"), FORMS)
def test_trains_on_two_devices(kernel, x, model_of, backend, block):
    dense = keras.layers.Dense(96, activation="tanh", name="pruned")
    dense.build([None, 64])
    dense.kernel.assign(kernel / 4)
    rows = np.concatenate([x, x])[:4]
    y = np.random.default_rng(3).standard_normal([4, 5, 2]).astype(np.float32)
    kernels = []
    for strategy in (tf.distribute.get_strategy(),
                     train.strategy.make("mirrored")):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            layer = SparseDense.from_dense(dense, backend, block)
            keras_model = model_of(layer)
            keras_model.compile(keras.optimizers.SGD(0.1), "mse")
        keras_model.fit(x=rows, y=y, batch_size=4, epochs=3, verbose=0, shuffle=False)
        kernels.append(layer.dense_kernel())
    np.testing.assert_allclose(*kernels, rtol=1e-4, atol=1e-6)
    assert np.abs(kernels[1] - kernel / 4).max() > 1e-3
    assert not kernels[1][:, 32:48].any()  # a column without blocks


def test_a_frozen_layer_makes_its_matrix_once(dense, x, model_of, tmp_path):
    layer = SparseDense.from_dense(dense, "csr")
    y = layer(x).numpy()
    layer.freeze()
    graph = tf.function(layer).get_concrete_function(x).graph.as_graph_def()
    assert "SparseTensorToCSRSparseMatrix" not in {node.op for node in graph.node}
    layer.values.assign(layer.values * 0)
    np.testing.assert_allclose(layer(x), y, rtol=1e-6)
    frozen = SparseDense.from_dense(dense, "csr", frozen=True)
    frozen.values.assign(frozen.values * 0)
    np.testing.assert_allclose(frozen(x), y, rtol=1e-6)
    rest = np.tanh(layer.bias)
    np.testing.assert_allclose(layer(x, training=True)[0, 0], rest, rtol=1e-6)
    keras_model = model_of(layer)
    with pytest.raises(ValueError, match="must not be frozen.*Received: layer 'pruned'"
                       ):
        keras_model.save(tmp_path / "saved")
    keras_model.save(tmp_path / "m.keras")
    layer.freeze()  # anew, with these values
    np.testing.assert_allclose(layer(x)[0, 0], rest, rtol=1e-6)
    layer.unfreeze()
    layer.values.assign(layer.values + 1)
    assert np.abs(layer(x) - rest).max() > 0.1
    keras_model.save(tmp_path / "saved")


def test_a_fresh_layer_draws_as_a_dense_does(kernel):
    initializer = keras.initializers.GlorotUniform(seed=3)
    whole = initializer([64, 96]).numpy()
    for backend, block in FORMS:
        pattern = storage.kept_blocks(kernel, 16) if block else kernel != 0
        layer = SparseDense(96, pattern, backend, block, activation="relu",
                            kernel_initializer=keras.initializers.GlorotUniform(seed=3))
        assert layer(np.ones([2, 64], np.float32)).shape == (2, 96)
        mask = kernel != 0
        mask[16, 3] |= bool(block)
        np.testing.assert_array_equal(layer.dense_kernel(), whole * mask)
        again = SparseDense.from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
        again.build([None, 64])
        again.set_weights(layer.get_weights())
        np.testing.assert_array_equal(again.dense_kernel(), whole * mask)


def test_weights_of_other_blocks_are_refused(dense, x):
    layer = SparseDense.from_dense(dense, "block", 16)
    values, bias, indices = layer.get_weights()
    layer.set_weights([values, bias, indices[:, ::-1]])
    with pytest.raises(ValueError, match="of the blocks that the layer is made for. "
                       "Received: others, in layer 'pruned'"):
        layer(x)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"units": 0, "nonzeros": 1}, "at least 1. Received: units=0"),
    ({"backend": "ell", "nonzeros": 1}, "Received: backend='ell'"),
    ({"backend": "block", "nonzeros": 1}, "Received: block=None"),
    ({"backend": "block", "block": 16, "nonzeros": 1}, "Received: pattern=None"),
    ({"backend": "csr"}, "Received: pattern=None, backend='csr', nonzeros=None"),
    ({"backend": "csr", "nonzeros": 0}, "Received: nonzeros=0"),
    ({"pattern": np.zeros([64, 96])}, "Received: nonzeros=0"),
    ({"pattern": np.ones([64, 96]), "dtype": "mixed_float16"},
     r"'csr' computes in .*Received: dtype='float16'"),
    ({"pattern": np.ones([64, 96]), "dtype": "mixed_bfloat16"},
     r"'csr' computes in .*Received: dtype='bfloat16'"),
    ({"pattern": np.ones([4, 6]), "backend": "block", "block": 32},
     r"Received: shape=\(4, 6\)"),
    ({"pattern": np.ones([96, 64])}, r"Received: shape=\(96, 64\)")])
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SparseDense(**{"units": 96} | arguments).build([None, 64])


@pytest.mark.parametrize(("change", "arguments", "message"), [
    (lambda w: w * 0, {}, "Received: zeros only"),
    (lambda w: w * 0, {"backend": "csr"}, "Received: zeros only"),
    (lambda w: np.where(w > 0.5, np.nan, w), {}, "Received: .* NaN or infinite"),
    (lambda w: np.where(w > 0.5, -np.inf, w), {"backend": "csr"}, "NaN or infinite"),
    (lambda w: w, {"backend": "block", "block": 64}, "divide the kernel. Received: "),
    (lambda w: w, {"block": 64}, "divide the kernel. Received: block=64"),
    (lambda w: w, {"block": 24}, "Received: block=24"),
    (lambda w: w + 1, {"backend": "block", "block": 48}, "Received: block=48"),
    (lambda w: w, {"backend": "ELL"}, "Received: backend='ELL'"),
    (lambda w: w, {"rows": 0}, r"Received: rows=\[0\]")])
def test_denses_that_cannot_be_sparse_are_refused(dense, change, arguments, message):
    dense.kernel.assign(change(dense.kernel.numpy()))
    with pytest.raises(ValueError, match=message):
        SparseDense.from_dense(dense, **arguments)


def test_what_is_no_built_dense_is_refused():
    for layer in (keras.layers.Dense(3, name="a"), keras.layers.Flatten(name="a")):
        with pytest.raises(ValueError, match="Dense that is built. Received: .* 'a'"):
            SparseDense.from_dense(layer)


@pytest.mark.parametrize(("shape", "message"), [
    ([64], "min_ndim=2|two axes"), ([2, 65], "64"), ([2, 3, 1], "64")])
def test_inputs_that_do_not_fit_are_refused(dense, shape, message):
    for backend, block in FORMS:
        layer = SparseDense.from_dense(dense, backend, block)
        with pytest.raises(ValueError, match=message):
            layer(np.ones(shape, np.float32))


@pytest.mark.parametrize(("backend", "block"), FORMS)
def test_softmax_is_over_all_units(kernel, x, backend, block):
    dense = keras.layers.Dense(96, activation="softmax")
    dense.build([None, 64])
    dense.kernel.assign(kernel)
    found = SparseDense.from_dense(dense, backend, block)(x, training=False)
    np.testing.assert_allclose(found, dense(x), rtol=1e-4, atol=1e-6)
