"""Saved models from outside: what would run code, read or write a file, is refused."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from tfopt import model
from tfopt.backend import keras

# A module beside the process, as a package of anybody's may be; importing it tells.
EVIL = "from pathlib import Path\nPath('PWNED').touch()\nclass E: pass\n"
LAMBDA = {
    "module": "keras.layers", "class_name": "Lambda", "registered_name": None,
    "name": "l", "inbound_nodes": [[["_CONSTANT_VALUE", -1, "touch PWNED", {}]]],
    "config": {"name": "l", "dtype": "float32", "trainable": True,
               "function": {"module": "os", "class_name": "function",
                            "config": "system", "registered_name": "system"},
               "function_type": "function", "output_shape": None,
               "output_shape_type": "raw", "arguments": {}}}


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict[str, bytes]:
    """The members of a saved model: x -> Dense "d" -> Activation "a"."""
    place = tmp_path_factory.mktemp("good")
    x = keras.Input([4], name="x")
    y = keras.layers.Dense(3, name="d", kernel_regularizer="l2")(x)
    model.save(keras.Model(x, keras.layers.Activation("relu", name="a")(y)), place)
    with zipfile.ZipFile(place / model.KERAS_FILE) as file:
        return {name: file.read(name) for name in file.namelist()}


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A directory that commands run in, with a module that tells of its import."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "secret.txt").write_text("a\nb\n")
    return tmp_path


def write(place: Path, parts, packed=zipfile.ZIP_STORED) -> Path:
    file = place / "saved" / model.KERAS_FILE
    file.parent.mkdir()
    with zipfile.ZipFile(file, "w", packed) as opened:
        for name, contents in parts.items():
            opened.writestr(name, contents)
    return file


def written(place: Path, parts, change) -> Path:
    """A saved model whose configuration is changed."""
    config = json.loads(parts["config.json"])
    config = change(config) or config
    return write(place, {**parts, "config.json": json.dumps(config).encode()})


def evil(**fields) -> dict:
    return {"module": "evil", "class_name": "E", "config": {},
            "registered_name": "E"} | fields


def function(module: str, name: str) -> dict:
    return {"module": module, "class_name": "function", "config": name,
            "registered_name": name}


def layer(module, class_name, config=None, nodes=None, **fields) -> dict:
    name = f"l{class_name}"
    return {"module": module, "class_name": class_name, "registered_name": None,
            "name": name, "config": {"name": name, **(config or {})},
            "inbound_nodes": [[["x", 0, 0, {}]]] if nodes is None else nodes, **fields}


def adding(*layers):
    """A change that adds layers to the model."""
    return lambda config: config["config"]["layers"].extend(copy.deepcopy(layers))


def setting(value, *keys):
    """A change of what lies in the Dense, or of what its last key names."""
    def change(config):
        holder = config["config"]["layers"][1]
        for key in keys[:-1]:
            holder = holder[key]
        holder[keys[-1]] = value
    return change


def nested(*layers) -> dict:
    inside = {"name": "n", "layers": [
        layer("keras.layers", "InputLayer", {"batch_input_shape": [None, 4]}, []),
        *layers], "input_layers": [["lInputLayer", 0, 0]],
        "output_layers": [["lInputLayer", 0, 0]]}
    return {"module": "tf_keras.src.engine.functional", "class_name": "Functional",
            "registered_name": "Functional", "name": "n", "config": inside,
            "inbound_nodes": [[["x", 0, 0, {}]]]}


def operation(name, *arguments) -> dict:
    return layer("tf_keras.src.layers.core.tf_op_layer", "TFOpLambda",
                 {"function": name, "trainable": True, "dtype": "float32"},
                 [list(arguments)], registered_name="TFOpLambda")


def renamed(module, **fields):
    return lambda config: config.update({"module": module, **fields})


# What is written into the file -> the class that the refusal names.
MALICIOUS = {
    "a command": (adding(LAMBDA), "Lambda"),
    "a command's output": (adding(json.loads(json.dumps(LAMBDA).replace(
        '"os"', '"subprocess"').replace('"system"', '"getoutput"'))), "Lambda"),
    "code in the file": (adding({**LAMBDA, "config": {
        **LAMBDA["config"], "function_type": "lambda", "function": {
            "class_name": "__lambda__", "config": {"value": ["4wAA", None, None]}}}}),
        "Lambda"),
    "a Lambda without its module": (adding({**LAMBDA, "module": None}), "Lambda"),
    "a Lambda by its own module": (adding({
        **LAMBDA, "module": "tf_keras.src.layers.core.lambda_layer"}), "Lambda"),
    "a Lambda by a dotted name": (adding({
        **LAMBDA, "module": "keras", "class_name": "layers.Lambda"}), "layers.Lambda"),
    "a Lambda under a wrapper": (adding(layer(
        "keras.layers", "TimeDistributed", {"layer": LAMBDA})), "Lambda"),
    "a Lambda as a cell": (adding(layer(
        "keras.layers", "RNN", {"cell": LAMBDA})), "Lambda"),
    "a Lambda in a nested model": (adding(nested(LAMBDA)), "Lambda"),
    "a Sequential": (renamed("keras", class_name="Sequential", registered_name=None,
                             config={"name": "s", "layers": [LAMBDA]}), "Lambda"),
    "a function of TensorFlow that writes": (adding(operation(
        "io.write_file", ["_CONSTANT_VALUE", -1, "PWNED", {"contents": "x"}])),
        "io.write_file"),
    "a function of TensorFlow that reads": (adding(operation(
        "io.read_file", ["_CONSTANT_VALUE", -1, "secret.txt", {}])), "io.read_file"),
    "a method of a tensor's class": (adding(layer(
        "tf_keras.src.layers.core.tf_op_layer", "ClassMethod",
        {"cls_symbol": "RaggedTensor", "method_name": "from_row_splits"})),
        "ClassMethod"),
    "a module at the top": (renamed("evil"), "evil.Functional"),
    "another class at the top": (renamed("evil", class_name="E", registered_name=None),
                                 "E"),
    "a module of a layer": (adding(layer("evil", "Dense")), "evil.Dense"),
    "a layer registered elsewhere": (adding(layer(
        "evil", "Dense", registered_name="evil>Dense")), "evil.Dense"),
    "a known class by another name": (setting("evil>E", "registered_name"),
                                      "keras.layers.Dense"),
    "a class of ours in another module": (adding(layer(
        "evil", "LayerNorm", registered_name="tfopt>LayerNorm")), "evil.LayerNorm"),
    "a name like ours": (adding(layer(
        "evil", "E", registered_name="tfopt>E")), "evil.E"),
    "a function of ours": (adding(layer(
        "tfopt.files", "write_whole", registered_name="write_whole")),
        "tfopt.files.write_whole"),
    "an initializer": (setting(evil(), "config", "kernel_initializer"), "evil.E"),
    "a regularizer": (setting(evil(), "config", "kernel_regularizer"), "evil.E"),
    "a constraint": (setting(function("os", "system"), "config", "bias_constraint"),
                     "system"),
    "an activation": (setting(function("os", "system"), "config", "activation"),
                      "os.system"),
    "an activation by import": (setting(function("evil", "relu"), "config",
                                        "activation"), "evil.relu"),
    "a policy": (setting(evil(), "config", "dtype"), "evil.E"),
    "a type": (setting({"class_name": "__typespec__", "spec_name": "E",
                        "module": "evil", "config": [], "registered_name": None},
                       "config", "units"), "__typespec__"),
    "code as a value": (setting({"class_name": "__lambda__", "config": {"value": ""}},
                                "config", "units"), "__lambda__"),
    "an array of objects": (setting({"class_name": "__numpy__", "config": {
        "value": [1], "dtype": "O"}}, "config", "units"), "__numpy__"),
    "an array of gigabytes": (setting({"class_name": "__numpy__", "config": {
        "value": [1], "dtype": "S4000000000"}}, "config", "units"), "__numpy__"),
    "a loss of a nested model": (adding({**nested(), "compile_config": {
        "optimizer": "adam", "loss": function("evil", "E")}}), "evil.E"),
    "an argument of a call": (adding(layer("keras.layers", "Dense", {"units": 2}, [
        [["x", 0, 0, {"training": evil()}]]])), "evil.E"),
    "a constant text": (adding(layer("keras.layers", "Activation", {
        "activation": "relu"}, [[["x", 0, 0, {}],
                                 ["_CONSTANT_VALUE", -1, "touch PWNED", {}]]])),
        "touch PWNED"),
    "a SavedModel": (adding(layer("keras.layers", "TFSMLayer", {
        "filepath": "saved"})), "TFSMLayer"),
    "words of a file": (adding(layer("keras.layers", "StringLookup", {
        "vocabulary": "secret.txt"})), "StringLookup"),
    "a download": (adding(layer("keras.utils", "get_file", {
        "fname": "PWNED", "origin": "file:///etc/hostname"})), "get_file"),
    "a loader of models": (adding(layer("keras.models", "load_model", {
        "filepath": "secret.txt"})), "load_model"),
    "a quantizing wrapper's config": (adding(layer(
        "tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper",
        "QuantizeWrapperV2", {"layer": layer("keras.layers", "Dense", {"units": 2}),
                              "quantize_config": evil()})), "evil.E"),
    "a pruning wrapper's schedule": (adding(layer(
        "tensorflow_model_optimization.python.core.sparsity.keras.pruning_wrapper",
        "PruneLowMagnitude", {"layer": layer("keras.layers", "Dense", {"units": 2}),
                              "pruning_schedule": {"class_name": "E", "config": {}}})),
        "E"),
}


@pytest.mark.parametrize("change, name", MALICIOUS.values(), ids=MALICIOUS)
def test_a_malicious_model_has_no_effect_and_is_named(change, name, place, parts):
    file = written(place, parts, change)
    with pytest.raises(ValueError) as caught:
        model.load(file.parent)
    assert not (place / "PWNED").exists()
    message = str(caught.value)
    assert message.startswith(f"The saved model cannot be read. Received: {file}: it")\
        or "a constant in a graph must be of numbers" in message
    assert name in message


@pytest.mark.parametrize("name", ["a command", "a module at the top"])
def test_keras_itself_runs_them(name, place, parts):
    """Where this fails, Keras has learned it, and what we do may go."""
    file = written(place, parts, MALICIOUS[name][0])
    with pytest.raises(Exception):  # noqa: B017 - once it has run
        keras.models.load_model(file)
    assert (place / "PWNED").exists()


HOPELESS = {
    "no such layer": (adding(layer("keras.layers", "Dense", {"units": 2}, [
        [["nobody", 0, 0, {}]]])), "nobody"),
    "itself": (adding(layer("keras.layers", "Dense", {"units": 2}, [
        [["lDense", 0, 0, {}]]])), "lDense"),
    "no such call": (setting([[["x", 0, 0, {}]], [["d", 7, 0, {}]]], "inbound_nodes"),
                     "'d'"),
    "no such output": (adding(layer("keras.layers", "MultiHeadAttention", {
        "num_heads": 1, "key_dim": 2}, [[["x", 0, 0, {"value": ["x", 0, 3]}]]])),
        "['x', 0, 3]"),
    "constants alone": (adding(layer("keras.layers", "Activation", {
        "activation": "relu"}, [[["_CONSTANT_VALUE", -1, [1.0], {}]]])), "1.0"),
    "a name twice": (adding(layer("keras.layers", "Dense", name="d")), "'d'"),
    "too many layers": (adding(*[layer("keras.layers", "ReLU")] * 5001), "5000 layers"),
    "no list of layers": (lambda config: config["config"].update(layers=5), "layers"),
    "millions of units": (setting(10 ** 9, "config", "units"), "1000000000"),
    "a table of millions": (adding(layer("keras.layers", "Embedding", {
        "input_dim": 20_000_000, "output_dim": 400})), "20000000"),
}


@pytest.mark.parametrize("change, said", HOPELESS.values(), ids=HOPELESS)
def test_a_graph_that_cannot_be_built_is_told(change, said, place, parts):
    file = written(place, parts, change)
    with pytest.raises(ValueError, match="The saved model cannot be read") as caught:
        model.load(file.parent)
    assert said in str(caught.value)


def weights(fill) -> bytes:
    contents = io.BytesIO()
    with h5py.File(contents, "w") as file:
        fill(file)
    return contents.getvalue()


def external(file):
    file["vars"] = h5py.ExternalLink("other.h5", "/secret")


def outside(file):
    file.create_dataset("vars", (4,), "u1", external=[("secret.txt", 0, 4)])


def unpacked(file):
    file.create_dataset("vars", (10 ** 9,), "f4", chunks=(10 ** 6,), compression="gzip")


def never_written(file):
    file.create_dataset("vars", (10 ** 9,), "f4")


def objects(file):
    file.create_dataset("vars", (2,), h5py.string_dtype())


@pytest.mark.parametrize("fill, said", [
    (external, "must be in it"), (outside, "plain arrays"), (unpacked, "plain arrays"),
    (never_written, "plain arrays"), (objects, "plain arrays")])
def test_weights_that_are_not_in_the_file_are_refused(fill, said, place, parts):
    file = write(place, {**parts, "model.weights.h5": weights(fill)})
    with pytest.raises(ValueError, match=said):
        model.load(file.parent)


@pytest.mark.parametrize("changes, packed", [
    ({"../PWNED": b"x"}, zipfile.ZIP_STORED), ({"assets/a": b"x"}, zipfile.ZIP_STORED),
    ({"model.weights.npz": b"x"}, zipfile.ZIP_STORED), ({}, zipfile.ZIP_DEFLATED)],
    ids=["outside", "assets", "arrays", "packed"])
def test_other_files_and_packed_ones_are_refused(changes, packed, place, parts):
    file = write(place, {**parts, **changes}, packed)
    with pytest.raises(ValueError, match="no other files|stored as they are"):
        model.load(file.parent)
    assert not (place / "PWNED").exists()


def test_a_model_of_keras_3_is_told_so(place, parts):
    file = write(place, {**parts, "metadata.json": b'{"keras_version": "3.4.1"}'})
    with pytest.raises(ValueError, match="TF_USE_LEGACY_KERAS=1.* Keras 3.4.1"):
        model.load(file.parent)


class Doubled(keras.layers.Dense):
    """A layer of a user's own."""

    def call(self, inputs):
        return 2 * super().call(inputs)


