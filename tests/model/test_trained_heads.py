"""What of a published checkpoint must not be dropped, renumbered or misread."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tfopt import model, tasks
from tfopt.backend import keras
from tfopt.model import layer_names

HEAD = ("classifier.weight", "classifier.bias")


@pytest.fixture
def changed(tiny_dir, tmp_path):
    """The tiny checkpoint with other tensors, by a function, and other fields."""
    def change(function=dict, **fields):
        path = shutil.copytree(tiny_dir, tmp_path / "tiny", dirs_exist_ok=True)
        save_file(function(load_file(tiny_dir / "model.safetensors")),
                  path / "model.safetensors")
        about = json.loads((tiny_dir / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(about | fields))
        return path

    return change


def renamed(*rules):
    def change(weights):
        found = {}
        for name, value in weights.items():
            for old, new in rules:
                name = name.replace(old, new)
            found[name] = value
        return found

    return change


def added(*names, shape=(3, 32)):
    return lambda weights: {**weights, **{
        name: np.ones(shape, np.float32) for name in names}}


def without(*names):
    return lambda weights: {name: value for name, value in weights.items()
                            if name not in names}


def refusal(path, **options) -> str:
    with pytest.raises(ValueError) as caught:
        model.load(path, **options)
    assert "Received: " in str(caught.value)
    return str(caught.value)


def head_of(found) -> list[np.ndarray]:
    return found.get_layer(layer_names.CLASSIFIER).get_weights()


@pytest.mark.parametrize("change", [
    renamed(), renamed(("bert.", "model.bert."), ("classifier.", "model.classifier.")),
    renamed(("bert.", "model.bert.")), renamed(("bert.", "")),
], ids=["published", "all in a module", "the encoder in a module", "bare"])
def test_a_trained_head_is_read(change, changed, tiny_dir):
    for now, then in zip(head_of(model.load(changed(change))),
                         head_of(model.load(tiny_dir)), strict=True):
        np.testing.assert_array_equal(now, then)


def test_a_head_without_bias_is_read(changed, tiny_dir):
    kernel, bias = head_of(model.load(changed(without("classifier.bias"))))
    np.testing.assert_array_equal(kernel, head_of(model.load(tiny_dir))[0])
    assert bias.shape == (3,) and not bias.any()


@pytest.mark.parametrize("name", [
    "classifier.out_proj", "classifier.dense", "score", "fc", "head.linear",
    "bert.classifier2", "out"])
def test_a_head_of_another_name_is_no_fresh_one(name, changed, caplog):
    path = changed(renamed(("classifier.", f"{name}.")))
    told = refusal(path)
    assert f"{path / 'model.safetensors'} with {name}.bias, {name}.weight" in told
    assert "`num_labels`" in told
    found = model.load(path, num_labels=3)  # a fresh one was asked for
    assert found.output_shape == (None, 3)
    assert f"a head that is not read: {name}.bias, {name}.weight" in caplog.text


def test_a_second_head_is_told(changed, caplog, tiny_dir):
    found = model.load(changed(added("slots.weight")))
    np.testing.assert_array_equal(head_of(found)[0], head_of(model.load(tiny_dir))[0])
    assert "a head that is not read: slots.weight" in caplog.text


@pytest.mark.parametrize("name", [
    "cls.predictions.transform.dense.weight", "cls.seq_relationship.bias",
    "bert.embeddings.position_ids"])
def test_what_pretraining_leaves_is_passed_over(name, changed, caplog):
    model.load(changed(added(name)))
    assert not caplog.records


@pytest.mark.parametrize("name", [
    "bert.encoder.layer.0.crossattention.self.query.weight",
    "bert.encoder.layer.2.attention.self.distance_embedding.weight",
    "bert.encoder.layer.1.adapter.down.weight", "bert.embeddings.extra.weight"])
def test_an_encoder_of_other_weights_is_refused(name, changed):
    told = refusal(changed(added(name)), num_labels=3)
    assert told.endswith(f"model.safetensors with {name}")


def test_layers_that_the_config_leaves_out_are_told(changed, caplog):
    found = model.load(changed(num_hidden_layers=1))
    assert model.config_of(found).num_layers == 1
    assert "layers beyond those of its config are not read: bert.encoder.layer.1" in (
        caplog.text)


def test_a_checkpoint_without_a_head_says_that_one_is_fresh(changed, caplog):
    path = changed(without(*HEAD))
    model.load(path)
    assert "no classifier; a fresh one is made" in caplog.text
    caplog.clear()
    model.load(path, num_labels=2)
    assert "fresh one" not in caplog.text


@pytest.mark.parametrize("words", [
    {"0": "a", "2": "c", "3": "d"}, {"1": "a", "2": "b", "3": "c"},
    {"-1": "a", "0": "b", "1": "c"}, {"0": "a", "00": "b", "1": "c"}], ids=str)
def test_words_of_other_numbers_are_not_numbered_anew(words, changed):
    path = changed(id2label=words)
    with pytest.raises(ValueError, match="`id2label` must map.*Received: "):
        model.published_labels(path)
    assert "`id2label`" in refusal(path)


@pytest.mark.parametrize("words", [
    {"0": "a", "1": "b"}, {"0": "a", "1": "b", "2": "c", "3": "d"}], ids=str)
def test_words_for_other_classes_than_were_trained(words, changed):
    path = changed(id2label=words)
    assert "must name the classifier's 3 classes" in refusal(path)
    assert model.load(path, num_labels=5).output_shape == (None, 5)


def test_several_labels_at_once_are_a_task_of_their_own(changed):
    path = changed(problem_type="multi_label_classification")
    found = tasks.read(path, ["a", "b", "c"])
    assert (found.name(), found.labels) == ("multi_label", ("a", "b", "c"))
    assert model.load(path).output_shape == (None, 3)


def test_a_head_that_chooses_between_texts_is_refused(changed):
    path = changed(architectures=["BertForMultipleChoice"])
    assert "architectures=['BertForMultipleChoice']" in refusal(path)
    assert model.load(path, num_labels=5).output_shape == (None, 5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [
    "classifier.weight", "bert.embeddings.word_embeddings.weight",
    "bert.encoder.layer.1.output.LayerNorm.bias"])
def test_weights_that_are_no_numbers_are_refused(name, bad, changed):
    def change(weights):
        value = weights[name].copy()
        value.flat[1] = bad
        return {**weights, name: value}

    path = changed(change)
    told = refusal(path)
    assert f"{path / 'model.safetensors'}: {name} with 1 of " in told
    if name == "classifier.weight":
        model.load(path, num_labels=7)  # for which it is not read


def test_a_head_of_ones_own_is_not_dropped(tiny_model, tmp_path):
    given = keras.Model(tiny_model.inputs,
                        keras.layers.Dense(5, name="own")(tiny_model.output))
    model.save(given, tmp_path)
    for num_labels in (None, 5):
        found = model.load(tmp_path, num_labels=num_labels)
        np.testing.assert_array_equal(found.get_layer("own").kernel,
                                      given.get_layer("own").kernel)
    for options in ({"num_labels": 3}, {"num_labels": 4}, {"head": model.Head()}):
        assert "'own'" in refusal(tmp_path, **options)
