"""`predict` and `measure`: texts that no model can answer, or only in part."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import scripts

from tfopt import data, model, tasks
from tfopt.export import tflite
from tfopt.pipeline import text_side
from tfopt.serve import Bundle, answer_lines

TASK = tasks.named("classification")(labels=("bad", "fine", "good"))
POSITIONS = 12


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory, tiny_dir) -> Path:
    """One model as a bundle and as a Keras directory, both with their texts' side."""
    place = tmp_path_factory.mktemp("artifacts")
    small = model.build(model.EncoderConfig.uniform(
        hidden_size=8, num_layers=1, num_heads=2, intermediate_size=8, vocab_size=103,
        max_positions=POSITIONS), TASK.head())
    tokenizer = data.tokenizer_from(tiny_dir)
    Bundle.write(place / "bundle", task=TASK, tokenizer=tokenizer, max_length=64,
                 scheme="float32", model=tflite.convert(small, "float32"))
    model.save(small, place / "keras")
    text_side.write(place / "keras", tokenizer, TASK, 64)
    return place


@pytest.fixture(params=["--bundle=bundle", "--artifact=bundle/model.tflite",
                        "--artifact=keras"])
def flag(request, artifacts) -> str:
    name, _, value = request.param.partition("=")
    return f"{name}={artifacts / value}"


def lines(done) -> list[dict]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_an_empty_line_gets_no_label_and_the_rest_is_answered(flag):
    done = scripts.call("predict", flag, stdin="good\n\nbad\n \t\n", status=1)
    found = lines(done)
    assert [line["text"] for line in found] == ["good", "", "bad", " \t"]
    assert [sorted(line) for line in found] == [
        ["label", "score", "scores", "text"], ["error", "text"]] * 2
    assert found[1]["error"] == "A text must not be empty. Received: ''"
    assert done.stderr.splitlines()[-1] == (
        "predict.py: 2 of 4 texts have no answer. The first: A text must not be empty. "
        "Received: ''")


@pytest.mark.parametrize("artifact", ["model.tflite", "keras"])
def test_a_word_that_the_model_has_not_makes_no_text_shorter(artifact, tmp_path,
                                                            tiny_dir):
    small = model.build(model.EncoderConfig.uniform(
        hidden_size=8, num_layers=1, num_heads=2, intermediate_size=8, vocab_size=60,
        max_positions=POSITIONS), TASK.head())
    tokenizer = data.tokenizer_from(tiny_dir)
    unknown = tokenizer.words.index("film")
    assert tokenizer.words.index("b") < 60 <= unknown
    model.save(small, tmp_path / "keras")
    (tmp_path / "model.tflite").write_bytes(tflite.convert(small, "float32"))
    for place in (tmp_path, tmp_path / "keras"):
        text_side.write(place, tokenizer, TASK, 64)
    done = scripts.call("predict", f"--artifact={tmp_path / artifact}", status=1,
                        stdin="b b\nb film\nb b\n")
    first, refused, last = lines(done)
    assert first == last and "label" in first
    assert f"Received: 4 tokens, ids 2 to {unknown}" in refused["error"]
    assert "cut to" not in done.stderr


def test_a_byte_order_mark_is_no_part_of_the_first_text(artifacts):
    done = scripts.call("predict", f"--bundle={artifacts / 'bundle'}",
                        stdin="\ufeffgood\r\ngood\n", status=0)
    first, second = lines(done)
    assert first == second and first["text"] == "good"


def test_a_text_above_the_positions_is_cut_and_the_rest_is_answered(flag):
    done = scripts.call("predict", flag, "--max_length=40", status=0,
                        stdin=f"bad\n{'good ' * 30}\n{'film ' * 30}\nbad\n")
    first, *_, last = lines(done)
    assert len(lines(done)) == 4 and first == last
    assert done.stderr.count(f"cut to {POSITIONS} tokens") == 1


