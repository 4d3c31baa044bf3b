"""Files as others publish them: shards, TensorFlow's several, adapters, tokenizers."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tfopt import model, shard_index
from tfopt.backend import tf
from tfopt.model import google_files, layer_names, tensors

FIRST, SECOND = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
STEP = "model.ckpt-343"


@pytest.fixture
def tiny_copy(tiny_dir, tmp_path):
    """A copy of the tiny checkpoint, to be changed."""
    return shutil.copytree(tiny_dir, tmp_path / "tiny")


@pytest.fixture
def shards(tiny_copy):
    """Cuts it into two; what is given changes the index."""
    weights = load_file(tiny_copy / "model.safetensors")
    (tiny_copy / "model.safetensors").unlink()
    names = sorted(weights)
    places = {name: (FIRST, SECOND)[number % 2] for number, name in enumerate(names)}
    for file in (FIRST, SECOND):
        save_file({name: weights[name] for name in names if places[name] == file},
                  tiny_copy / file)

    def write(**changes):
        index = {"metadata": {"total_size": 7}, "weight_map": places} | changes
        (tiny_copy / shard_index.INDEX).write_text(json.dumps(index))
        return tiny_copy

    write.places = places
    return write


def refusal(path, **options) -> str:
    with pytest.raises(ValueError) as caught:
        model.load(path, **options)
    assert "Received: " in str(caught.value)
    return str(caught.value)


def assert_same(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_shards_are_read_as_one(shards, tiny_dir):
    assert_same(model.load(shards()), model.load(tiny_dir))


def test_a_whole_file_counts_before_an_index(shards, tiny_dir):
    directory = shards(weight_map={"a": "gone.safetensors"})
    shutil.copy(tiny_dir / shard_index.WHOLE, directory)
    assert_same(model.load(directory), model.load(tiny_dir))


def test_a_missing_shard_is_named(shards):
    directory = shards()
    (directory / SECOND).unlink()
    assert refusal(directory).endswith(
        f"Received: {directory / shard_index.INDEX} without {SECOND}")


@pytest.mark.parametrize("file", [
    "../tiny/" + FIRST, "/etc/model.safetensors", "a/b.safetensors", "weights.bin",
    ".safetensors", "a\\b.safetensors", 7, None])
def test_a_shard_outside_of_the_directory_is_refused(shards, file):
    directory = shards(weight_map=shards.places | {"own": file})
    assert f"model.safetensors.index.json: 'own' in {file!r}" in refusal(directory)


@pytest.mark.parametrize("changes", [
    {"weight_map": {}}, {"weight_map": [FIRST]}, {"weight_map": None}], ids=str)
def test_an_index_without_its_map_is_refused(shards, changes):
    assert refusal(shards(**changes)).endswith(
        f"weight_map={changes['weight_map']!r}")


def test_every_shard_is_checked_for_what_the_index_says(shards):
    name = "classifier.bias"
    other = SECOND if shards.places[name] == FIRST else FIRST
    directory = shards(weight_map=shards.places | {name: other})
    assert refusal(directory).endswith(f"{directory / other} without {name!r}")
    directory = shards(weight_map=shards.places | {"classifier2.weight": FIRST})
    assert refusal(directory).endswith(
        f"{directory / FIRST} without 'classifier2.weight'")


@pytest.mark.parametrize("damage", [lambda contents: contents[:-9], lambda _: b"",
                                    lambda contents: b"\xff" * len(contents)])
def test_a_damaged_shard_is_named(shards, damage):
    directory = shards()
    file = directory / SECOND
    file.write_bytes(damage(file.read_bytes()))
    assert str(file) in refusal(directory)


def test_a_tensor_in_two_shards_is_refused(shards):
    directory = shards()
    save_file({**load_file(directory / SECOND), **load_file(directory / FIRST)},
              directory / SECOND)
    assert re.search(rf"in {FIRST}, {SECOND}$", refusal(directory))


def test_a_head_that_no_index_names_is_read_as_transformers_does(shards, tiny_dir):
    """What a file has beside is loaded with it; nothing trained goes in silence."""
    directory = shards(weight_map={
        name: file for name, file in shards.places.items()
        if not name.startswith("classifier")})
    assert_same(model.load(directory), model.load(tiny_dir))


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64"])
def test_other_precisions_are_read_to_the_last_bit(tmp_path, name):
    dtype = tf.as_dtype(name).as_numpy_dtype
    values = np.random.default_rng(0).normal(size=[40, 3]).astype(dtype)
    values[0] = [1e-7, -65504.0, 3.0]
    save_file({"a": values}, tmp_path / "a.safetensors")
    with tensors.open_safetensors(tmp_path / "a.safetensors") as opened:
        found = opened.read("a")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values.astype(np.float32))


@pytest.fixture
def trained(google_dir, tmp_path):
    """A directory as run_classifier leaves it: two of its checkpoints, the last right.

    Those of 99 steps are cut short, so that reading them ends in an error.
    """
    for file in google_dir.iterdir():
        ending = file.name.removeprefix("bert_model.ckpt")
        if ending == file.name:
            shutil.copy(file, tmp_path)
        else:
            shutil.copy(file, tmp_path / (STEP + ending))
            (tmp_path / f"model.ckpt-99{ending}").write_bytes(file.read_bytes()[:20])
    (tmp_path / "checkpoint").unlink(missing_ok=True)
    return tmp_path


def test_the_checkpoint_of_most_steps_is_read(trained, google_dir):
    assert google_files.prefix_in(trained) == trained / STEP
    assert_same(model.load(trained), model.load(google_dir))


@pytest.mark.parametrize("named", ["model.ckpt-99", "/home/me/out/model.ckpt-99"])
def test_the_file_checkpoint_says_which_counts(trained, named):
    (trained / "checkpoint").write_text(
        f'model_checkpoint_path: "{named}"\n'
        f'all_model_checkpoint_paths: "{STEP}"\n')
    assert google_files.prefix_in(trained) == trained / "model.ckpt-99"
    assert "model.ckpt-99" in refusal(trained)


def test_a_checkpoint_that_is_named_and_gone_is_told(trained, caplog):
    (trained / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-400"\n')
    assert google_files.prefix_in(trained) == trained / STEP
    assert "names model.ckpt-400, which is not there" in caplog.text


def test_trained_weights_count_before_those_that_training_began_with(
        trained, google_dir):
    for file in google_dir.glob("bert_model.ckpt*"):
        shutil.copy(file, trained)
    assert google_files.prefix_in(trained) == trained / STEP
    assert google_files.prefix_in(google_dir) == google_dir / "bert_model.ckpt"


def test_no_checkpoint_of_tensorflow_is_none(tiny_dir, tmp_path):
    (tmp_path / "other.index").touch()
    assert google_files.prefix_in(tiny_dir) is None
    assert google_files.prefix_in(tmp_path) is None


def test_a_checkpoint_without_its_config_is_told(trained):
    (trained / "bert_config.json").unlink()
    assert refusal(trained) == (
        f"A checkpoint's bert_config.json is missing. Received: {trained}")


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize("alone", [True, False])
def test_an_adapter_is_refused_by_name(tiny_copy, name, alone):
    (tiny_copy / name).write_text("{}")
    if alone:
        (tiny_copy / "model.safetensors").unlink()
    told = refusal(tiny_copy)
    assert told.endswith(f"Received: {tiny_copy / name}")
    assert "`merge_and_unload`" in told


@pytest.mark.parametrize(("fields", "said"), [
    ({"adapters": {"adapters": {"own": "9"}, "config_map": {}}},
     "adapters={'own': '9'}"),
    ({"adapters": ["own"]}, "adapters=['own']"),
    ({"is_encoder_decoder": True}, "is_encoder_decoder=True"),
    ({"is_decoder": True}, "is_decoder=True"),
    ({"add_cross_attention": True}, "add_cross_attention=True"),
    ({"pruned_heads": {"1": [0]}}, "pruned_heads={'1': [0]}"),
    ({"quantization_config": {"quant_method": "gptq"}},
     "quantization_config={'quant_method': 'gptq'}"),
])
@pytest.mark.parametrize("family", ["tiny_bert", "tiny_distilbert"])
def test_fields_that_no_family_honours_are_refused_by_name(
        family, fields, said, tiny_dir, tmp_path):
    path = shutil.copytree(tiny_dir.parent / family, tmp_path / family)
    about = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(about | fields))
    told = refusal(path)
    assert str(path / "config.json") in told and told.endswith(said)


def test_fields_that_ask_for_nothing_are_passed_over(tiny_copy):
    about = json.loads((tiny_copy / "config.json").read_text())
    (tiny_copy / "config.json").write_text(json.dumps(about | {
        "adapters": {"adapters": {}, "config_map": {}}, "pruned_heads": {},
        "is_decoder": False, "quantization_config": None}))
    assert model.load(tiny_copy).output_shape == (None, 3)


@pytest.mark.parametrize(("file", "contents", "said"), [
    ("tokenizer.json", {"model": {"vocab": {"a": 0, "b": 500}}, "added_tokens": []},
     "'b' of id 500"),
    ("tokenizer.json", {"model": {"vocab": {"a": 0}}, "added_tokens": [
        {"content": "<own>", "id": 103}]}, "'<own>' of id 103"),
    ("tokenizer.json", {"model": {"vocab": [[f"w{i}", 0.0] for i in range(104)]}},
     "'w103' of id 103"),
    ("vocab.json", {"a": 0, "b": 103}, "'b' of id 103"),
    ("added_tokens.json", {"<own>": 103}, "'<own>' of id 103"),
])
def test_a_tokenizer_that_does_not_fit_the_embeddings_is_named(
        tiny_copy, file, contents, said):
    (tiny_copy / file).write_text(json.dumps(contents))
    assert refusal(tiny_copy) == (
        "A tokenizer must not have ids beyond the checkpoint's embeddings. Received: "
        f"{tiny_copy / file} with {said}, vocab_size=103")


@pytest.mark.parametrize("contents", [
    {}, [], {"model": {}}, {"model": {"vocab": {"a": "b"}}}, {"model": {"vocab": []}},
    {"model": {"vocab": {"a": 102}}, "added_tokens": None}], ids=str)
def test_a_tokenizer_that_fits_or_is_damaged_is_not_for_the_weights(
        tiny_copy, contents):
    (tiny_copy / "tokenizer.json").write_text(json.dumps(contents))
    assert model.load(tiny_copy).output_shape == (None, 3)


def test_a_trained_classifier_that_gives_way_is_told(tiny_dir, caplog):
    model.load(tiny_dir, num_labels=3)
    assert not caplog.records
    model.load(tiny_dir, num_labels=5)
    assert ("a trained classifier of 3 outputs is not read; asked for is a fresh one "
            "of 5") in caplog.text
    caplog.clear()
    model.load(tiny_dir, head=model.Head(outputs=None))
    assert "of 3 outputs is not read; asked for is none" in caplog.text
    caplog.clear()
    model.load(tiny_dir, head=model.Head(outputs=3, reads="mean", pooler=None))
    assert "of 3 outputs is not read; asked for is a fresh one of 3" in caplog.text


def test_a_trained_classifier_over_a_fresh_pooler_is_told(tiny_copy, caplog):
    file = tiny_copy / "model.safetensors"
    save_file({name: value for name, value in load_file(file).items()
               if "pooler" not in name}, file)
    model.load(tiny_copy)
    assert f"{file}: fresh weights for {layer_names.POOLER}" in caplog.text


@pytest.mark.parametrize(("published", "ours"), [
    ("gelu", "gelu"), ("gelu_python", "gelu"), ("gelu_new", "gelu_tanh"),
    ("gelu_fast", "gelu_tanh"), ("gelu_pytorch_tanh", "gelu_tanh")])
def test_every_published_name_of_gelu(tiny_copy, published, ours):
    about = json.loads((tiny_copy / "config.json").read_text())
    (tiny_copy / "config.json").write_text(json.dumps(
        about | {"hidden_act": published}))
    assert model.config_of(model.load(tiny_copy)).activation == ours
