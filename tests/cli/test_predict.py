"""`predict`: texts from flags, files and standard input; answers."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from scripts import command, process, run

from tfopt import data
from tfopt.export.interpreter import Interpreter, softmax


@pytest.fixture
def predict(resumed):
    def run_it(*flags, stdin=None):
        done = run("predict", f"--artifact={resumed.out / 'model.tflite'}", *flags,
                   stdin=stdin)
        return [json.loads(line) for line in done.stdout.split("\n") if line]

    return run_it


TEXTS = ["great, really good", "bad bad awful"]


def test_predict_takes_flags_a_file_and_standard_input(predict, tmp_path):
    by_flags = predict(*(f"--text={text}" for text in TEXTS))
    assert [line["text"] for line in by_flags] == TEXTS
    assert [line["label"] for line in by_flags] == ["good", "bad"]
    lines = "".join(f"{text}\n" for text in TEXTS)
    file = tmp_path / "texts.txt"
    file.write_text(lines)
    assert predict(f"--input_file={file}") == by_flags
    assert predict(stdin=lines) == by_flags


def test_predict_needs_no_tensorflow_and_takes_a_bundle(predict, resumed,
                                                        no_tensorflow):
    texts = [f"--text={text}" for text in TEXTS]
    done = process("predict", f"--bundle={resumed.out}", *texts, env=no_tensorflow)
    assert [json.loads(line) for line in done.stdout.splitlines()] == predict(*texts)


def test_predict_reads_the_column_of_texts(predict, files):
    lines = predict(f"--input_file={files.dev}")
    assert [line["text"] for line in lines] == data.read(files.dev).texts


def test_a_text_above_the_positions_is_cut_with_one_warning(resumed, files):
    """The model has 64 positions; both texts are answered, and the one behind."""
    long = "good " * 100
    done = run("predict", f"--bundle={resumed.out}", "--max_length=100",
               f"--text={long}", f"--text={long}", "--text=bad bad awful")
    labels = [json.loads(line)["label"] for line in done.stdout.splitlines()]
    assert labels == ["good", "good", "bad"]
    assert done.stderr.count("cut to 64 tokens") == 1


def test_predict_ends_quietly_when_nobody_reads_on(resumed, tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("good\n" * 5000)  # more answers than a pipe holds
    with subprocess.Popen(
            command("predict", f"--artifact={resumed.out / 'model.tflite'}",
                    f"--input_file={file}"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert json.loads(process.stdout.readline())["label"] == "good"
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 1
    assert "predict.py" not in said and "BrokenPipe" not in said


@pytest.mark.parametrize("arguments", [[], ["--help"], ["compress", "--help"]])
def test_help_ends_quietly_when_nobody_reads_on(arguments):
    with subprocess.Popen(
            [sys.executable, "-m", "tfopt.cli", *arguments], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""


def test_predict_gives_the_probabilities_of_the_model(predict, resumed):
    line, = predict(f"--text={TEXTS[0]}")
    expected = softmax(Interpreter(
        resumed.out / "model.tflite", num_threads=2,
        encoder=data.WordPiece.from_directory(resumed.out)).predict([TEXTS[0]])[0])
    assert line["scores"] == pytest.approx(
        dict(zip(["bad", "fine", "good"], expected, strict=True)), abs=1e-4)
    assert list(line["scores"])[0] == line["label"] == "good"
    best, = predict(f"--text={TEXTS[0]}", "--top_k=1")
    assert list(best["scores"]) == ["good"]


def test_predict_keeps_odd_texts_apart(predict):
    odd = ["naïve ☕", "tab\there", "line\u2028separator"]
    assert [line["text"] for line in predict(
        stdin="".join(f"{text}\n" for text in odd))] == odd