def test_a_model_of_a_fixed_length_cuts_to_it(artifacts, tmp_path, tiny_dir):
    small = model.load(artifacts / "keras")
    (tmp_path / "model.tflite").write_bytes(tflite.convert(small, "float32", length=8))
    text_side.write(tmp_path, data.tokenizer_from(tiny_dir), TASK, 64)
    done = scripts.call("predict", f"--artifact={tmp_path / 'model.tflite'}",
                        f"--text={'good ' * 30}", "--text=bad", status=0)
    assert [line["text"][:4] for line in lines(done)] == ["good", "bad"]
    assert "cut to 8 tokens" in done.stderr


def test_measure_refuses_a_length_above_the_positions(artifacts, tmp_path):
    file = tmp_path / "eval.tsv"
    file.write_text(f"text\tlabel\nbad\tbad\n{'good ' * 30}\tgood\n")
    for name in ("keras", "bundle/model.tflite"):
        done = scripts.call("measure", f"--artifact={artifacts / name}", "--smoke",
                            f"--eval_file={file}", "--max_length=40", status=1)
        assert "positions" in done.stderr.splitlines()[-1]
        assert "Received: " in done.stderr.splitlines()[-1]


def test_measure_says_how_many_texts_are_cut(artifacts, tmp_path):
    file, figures = tmp_path / "eval.tsv", tmp_path / "figures.json"
    file.write_text(f"text\tlabel\nbad\tbad\n{'good ' * 30}\tgood\n")
    done = scripts.call(
        "measure", f"--artifact={artifacts / 'bundle' / 'model.tflite'}", "--smoke",
        f"--eval_file={file}", "--max_length=10", f"--report={figures}", status=0)
    note = "1 of the file's 2 texts are cut to 10 tokens (--max_length)."
    assert done.stderr.count(note) == 1
    assert json.loads(figures.read_text())["environment"]["notes"] == [note]


@pytest.mark.parametrize("report", ["", "file/figures.json"])
def test_measure_knows_before_any_work_where_its_report_can_be(report, artifacts,
                                                              tmp_path):
    (tmp_path / "file").touch()
    done = scripts.call("measure", f"--artifact={artifacts / 'keras'}",
                        "--eval_file=nowhere.tsv", f"--report={tmp_path / report}",
                        status=1)
    assert "A file must be named" in done.stderr.splitlines()[-1]


def test_half_of_a_surrogate_pair_is_named_by_its_line(artifacts, tmp_path):
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "good"}\n{"text": "half \\ud83d"}\n')
    done = scripts.call("predict", f"--bundle={artifacts / 'bundle'}",
                        f"--input_file={file}", status=1)
    assert done.stdout == ""
    said = done.stderr.splitlines()[-1]
    assert "texts.jsonl:2: a line must be a JSON object. Received: " in said
    assert said.endswith(r"half of a character, '\ud83d'")


@pytest.mark.parametrize(("command", "argument"), [
    ("predict", "--text=\udcff"), ("compress", "--out_dir=\udcff")])
def test_an_argument_that_is_no_utf_8_is_refused_before_any_work(command, argument):
    more = [] if command == "compress" else ["--bundle=nowhere"]
    done = scripts.call(command, *more, argument, status=1)
    assert done.stderr.splitlines()[-1].startswith(
        f"{command}.py: Arguments must be valid UTF-8. Received: ")


def test_letters_that_the_terminal_has_not_are_written_by_number():
    assert answer_lines.line_of({"text": "día"}, "latin-1") == '{"text": "día"}'
    assert answer_lines.line_of({"text": "☕"}, "latin-1") == r'{"text": "\u2615"}'


def test_a_mistake_of_many_letters_is_told_in_few(artifacts, tmp_path):
    shutil.copytree(artifacts / "keras", tmp_path / "keras")
    (tmp_path / "keras" / "task.json").write_text(
        json.dumps({"task": "classification", "labels": ["x", 1] * 99_999}))
    done = scripts.call("predict", f"--artifact={tmp_path / 'keras'}", "--text=a",
                        status=1)
    assert len(done.stderr.splitlines()[-1]) < 2500
    done = scripts.call("predict", f"--artifact={tmp_path / 'keras'}",
                        "--text_dir=" + "long/" * 9999, "--text=a", status=1)
    assert done.stderr.splitlines()[-1].endswith(" letters)")
    assert len(done.stderr.splitlines()[-1]) < 2500
