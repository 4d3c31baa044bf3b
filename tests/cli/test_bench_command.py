"""`tfopt bench`: files and flags that `benchmark_model` reads as they were meant."""

from __future__ import annotations

import re
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter as LiteRT
from scripts import run

from tfopt import data, model, tasks
from tfopt.export import tflite
from tfopt.export.interpreter import Interpreter
from tfopt.measure import benchmark_inputs
from tfopt.serve import Bundle

TEXT, PAIR = "a great film, really", "bad bad"


@pytest.fixture(scope="module")
def bert():
    """A small model of 40 positions."""
    return model.build(model.EncoderConfig.uniform(
        hidden_size=32, num_layers=1, num_heads=2, intermediate_size=64, vocab_size=103,
        max_positions=40), model.Head(outputs=3), seed=0)


@pytest.fixture(scope="module")
def bundle(bert, tmp_path_factory, tiny_dir):
    """A bundle of it."""
    place = tmp_path_factory.mktemp("bundles") / "small"
    Bundle.write(place, task=tasks.named("classification")(labels=("a", "b", "c")),
                 tokenizer=data.tokenizer_from(tiny_dir), max_length=32,
                 scheme="dynamic_wi8_afp32",
                 model=tflite.convert(bert, "dynamic_wi8_afp32"))
    return place


def parsed(command: str) -> SimpleNamespace:
    """A command line as `benchmark_model` takes it apart, after its source."""
    program, *words = shlex.split(command)
    assert program == "benchmark_model"
    given = dict(word.removeprefix("--").split("=", 1) for word in words)
    files = {}
    for item in given["input_layer_value_files"].split(","):
        # A single colon parts name and file; two stand for one.
        parts = re.split(r"(?<!:)(?:::)*:(?!:)", item)
        assert len(parts) == 2
        name, file = (part.replace("::", ":") for part in parts)
        files[name] = file
    return SimpleNamespace(
        given=given, files=files, names=given["input_layer"].split(","),
        shapes=[list(map(int, shape.split(",")))
                for shape in given["input_layer_shape"].split(":")])


def computed(found: SimpleNamespace) -> np.ndarray:
    """What the graph gives for the files, taken in the order of its inputs."""
    interpreter = LiteRT(found.given["graph"], num_threads=1)
    details = interpreter.get_input_details()
    assert [detail["name"] for detail in details] == found.names == [*found.files]
    for detail, shape in zip(details, found.shapes, strict=True):
        interpreter.resize_tensor_input(detail["index"], shape)
    interpreter.allocate_tensors()
    for detail, name, shape in zip(details, found.names, found.shapes, strict=True):
        with open(found.files[name], "rb") as file:
            values = np.frombuffer(file.read(), "<i4")
        interpreter.set_tensor(detail["index"], values.reshape(shape))
    interpreter.invoke()
    signature = interpreter._get_full_signature_list()["serving_default"]
    return interpreter.get_tensor(signature["outputs"]["logits"])[0]


@pytest.mark.parametrize("flags, pair, tokens", [
    ([], None, None), ([f"--text_pair={PAIR}"], PAIR, None),
    (["--tokens=17"], None, 17),
    ([f"--text_pair={PAIR}", "--tokens=30"], PAIR, 30)])
def test_the_files_give_the_models_own_logits(bundle, tmp_path, flags, pair, tokens):
    place = tmp_path / "bench : here"
    done = run("bench", f"--bundle={bundle}", f"--text={TEXT}", f"--out_dir={place}",
               "--num_runs=7", "--num_threads=2", *flags)
    command = (place / "command.txt").read_text()
    assert done.stdout.endswith(command)
    found = parsed(command)
    assert (found.given["num_runs"], found.given["num_threads"]) == ("7", "2")
    assert len(found.names) == 3
    tokenizer = data.tokenizer_from(bundle)
    times = tokens or 1
    encoded = tokenizer.encode([" ".join([TEXT] * times)], pair and [
        " ".join([pair] * times)], max_length=tokens or 32)
    assert found.shapes == [[1, len(encoded.ids[0])]] * 3
    assert tokens in (None, len(encoded.ids[0]))
    own = Interpreter(bundle / "model.tflite", num_threads=1, known=True).run(
        encoded.ids[0], encoded.first_lengths[0])
    np.testing.assert_array_equal(computed(found), own)


def test_inputs_of_a_fixed_length_are_filled_up(bert, bundle, tmp_path):
    file = tmp_path / "fixed.tflite"
    file.write_bytes(tflite.convert(bert, "dynamic_wi8_afp32", length=20))
    run("bench", f"--artifact={file}", f"--text_dir={bundle}", f"--text={TEXT}",
        f"--out_dir={tmp_path}")
    found = parsed((tmp_path / "command.txt").read_text())
    assert found.shapes == [[1, 20]] * 3
    ids, = data.tokenizer_from(bundle).encode([TEXT]).ids
    own = Interpreter(file, num_threads=1, known=True).run(ids)
    np.testing.assert_array_equal(computed(found), own)


def test_on_a_device_paths_are_the_devices(bundle, tmp_path):
    run("bench", f"--artifact={bundle / 'model.tflite'}", f"--out_dir={tmp_path}",
        "--device_dir=/data/local/tmp/")
    found = parsed((tmp_path / "command.txt").read_text())
    assert found.given["graph"] == "/data/local/tmp/model.tflite"
    assert sorted(found.files.values()) == [
        f"/data/local/tmp/{name}.bin"
        for name in ("attention_mask", "input_ids", "token_type_ids")]


def test_what_cannot_be_timed_is_one_sentence(bundle, tmp_path):
    (tmp_path / "other.tflite").write_bytes(b"TFL3" * 9)
    for flags, said in (
            ([], "One of --bundle and --artifact"),
            ([f"--artifact={bundle}"], "runs a .tflite alone"),
            ([f"--artifact={tmp_path / 'other.tflite'}"], "The .tflite is damaged"),
            ([f"--bundle={bundle}", "--tokens=41"], "The model refuses the input"),
            ([f"--bundle={bundle}", "--tokens=9", "--text= "], "can be repeated"),
            ([f"--bundle={bundle}", "--device_dir=a,b"], "no comma")):
        done = run("bench", *flags, f"--out_dir={tmp_path / 'out'}", status=1)
        assert said in done.stderr and "Received: " in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


def test_a_signature_of_other_inputs_is_refused(bundle, monkeypatch):
    monkeypatch.setattr(benchmark_inputs, "INPUT_NAMES", ("input_ids",))
    with pytest.raises(ValueError, match="Inputs must be of input_ids.* Received: "):
        benchmark_inputs.tensors(bundle / "model.tflite")
