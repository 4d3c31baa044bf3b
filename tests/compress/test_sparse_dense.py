"""Sparse layers in the place of pruned ones: where they pay, saved, and exported."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tfopt import compress, model
from tfopt.backend import keras
from tfopt.compress import Context, Recipe
from tfopt.compress.passes import sparse_dense
from tfopt.export import densify, saved_model, tflite
from tfopt.export.interpreter import Interpreter
from tfopt.sparse import Choice
from tfopt.sparse import SparseDense as Layer

CONFIG = model.EncoderConfig.uniform(
    hidden_size=32, num_layers=1, num_heads=2, intermediate_size=64, vocab_size=103,
    max_positions=64, initializer_range=0.3)
HEAD = model.Head(outputs=3)
INPUTS = {"input_ids": np.array([[2, 10, 11, 12, 3]]),
          "attention_mask": np.ones([1, 5], np.int32),
          "token_type_ids": np.zeros([1, 5], np.int32)}


@pytest.fixture
def pruned():
    """A BERT of whose ffn's 8 blocks 16x16 only 2 are not zeros."""
    whole = model.build(CONFIG, HEAD, seed=3)
    for role in ("intermediate", "ffn_output"):
        kernel = whole.get_layer(f"layer_0_{role}").kernel
        rows, columns = (size // 16 for size in kernel.shape)
        kept = np.zeros([rows, columns])
        kept[0, 0] = kept[-1, -1] = 1
        kernel.assign(kernel * np.kron(kept, np.ones([16, 16])))
    return whole


def run(given, **fields):
    step = compress.from_fields({"pass": "sparse_dense", **fields})
    outcome, = compress.run(given, Recipe(passes=(step,)), Context())
    return outcome


@pytest.mark.parametrize(("fields", "values"), [
    ({"backend": "csr"}, 32 * 64 // 4), ({"backend": "block"}, (2, 16, 16)),
    ({"backend": "block_unrolled", "block": 16}, (2, 16, 16))])
def test_values_alone_are_kept_and_the_logits_stay(pruned, fields, values):
    outcome = run(pruned, only=["intermediate"], **fields)
    layer = outcome.model.get_layer("layer_0_intermediate")
    assert isinstance(layer, Layer)
    assert outcome.touched == ("layer_0_intermediate",)
    assert tuple(layer.values.shape) == (
        values if isinstance(values, tuple) else (values,))
    np.testing.assert_array_equal(
        layer.dense_kernel(), pruned.get_layer("layer_0_intermediate").kernel)
    np.testing.assert_allclose(outcome.model(INPUTS), pruned(INPUTS), rtol=1e-5,
                               atol=1e-6)
    assert model.config_of(outcome.model) == CONFIG


def test_layers_are_replaced_where_a_trial_says_so(pruned, monkeypatch):
    asked = []

    def choose(kernel, **fields):
        asked.append(fields)
        if kernel.shape == (32, 64):
            return Choice(backend="block", block=16, speedup=1.5,
                          tried={"csr": 0.7, "block 16": 1.6})
        if not (kernel == 0).any():
            return Choice(backend="dense")
        return Choice(backend="dense", tried={"csr": 0.8})

    monkeypatch.setattr(sparse_dense, "choose", choose)
    outcome = run(pruned, rows=[8, 64])
    assert outcome.touched == ("layer_0_intermediate",)
    assert outcome.notes == ("layer_0_intermediate: block 16x16, 1.50x of dense",)
    assert outcome.skipped["layer_0_ffn_output"] == (
        "75% zeros, not faster than dense: csr 0.80x")
    assert outcome.skipped["layer_0_query"] == "0% zeros, too few for any sparse form"
    assert outcome.facts["layer_0_intermediate"] == {
        "backend": "block", "block": 16, "speedup": 1.5,
        "tried": {"csr": 0.7, "block 16": 1.6}, "milliseconds": {}}
    assert len(asked) == 6  # the projections of the layer
    assert asked[0] == {"block": None, "rows": (8, 64), "dtype": "float32"}


def test_both_times_are_told(pruned, monkeypatch):
    taken = {"dense": 0.3, "csr": 0.4, "block 16": 0.2}

    def choose(kernel, **_):
        chosen = ({"backend": "block", "block": 16, "speedup": 1.5}
                  if kernel.shape == (32, 64) else {"backend": "dense"})
        return Choice(tried={"csr": 0.75, "block 16": 1.5}, milliseconds=taken,
                      **chosen)

    monkeypatch.setattr(sparse_dense, "choose", choose)
    outcome = run(pruned)
    assert outcome.notes == (
        "layer_0_intermediate: block 16x16 (0.2 ms), 1.50x of dense (0.3 ms)",)
    assert outcome.skipped["layer_0_ffn_output"] == (
        "75% zeros, not faster than dense (0.3 ms): csr 0.75x (0.4 ms), "
        "block 16 1.50x (0.2 ms)")
    assert outcome.facts["layer_0_intermediate"]["milliseconds"] == taken


def test_where_nothing_pays_all_stay_dense(pruned, monkeypatch):
    monkeypatch.setattr(sparse_dense, "choose",
                        lambda *_, **__: Choice(backend="dense", tried={"csr": 0.5}))
    outcome = run(pruned)
    assert outcome.touched == ()
    assert outcome.notes == (
        "No layer is faster sparse on this machine: all stay dense",)
    for ours, theirs in zip(outcome.model.get_weights(), pruned.get_weights(),
                            strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("fields", [
    {"backend": "fast"}, {"block": 7}, {"rows": []}, {"rows": [0]}])
def test_wrong_fields_are_refused(fields):
    with pytest.raises(ValueError, match=f"Received: {next(iter(fields))}="):
        compress.from_fields({"pass": "sparse_dense", **fields})


def test_a_saved_model_loads_where_nobody_named_the_layer(pruned, tmp_path):
    outcome = run(pruned, backend="csr")
    model.save(outcome.model, tmp_path)
    np.save(tmp_path / "logits.npy", outcome.model(INPUTS))
    code = ("import sys, numpy as np; from tfopt import model; "
            f"place = {str(tmp_path)!r}; found = model.load(place); "
            f"ids = np.array({INPUTS['input_ids'].tolist()}); "
            "logits = found({'input_ids': ids, 'attention_mask': ids * 0 + 1, "
            "'token_type_ids': ids * 0}); "
            "np.testing.assert_allclose(logits, np.load(place + '/logits.npy'), "
            "atol=1e-6)")
    done = subprocess.run([sys.executable, "-c", code], check=False,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_tflite_has_the_zeros_again(pruned, tmp_path):
    sparse = run(pruned, backend="csr", only=["intermediate"]).model
    dense = densify.densified(sparse)
    assert isinstance(dense.get_layer("layer_0_intermediate"), keras.layers.Dense)
    assert dense.get_layer("layer_0_query") is sparse.get_layer("layer_0_query")
    assert densify.densified(pruned) is pruned
    (tmp_path / "model.tflite").write_bytes(tflite.convert(sparse, "float32"))
    found = Interpreter(tmp_path / "model.tflite", num_threads=1)
    np.testing.assert_allclose(found.run(INPUTS["input_ids"][0]), pruned(INPUTS)[0],
                               atol=1e-4)


def test_a_note_says_that_a_tflite_is_dense_again(pruned):
    assert densify.note(pruned) is None
    one = run(pruned, backend="csr", only=["intermediate"]).model
    assert densify.note(one).startswith(
        "TFLite has no product that leaves zeros out: in a .tflite the sparse layers "
        "(1: layer_0_intermediate) are dense again, zeros and all")
    assert "(6: layer_0_" in densify.note(run(pruned, backend="csr").model)
    assert ", ...)" in densify.note(run(pruned, backend="csr").model)


# Run where nothing of tfopt is found.
PLAIN = """
import sys
import numpy as np
import tensorflow as tf
with np.load(sys.argv[1]) as given:
    inputs = {name: tf.constant(given[name]) for name in given if name != "logits"}
    for path in sys.argv[2:]:
        loaded = tf.saved_model.load(path)
        served = loaded.signatures["serving_default"]
        specs = served.structured_input_signature[1]
        assert {spec.name: (spec.shape.as_list(), spec.dtype) for spec in specs.values()
                } == dict.fromkeys(inputs, ([None, None], tf.int32)), specs
        whole = served(**inputs)["logits"]
        np.testing.assert_allclose(whole, given["logits"], rtol=1e-4, atol=1e-5)
        graph = tf.function(lambda x: served(**x)["logits"] * 2)
        one = graph({name: value[:1, :4] for name, value in inputs.items()})
        assert one.shape == (1, 3) and np.isfinite(one).all()
assert not [name for name in sys.modules if name.split(".")[0] == "tfopt"]
"""


def test_a_saved_model_runs_in_plain_tensorflow(pruned, tmp_path):
    ids = np.array([[2, 10, 11, 12, 3], [2, 7, 3, 0, 0]], np.int32)
    inputs = {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int32),
              "token_type_ids": np.zeros_like(ids)}
    np.savez(tmp_path / "given.npz", logits=pruned(inputs), **inputs)
    for backend in ("csr", "block", "block_unrolled", "block_strips"):
        chosen = {} if backend == "csr" else {"only": ["intermediate", "ffn_output"]}
        saved_model.write(run(pruned, backend=backend, **chosen).model,
                          tmp_path / "made" / backend)
    places = sorted((tmp_path / "made").iterdir())
    assert [place.name for place in places] == [
        "block", "block_strips", "block_unrolled", "csr"]
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(tmp_path / "given.npz"), *map(str, places)],
        cwd=tmp_path, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_saved_model_replaces_an_older_one_or_leaves_it(pruned, tmp_path,
                                                          monkeypatch):
    place = tmp_path / "exports" / "saved_model"
    saved_model.write(pruned, place)
    (place / "old").touch()
    two = keras.Model(pruned.input, [pruned.output, pruned.output])
    with pytest.raises(ValueError, match="must have one output; .*Received"):
        saved_model.write(two, place)
    with monkeypatch.context() as broken:
        broken.setattr(saved_model.tf.saved_model, "save", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            saved_model.write(pruned, place)
    assert (place / "old").exists()
    saved_model.write(pruned, place)
    assert not (place / "old").exists() and (place / "saved_model.pb").exists()
    assert [path.name for path in place.parent.iterdir()] == ["saved_model"]


@pytest.mark.parametrize(("fields", "bytes_each"), [
    ({"backend": "csr"}, 4 + 8), ({"backend": "block", "block": 16}, 4 + 8 / 256)])
def test_files_hold_values_and_indices_alone(tmp_path, fields, bytes_each):
    """A tenth of the blocks of a BERT of 1.6 MB of kernels, by each way to save it."""
    whole = model.build(model.EncoderConfig.uniform(
        hidden_size=128, num_layers=2, num_heads=2, intermediate_size=512,
        vocab_size=103, max_positions=64), HEAD, seed=3)
    random = np.random.default_rng(0)
    size = left = 0
    for layer in whole.layers:
        if isinstance(layer, keras.layers.Dense) and layer.name.startswith("layer_"):
            rows, columns = (length // 16 for length in layer.kernel.shape)
            kept = random.random([rows, columns]) < 0.1
            layer.kernel.assign(layer.kernel * np.kron(kept, np.ones([16, 16])))
            size, left = size + 256 * kept.size, left + 256 * kept.sum()
    sparse = run(whole, **fields).model
    assert len(densify.sparse_layers(sparse)) == 12
    taken = []
    for name, made in (("dense", whole), ("sparse", sparse)):
        saved_model.write(made, tmp_path / name / "saved_model")
        model.save(made, tmp_path / name)
        variables = tmp_path / name / "saved_model" / "variables"
        taken.append([(variables / "variables.data-00000-of-00001").stat().st_size,
                      (tmp_path / name / model.KERAS_FILE).stat().st_size])
    saved = 4 * size - bytes_each * left
    assert saved > 0.6 * taken[0][0]
    # HDF5 has names and places of the arrays, too.
    for before, after, overhead in zip(*taken, (2_000, 60_000), strict=True):
        assert before - after == pytest.approx(saved, abs=overhead)
    graph = tmp_path / "sparse" / "saved_model" / "saved_model.pb"
    assert graph.stat().st_size < 1e6  # no kernel in it: operations and patterns
