"""Checkpoints: the three kinds read, tfopt's own written, the broken ones refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tfopt import model
from tfopt.backend import keras, tf
from tfopt.model import encoder, layer_names
from tfopt.types import INPUT_NAMES


@pytest.fixture(scope="module")
def tiny(tiny_dir):
    """The tiny checkpoint as a model that no test may change."""
    return model.load(tiny_dir)


@pytest.fixture(scope="module")
def saved(tiny, tmp_path_factory):
    """It, saved."""
    path = tmp_path_factory.mktemp("saved")
    model.save(tiny, path)
    return path


@pytest.fixture
def tiny_copy(tiny_dir, tmp_path):
    """A copy of the tiny checkpoint, to be changed."""
    return shutil.copytree(tiny_dir, tmp_path / "tiny")


@pytest.fixture
def rewrite(tiny_copy):
    """Passes the weights through a function, and gives the checkpoint."""
    def change(function):
        file = tiny_copy / "model.safetensors"
        weights = function(load_file(file))
        save_file({name: np.ascontiguousarray(x) for name, x in weights.items()}, file)
        return tiny_copy

    return change


@pytest.fixture
def configure(tiny_copy):
    """Changes fields of the config, and gives the checkpoint."""
    def change(**fields):
        file = tiny_copy / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
        return tiny_copy

    return change


def inputs_of(outputs):
    return {name: outputs[name] for name in INPUT_NAMES}


def difference(first, second):
    return float(np.abs(np.asarray(first) - np.asarray(second)).max())


def weights_of(keras_model, *, head=True):
    """Layer name -> weights, with or without the classifier."""
    return {layer.name: layer.get_weights() for layer in keras_model.layers
            if layer.weights and (head or layer.name != layer_names.CLASSIFIER)}


def assert_same_weights(first, second, *, head=True):
    first, second = weights_of(first, head=head), weights_of(second, head=head)
    assert first.keys() == second.keys()
    for name in first:
        for a, b in zip(first[name], second[name], strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)


def without_prefix(weights):
    return {name.removeprefix("bert."): x for name, x in weights.items()}


def with_another_prefix(weights):
    return {name if name.startswith("classifier") else f"model.{name}": x
            for name, x in weights.items()}


def with_old_norms(weights):
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    return {re.sub(r"LayerNorm\.\w+", lambda match: old[match[0]], name): x
            for name, x in weights.items()}


@pytest.mark.parametrize("change", [
    dict, without_prefix, with_another_prefix, with_old_norms,
    lambda weights: without_prefix(with_old_norms(weights))])
def test_published_names_of_every_kind_give_the_reference(
        rewrite, tiny_outputs, change):
    bert = model.load(rewrite(change))
    assert difference(bert(inputs_of(tiny_outputs)), tiny_outputs["logits"]) < 1e-4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weights_are_read_as_float32(rewrite, tiny_outputs, dtype):
    dtype = tf.as_dtype(dtype).as_numpy_dtype
    bert = model.load(rewrite(lambda weights: {
        name: x.astype(dtype) for name, x in weights.items()}))
    assert {weight.dtype for weight in bert.weights} == {tf.float32}
    assert difference(bert(inputs_of(tiny_outputs)), tiny_outputs["logits"]) < 0.02


def test_the_checkpoints_own_classes_are_the_default(tiny):
    assert tiny.output_shape == (None, 3)


@pytest.mark.parametrize("num_labels", [1, 2, 5])
def test_another_number_of_classes_gets_a_fresh_head(tiny_dir, tiny, num_labels):
    bert = model.load(tiny_dir, num_labels=num_labels)
    assert bert.output_shape == (None, num_labels)
    assert_same_weights(bert, tiny, head=False)
    assert not np.any(bert.get_layer(layer_names.CLASSIFIER).bias)


def test_the_fresh_head_is_the_seeds(tiny_dir):
    first, again, other = (
        model.load(tiny_dir, num_labels=5, seed=seed).get_layer(layer_names.CLASSIFIER)
        for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.kernel, again.kernel)
    assert difference(first.kernel, other.kernel) > 0.001


@pytest.mark.parametrize("num_labels, classes", [(None, 2), (3, 3)])
def test_a_checkpoint_without_classifier_gets_a_fresh_one(
        rewrite, tiny, num_labels, classes):
    path = rewrite(lambda weights: {
        name: x for name, x in weights.items() if not name.startswith("classifier")})
    bert = model.load(path, num_labels=num_labels)
    assert bert.output_shape == (None, classes)
    assert_same_weights(bert, tiny, head=False)
    kernel = tiny.get_layer(layer_names.CLASSIFIER).kernel
    assert classes == 2 or difference(
        bert.get_layer(layer_names.CLASSIFIER).kernel, kernel) > 0.001


def test_a_checkpoint_without_pooler_gets_a_fresh_one(rewrite, tiny):
    path = rewrite(lambda weights: {
        name: x for name, x in weights.items() if "pooler" not in name})
    bert = weights_of(model.load(path))
    expected = weights_of(tiny)
    assert difference(bert.pop("pooler")[0], expected.pop("pooler")[0]) > 0.001
    for name in expected:
        np.testing.assert_array_equal(bert[name][0], expected[name][0])


@pytest.mark.parametrize("name", [
    "tiny_dir", "google_dir", "saved", "random:bert_tiny"])
def test_no_class_at_all_is_refused(request, name):
    path = name if ":" in name else request.getfixturevalue(name)
    with pytest.raises(ValueError, match="Received: num_labels=0$"):
        model.load(path, num_labels=0)


def test_googles_layout_gives_the_logits_of_its_source(
        google_dir, tiny, tiny_outputs):
    bert = model.load(google_dir)
    inputs = inputs_of(tiny_outputs)
    assert difference(bert(inputs), tiny(inputs)) <= 1e-6
    assert model.config_of(bert) == model.config_of(tiny)
    assert_same_weights(bert, tiny)


def test_googles_layout_with_other_classes_gets_a_fresh_head(google_dir, tiny):
    bert = model.load(google_dir, num_labels=4)
    assert bert.output_shape == (None, 4)
    assert_same_weights(bert, tiny, head=False)


def test_saved_models_come_back_equal(saved, tiny, tiny_outputs):
    assert sorted(os.listdir(saved)) == ["bert.json", "model.keras"]
    again = model.load(saved)
    inputs = inputs_of(tiny_outputs)
    np.testing.assert_array_equal(again(inputs), tiny(inputs))
    config = model.config_of(tiny)
    assert model.config_of(again) == config
    fields = json.loads((saved / "bert.json").read_text())
    assert {fields.pop(name) for name in ("num_labels", "classifier_dropout")} == {
        3, 0.1}
    assert (fields.pop("head_reads"), fields.pop("head_pooler")) == ("first", "tanh")
    assert model.EncoderConfig(**fields) == config


def test_layers_of_unequal_sizes_come_back(tmp_path):
    config = model.EncoderConfig(
        vocab_size=60, hidden_size=24, num_heads=(3, 1), intermediate_sizes=(40, 7),
        head_size=8, activation="gelu_tanh")
    bert = model.build(config, model.Head(outputs=4))
    model.save(bert, tmp_path)
    again = model.load(tmp_path)
    assert model.config_of(again) == config
    assert model.head_of(again) == model.Head(outputs=4)
    assert_same_weights(again, bert)


def test_plain_keras_loads_what_was_saved(saved, tiny, tiny_outputs):
    again = keras.models.load_model(saved / model.KERAS_FILE)
    inputs = inputs_of(tiny_outputs)
    np.testing.assert_array_equal(again(inputs), tiny(inputs))


def test_a_saved_model_gets_a_fresh_head_for_other_classes(saved, tiny):
    bert = model.load(saved, num_labels=7)
    assert bert.output_shape == (None, 7)
    assert_same_weights(bert, tiny, head=False)


def test_a_model_that_is_no_bert_is_saved_without_a_config(tmp_path):
    other = keras.Sequential([keras.layers.Dense(2, input_shape=[3])])
    model.save(other, tmp_path)
    assert os.listdir(tmp_path) == ["model.keras"]
    x = np.ones([1, 3], np.float32)
    np.testing.assert_array_equal(model.load(tmp_path)(x), other(x))


@pytest.fixture
def no_renaming(monkeypatch):
    def refuse(*_):
        raise OSError("no renaming")

    monkeypatch.setattr(os, "replace", refuse)


@pytest.mark.parametrize("failure", ["no_renaming", "full_disk"])
@pytest.mark.parametrize("replaces", [True, False])
def test_a_failed_save_leaves_what_was_there(
        request, full_disk, saved, tiny, tmp_path, failure, replaces):
    path = shutil.copytree(saved, tmp_path / "out") if replaces else tmp_path
    before = {p.name: p.read_bytes() for p in path.iterdir()}
    other = model.build(model.config_of(tiny), model.head_of(tiny), seed=1)
    full = failure == "full_disk"
    if not full:
        request.getfixturevalue(failure)
    with pytest.raises(OSError), full_disk(20_000) if full else nullcontext():
        model.save(other, path)
    assert {p.name: p.read_bytes() for p in path.iterdir()} == before
    if replaces:
        assert_same_weights(model.load(path), tiny)


def test_random_weights_of_a_named_shape():
    bert = model.load("random:bert_tiny", num_labels=4)
    assert model.config_of(bert) == model.named("bert_tiny")
    assert bert.output_shape == (None, 4)
    again = model.load("random:bert_tiny")
    assert again.output_shape == (None, 2)
    assert_same_weights(again, bert, head=False)


def test_named_checkpoints_have_a_vocabulary():
    assert (model.directory("minilm") / "vocab.txt").is_file()
    assert model.directory("random:bert_base") == model.directory("minilm")


def test_a_directory_stands_for_itself(tiny_dir):
    assert model.directory(tiny_dir) == tiny_dir
    assert model.directory(str(tiny_dir)) == tiny_dir


def test_published_labels_are_the_classifiers_words(tiny_dir):
    assert model.published_labels(tiny_dir) == ["bad", "fine", "good"]


@pytest.mark.parametrize("id2label, expected", [
    ({"1": "b", "0": "a"}, ["a", "b"]),
    ({str(i): f"word {i}" for i in range(12)}, [f"word {i}" for i in range(12)]),
    ({"0": "LABEL_0", "1": "LABEL_1"}, None),
    ({}, None),
    (None, None),
])
def test_published_labels_by_class_number(configure, id2label, expected):
    assert model.published_labels(configure(id2label=id2label)) == expected


@pytest.mark.parametrize("id2label", [["a", "b"], {"x": "a"}, "ab"])
def test_published_labels_without_numbers_are_refused(configure, id2label):
    path = configure(id2label=id2label)
    with pytest.raises(ValueError, match=r"`id2label`.* Received: .*config\.json"):
        model.published_labels(path)


def test_a_label_list_beside_the_checkpoint_comes_first(tiny_copy):
    (tiny_copy / "labels.txt").write_text("x\ny\u2028z\n", encoding="utf-8")
    assert model.published_labels(tiny_copy) == ["x", "y\u2028z"]


def test_some_checkpoints_publish_no_labels(google_dir):
    assert model.published_labels("random:bert_tiny") is None
    assert model.published_labels(google_dir) is None


def refusal(name):
    with pytest.raises(ValueError) as caught:
        model.load(name)
    message = str(caught.value)
    assert "Received: " in message
    return message


def test_pickled_weights_are_refused_with_the_way_to_convert_them(tiny_copy):
    (tiny_copy / "model.safetensors").rename(tiny_copy / "pytorch_model.bin")
    message = refusal(tiny_copy)
    assert "safe_serialization=True" in message
    assert message.endswith(f"Received: {tiny_copy / 'pytorch_model.bin'}")


def test_an_empty_directory_is_told_what_a_checkpoint_is(tmp_path):
    message = refusal(tmp_path)
    assert all(kind in message for kind in (
        "model.safetensors", "config.json", "bert_model.ckpt", "model.keras"))
    assert message.endswith(f"Received: {tmp_path} with []")


def test_a_missing_directory_is_told_the_names(tmp_path):
    message = refusal(tmp_path / "absent")
    assert "'minilm'" in message and "'bert_base'" in message
    assert message.endswith(f"model_dir={str(tmp_path / 'absent')!r}")


@pytest.mark.parametrize("name", ["random:bert_huge", "random:"])
def test_an_unknown_random_shape_is_told_the_known_ones(name):
    message = refusal(name)
    assert "'bert_tiny'" in message
    assert message.endswith(f"Received: name={name.removeprefix('random:')!r}")


def test_a_missing_config_is_named(tiny_copy):
    (tiny_copy / "config.json").unlink()
    assert refusal(tiny_copy) == (
        f"A checkpoint's config.json is missing. Received: {tiny_copy}")


@pytest.mark.parametrize("size", [0, 5, 1000, 100_000])
def test_truncated_weights_are_named(tiny_copy, size):
    file = tiny_copy / "model.safetensors"
    os.truncate(file, size)
    assert re.search(f"truncated or damaged. Received: {re.escape(str(file))}",
                     refusal(tiny_copy))


@pytest.mark.parametrize("name", [
    "bert.encoder.layer.1.output.dense.bias", "bert.pooler.dense.bias",
    "bert.embeddings.position_embeddings.weight", "classifier.weight"])
def test_a_missing_weight_is_named(rewrite, name):
    path = rewrite(lambda weights: {n: x for n, x in weights.items() if n != name})
    assert refusal(path).endswith(
        f"Received: {path / 'model.safetensors'} without {name!r}")


def test_weights_of_another_architecture_are_refused(rewrite):
    path = rewrite(lambda weights: {
        name.replace("bert.", "gpt."): x for name, x in weights.items()})
    assert "must be of the family 'bert'" in refusal(path)


@pytest.mark.parametrize("fields, layer, received", [
    ({"hidden_size": 64}, "token_embedding", "[(103, 32)]"),
    ({"max_position_embeddings": 32}, "position_embedding", "[(64, 32)]"),
    ({"intermediate_size": 96}, "layer_0_intermediate", "[(32, 80), (80,)]"),
    ({"vocab_size": 104}, "token_embedding", "[(103, 32)]"),
])
def test_weights_of_other_shapes_name_the_layer(configure, fields, layer, received):
    path = configure(**fields)
    message = refusal(path)
    assert message.startswith(f"The weights of layer {layer!r} must have the shapes ")
    assert message.endswith(f"Received: {received} in {path / 'model.safetensors'}")


def test_more_words_than_embeddings_are_refused(tiny_copy):
    with (tiny_copy / "vocab.txt").open("a") as file:
        file.write("more\n")
    assert refusal(tiny_copy).endswith(
        f"Received: {tiny_copy / 'vocab.txt'} with 104 lines, vocab_size=103")


@pytest.mark.parametrize("contents, received", [
    ("", "Expecting value"), ("{", "Expecting property name"), ("[1]", "list"),
    ("null", "NoneType")])
@pytest.mark.parametrize("file", ["config.json", "bert_config.json"])
def test_a_config_that_is_no_json_object_is_named(
        tiny_copy, google_dir, tmp_path, file, contents, received):
    path = tiny_copy if file == "config.json" else shutil.copytree(
        google_dir, tmp_path / "google")
    (path / file).write_text(contents)
    assert f"Received: {path / file}: {received}" in refusal(path)


@pytest.mark.parametrize("fields, received", [
    ({"hidden_act": "tanh"}, "activation='tanh'"),
    ({"model_type": "gpt2"}, "model_type='gpt2'"),
    ({"model_type": ["bert"]}, "model_type=['bert']"),
    ({"architectures": 3}, "architectures=3"),
    ({"architectures": "BertModel"}, "architectures='BertModel'"),
    ({"classifier_dropout": "much"}, "dropout='much'"),
    ({"num_attention_heads": 5}, "num_heads=5, hidden_size=32"),
    ({"hidden_size": "32"}, "hidden_size='32'"),
    ({"hidden_dropout_prob": None}, "hidden_dropout=None"),
])
def test_a_config_that_breaks_a_rule_is_named(configure, fields, received):
    path = configure(**fields)
    message = refusal(path)
    assert message.startswith(f"{path / 'config.json'}: ")
    assert message.endswith(f"Received: {received}")


@pytest.mark.parametrize("contents", [b"", b"no zip", None])
def test_a_damaged_saved_model_is_named(saved, tmp_path, contents):
    file = tmp_path / model.KERAS_FILE
    whole = (saved / model.KERAS_FILE).read_bytes()
    file.write_bytes(whole[:len(whole) // 2] if contents is None else contents)
    assert f"cannot be read. Received: {file}: " in refusal(tmp_path)


@pytest.mark.parametrize("suffix, change", [
    ("data-00000-of-00001", lambda raw: raw[:1000]),
    ("data-00000-of-00001", lambda raw: raw[:5000] + b"\0" * 64 + raw[5064:]),
    ("index", lambda raw: raw[:50]),
    ("index", lambda raw: b""),
])
def test_a_damaged_google_checkpoint_is_named(google_dir, tmp_path, suffix, change):
    path = shutil.copytree(google_dir, tmp_path / "google")
    file = path / f"bert_model.ckpt.{suffix}"
    file.write_bytes(change(file.read_bytes()))
    assert f"Received: {path / 'bert_model.ckpt'}" in refusal(path)


def test_a_google_checkpoint_without_its_data_is_named(google_dir, tmp_path):
    path = shutil.copytree(google_dir, tmp_path / "google")
    (path / "bert_model.ckpt.data-00000-of-00001").unlink()
    assert f"Received: {path / 'bert_model.ckpt'}" in refusal(path)


def test_a_google_checkpoint_with_more_layers_in_its_config_is_named(
        google_dir, tmp_path):
    path = shutil.copytree(google_dir, tmp_path / "google")
    file = path / "bert_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()),
                                "num_hidden_layers": 4}))
    assert refusal(path).endswith(
        "without 'bert.encoder.layer.3.attention.self.query.weight'")


@pytest.mark.parametrize("fields, said", [
    ({"vocab_size": 20_000_000}, "(20000000, 32)"),
    ({"vocab_size": 10 ** 30}, "00, 32)"),
    ({"num_hidden_layers": 3000}, "num_layers=3000"),
    ({"num_hidden_layers": 10 ** 12}, "num_layers=1000000000000"),
    ({"num_hidden_layers": 900}, "without 'bert.encoder.layer.3."),
    ({"intermediate_size": 10 ** 9}, "(32, 1000000000)"),
    ({"max_position_embeddings": 10 ** 9}, "(1000000000, 32)"),
    ({"type_vocab_size": 10 ** 9}, "(1000000000, 32)"),
    ({"layer_norm_eps": float("inf")}, "Infinity is no number"),
    ({"layer_norm_eps": float("nan")}, "NaN is no number"),
    ({"layer_norm_eps": True}, "layer_norm_epsilon=True"),
    ({"hidden_dropout_prob": "0.1"}, "hidden_dropout='0.1'"),
])
def test_sizes_are_held_against_the_tensors_before_anything_is_built(
        configure, monkeypatch, fields, said):
    monkeypatch.setattr(encoder, "build", None)
    path = configure(**fields)
    if "vocab_size" in fields:
        (path / "vocab.txt").unlink()
    assert said in refusal(path)


def test_deep_json_is_refused(tiny_copy):
    (tiny_copy / "config.json").write_text("[" * 100_000)
    assert refusal(tiny_copy).endswith(
        f"Received: {tiny_copy / 'config.json'}: nested too deeply")


@pytest.mark.parametrize("id2label", [{"0": ["bad"]}, {"0": None}, {"0": 1}])
def test_published_labels_that_are_no_words_are_refused(configure, id2label):
    path = configure(id2label=id2label)
    with pytest.raises(ValueError, match=r"`id2label`.* Received: .*config\.json"):
        model.published_labels(path)


@pytest.mark.parametrize("shape", [(), (0,), (3, 1)])
def test_a_classifier_needs_a_bias_for_each_class(tiny_copy, shape):
    file = tiny_copy / "model.safetensors"
    save_file(load_file(file) | {"classifier.bias": np.zeros(shape, np.float32)}, file)
    assert refusal(tiny_copy).endswith(f"Received: [(32, 3), {shape}] in {file}")


def header_of(file) -> tuple[dict, bytes]:
    contents = file.read_bytes()
    size = int.from_bytes(contents[:8], "little")
    return json.loads(contents[8:8 + size]), contents[8 + size:]


def put_header(file, header: str, rest: bytes) -> None:
    file.write_bytes(len(header).to_bytes(8, "little") + header.encode() + rest)


NAME = "bert.embeddings.LayerNorm.weight"


@pytest.mark.parametrize("change, said", [
    ({"dtype": "F8_E4M3", "shape": [128]}, "(128,)"),
    ({"dtype": "F8_E5M2", "shape": [32], "data_offsets": [0, 32]}, "damaged"),
    ({"dtype": "I32"}, "of I32"), ({"dtype": "XX"}, "damaged"),
    ({"shape": [-32]}, "damaged"), ({"shape": [2 ** 70]}, "damaged"),
    ({"shape": [2 ** 40]}, "damaged"), ({"shape": [4, 8]}, "(4, 8)"),
    ({"data_offsets": [0, 10 ** 12]}, "damaged"),
    ({"data_offsets": [128, 0]}, "damaged"),
    ({"data_offsets": [1, 129]}, "damaged"), ({"data_offsets": None}, "damaged"),
])
def test_a_header_that_is_wrong_is_one_sentence(tiny_copy, change, said):
    file = tiny_copy / "model.safetensors"
    header, rest = header_of(file)
    put_header(file, json.dumps(header | {NAME: header[NAME] | change}), rest)
    message = refusal(tiny_copy)
    assert str(file) in message and said in message


@pytest.mark.parametrize("header, said", [
    ("[" * 100_000, "nested too deeply"), ("{\"a\": 1, \"a\": 2}", "'a' twice"),
    ("{", "Expecting"), ("[]", "list")])
def test_a_header_that_is_no_object_is_one_sentence(tiny_copy, header, said):
    file = tiny_copy / "model.safetensors"
    put_header(file, header, header_of(file)[1])
    message = refusal(tiny_copy)
    assert "truncated or damaged" in message and str(file) in message
    assert said in message


def test_a_header_of_a_size_that_is_not_there_is_one_sentence(tiny_copy):
    file = tiny_copy / "model.safetensors"
    file.write_bytes((2 ** 63).to_bytes(8, "little") + file.read_bytes()[8:])
    assert "truncated or damaged" in refusal(tiny_copy)
