"""The head of masked language modelling, held against transformers'."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tfopt.model import masked_lm
from tfopt.model.families import registry

GOLDENS = Path(__file__).parents[1] / "goldens"
FAMILIES = ("bert", "distilbert", "mpnet", "roberta")


def add_head(source, directory, *, without=(), tied=True):
    """Copies a tiny checkpoint, with the head that its golden logits are of."""
    shutil.copytree(source, directory)
    family = registry.all_families()[source.name.removeprefix("tiny_")]
    dense, norm, output = family.masked_lm
    tensors = load_file(directory / "model.safetensors")
    table = next(tensors[name] for name in tensors if "word_embeddings" in name)
    random = np.random.default_rng(7)
    for name, shape in {f"{dense}.weight": [32, 32], f"{dense}.bias": [32],
                        f"{norm}.weight": [32], f"{norm}.bias": [32],
                        f"{output}.bias": [len(table)]}.items():
        tensors[name] = random.normal(float(name == f"{norm}.weight"), 0.3,
                                      shape).astype(np.float32)
    if not tied:
        tensors[f"{output}.decoder.weight"] = 2 * table
    save_file({name: value for name, value in tensors.items() if name not in without},
              directory / "model.safetensors")
    return directory


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(family, tmp_path):
    found = masked_lm.load(add_head(GOLDENS / f"tiny_{family}", tmp_path / family))
    with np.load(GOLDENS / f"tiny_{family}_outputs.npz") as texts:
        inputs = {name: texts[name][:2] for name in found.states.input_names}
    with np.load(GOLDENS / "tiny_masked_lm_outputs.npz") as expected:
        np.testing.assert_allclose(found.logits(inputs, expected[f"{family}_places"]),
                                   expected[family], atol=1e-4)


def test_weights_of_the_output_count_before_the_table_of_tokens(tmp_path):
    tied, own = (masked_lm.load(add_head(GOLDENS / "tiny_bert", tmp_path / str(tied),
                                         tied=tied)) for tied in (True, False))
    np.testing.assert_array_equal(own.table, 2 * tied.table)


def test_a_checkpoint_without_the_head_is_refused(tmp_path):
    assert not masked_lm.has_head(GOLDENS / "tiny_bert")
    assert not masked_lm.has_head(GOLDENS / "tiny_electra")
    with pytest.raises(ValueError, match="head it was pretrained with.*tiny_bert$"):
        masked_lm.load(GOLDENS / "tiny_bert")
    missing = "cls.predictions.transform.LayerNorm.bias"
    path = add_head(GOLDENS / "tiny_bert", tmp_path / "cut", without=[missing])
    assert not masked_lm.has_head(path)


def test_a_head_of_another_width_is_refused(tmp_path):
    path = add_head(GOLDENS / "tiny_bert", tmp_path / "bert")
    tensors = load_file(path / "model.safetensors")
    tensors["cls.predictions.bias"] = np.zeros(7, np.float32)
    save_file(tensors, path / "model.safetensors")
    with pytest.raises(ValueError, match=r"must have the shapes.*output_bias': \(7,\)"):
        masked_lm.load(path)