@keras.utils.register_keras_serializable(package="of a user")
class Tripled(keras.layers.Dense):
    """One that is registered."""

    def call(self, inputs):
        return 3 * super().call(inputs)


@pytest.mark.parametrize("kind", [Doubled, Tripled])
def test_a_users_own_classes_are_given(kind, tmp_path):
    own = keras.Sequential([kind(2, input_shape=[3])])
    model.save(own, tmp_path)
    x = np.ones([1, 3], np.float32)
    again = model.load(tmp_path, custom_objects={kind.__name__: kind})
    np.testing.assert_array_equal(again(x), own(x))
    with pytest.raises(ValueError, match=rf"custom_objects`: .*\.{kind.__name__} in"):
        model.load(tmp_path)


def arithmetic():
    x = keras.Input([6, 4], name="x")
    first = x[:, 0] * 2.0 + keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(x, keras.layers.Dense(2)(first))


def recurrent():
    x = keras.Input([6, 4], name="x")
    y, *states = keras.layers.LSTM(3, return_sequences=True, return_state=True)(x)
    y = keras.layers.LSTM(3)(y, initial_state=states)
    z = keras.layers.Bidirectional(keras.layers.GRU(2))(x)
    z = keras.layers.Dense(3, "tanh", kernel_constraint="max_norm")(z)
    return keras.Model(x, keras.layers.Add()([y, z]))


def attention():
    x, shared = keras.Input([6, 4], name="x"), keras.layers.Dense(4, "gelu")
    y = keras.layers.MultiHeadAttention(2, 3)(shared(x), value=shared(x))
    y = keras.layers.LayerNormalization()(keras.layers.Dropout(0.1)(y))
    return keras.Model(x, keras.layers.Conv1D(2, 3)(y))


def inner():
    x = keras.Input([6, 4], name="x")
    one = keras.Sequential([keras.layers.Dense(4, input_shape=[6, 4])])
    two = keras.Model(x, keras.layers.BatchNormalization()(x), name="two")
    return keras.Model(x, two(one(two(x))))


@pytest.mark.parametrize("make", [arithmetic, recurrent, attention, inner])
def test_models_of_users_come_back(make, tmp_path):
    made = make()
    model.save(made, tmp_path)
    x = np.random.default_rng(0).normal(size=[2, 6, 4]).astype(np.float32)
    np.testing.assert_allclose(model.load(tmp_path)(x), made(x), atol=1e-6)
