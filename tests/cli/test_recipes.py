"""The recipes that come along go the whole road."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scripts
from scripts import figures, run

from tfopt import compress, model
from tfopt.backend import tf
from tfopt.pipeline import recipes


@pytest.mark.parametrize(("name", "layers"), [
    pytest.param("structured_distilled", 2, marks=pytest.mark.slow),
    ("structured_distilled_quantized", 2), ("student_distilled", 4), ("vocabulary", 1)])
def test_recipes_run_by_name(name, layers, baseline_of, files, tmp_path):
    done = run("compress", *files.flags, *baseline_of(layers), f"--recipe={name}",
               "--smoke", f"--out_dir={tmp_path / 'out'}", timed=False)
    out = tmp_path / "out"
    recipe = compress.Recipe.load(out / "recipe.json")
    assert (recipe.distillation is not None) == ("distilled" in name)
    taken = figures(out / "report.json")
    assert taken[recipe.exports[-1], "alpha", ""] < 1
    small = model.config_of(model.load(out / "keras"))
    structure = out / "keras" / "structure.json"
    assert structure.exists() == ("structured" in name)
    if structure.exists():
        details = json.loads(structure.read_text())
        assert details["num_heads"] == [4] * layers
        left = [sizes for sizes in zip(map(len, details["heads_kept"]),
                                       details["neurons_kept"], strict=True)
                if any(sizes)]  # a layer of which nothing is left is no more
        assert left == list(zip(small.num_heads, small.intermediate_sizes, strict=True))
        assert details["predicted"] <= details["predicted_before"] / 2
        assert (out / "structure.png").read_bytes().startswith(b"\x89PNG")
        assert "structure.png: " in done.stdout
    else:
        assert not (out / "structure.png").exists()
        assert "structure.png" not in done.stdout
        assert small.num_layers == (3 if "student" in name else layers)


@pytest.mark.parametrize(("name", "sparsity", "backend"), [
    pytest.param("sparse_90", 0.9, "csr", marks=pytest.mark.slow),
    ("sparse_blocks_80", 0.8, "auto")])
def test_a_sparse_recipe_is_served_by_tensorflow(name, sparsity, backend, wide, files,
                                                 tmp_path, monkeypatch):
    """As it is, whatever the trial finds; and with a form in place of the trial."""
    monkeypatch.setenv("HOME", str(tmp_path))  # what a trial remembers
    recipe = tmp_path / f"{name}.json"
    fields = json.loads((recipes.DIRECTORY / f"{name}.json").read_text())
    assert fields["passes"][1] == {"pass": "sparse_dense"}
    if backend != "auto":
        fields["passes"][1] |= {"backend": backend, "only": ["intermediate"]}
        recipe.write_text(json.dumps(fields))
    out = tmp_path / "out"
    done = run("compress", *files.flags, *wide, "--smoke", f"--out_dir={out}",
               f"--recipe={name if backend == 'auto' else recipe}")
    taken, said = figures(out / "report.json"), (out / "report.md").read_text()
    artifacts = ["keras_float32", "keras_sparse_dense", "float32", "sparse_float32",
                 "dynamic_wi8_afp32"]
    assert list(dict.fromkeys(artifact for artifact, _, _ in taken)) == artifacts
    for artifact in artifacts:
        assert {metric for of, metric, _ in taken if of == artifact} == scripts.METRICS
    compressed = model.load(out / "keras")
    layer = compressed.get_layer("layer_0_intermediate")
    kernel = (layer.dense_kernel() if hasattr(layer, "dense_kernel")
              else layer.kernel.numpy())
    assert hasattr(layer, "values") or backend == "auto"
    assert np.mean(kernel == 0) == pytest.approx(sparsity, abs=1e-3)
    assert json.loads((out / "keras" / "sparse_dense.json").read_text())
    assert not (out / "keras" / "structure.json").exists()

    def of(metric, artifact="keras_sparse_dense"):
        return taken[artifact, metric, ""]

    # The zeros are parameters that take no bytes; places of single values take some.
    assert of("alpha") == 1.0
    assert of("nonzeros") < 0.6 * of("parameters")
    assert of("nonzeros") == pytest.approx(of("nonzeros", "sparse_float32"), abs=200)
    if backend == "csr":
        saved = 4 * 20480 - (4 + 8) * 2048
        assert of("bits", "keras_float32") - of("bits") == 8 * saved
        assert of("file_bytes", "keras_float32") - of("file_bytes") == pytest.approx(
            saved, abs=8_000)
        assert ("in a .tflite the sparse layers (1: layer_0_intermediate) are dense "
                "again") in said
    assert "keras_sparse_dense: the Keras model after the pass sparse_dense" in said
    assert f"{out}/exports/saved_model: the compressed model" in done.stdout

    served = tf.saved_model.load(out / "exports" / "saved_model")
    ids = np.array([[2, 10, 11, 3], [2, 12, 3, 0]], np.int32)
    inputs = {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int32),
              "token_type_ids": np.zeros_like(ids)}
    logits = served.signatures["serving_default"](
        **{key: tf.constant(value) for key, value in inputs.items()})["logits"]
    np.testing.assert_allclose(logits, compressed(inputs), rtol=1e-4, atol=1e-5)
