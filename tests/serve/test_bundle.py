"""A bundle: answers as the model gives them, from threads too; files that are wrong."""

from __future__ import annotations

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tfopt import data, model, tasks
from tfopt.export import tflite
from tfopt.export.interpreter import Interpreter
from tfopt.files import digest
from tfopt.serve import Bundle

TASK = tasks.named("classification")(labels=("bad", "fine", "good"))
TEXTS = ["a great film", "bad", "it was not really good, this movie!", ""]
SCHEME = "float32"


@pytest.fixture(scope="module")
def tokenizer(tiny_dir):
    return data.tokenizer_from(tiny_dir)


@pytest.fixture(scope="module")
def contents():
    """A model of three classes, its weights large enough to tell texts apart."""
    return tflite.convert(model.build(
        model.EncoderConfig.uniform(
            hidden_size=8, num_layers=1, num_heads=2, intermediate_size=8,
            vocab_size=103, max_positions=64, initializer_range=0.5),
        TASK.head()))


@pytest.fixture(scope="module")
def written(contents, tokenizer, tmp_path_factory):
    place = tmp_path_factory.mktemp("bundles") / "run"
    Bundle.write(place, task=TASK, tokenizer=tokenizer, max_length=12, scheme=SCHEME,
                 model=contents, figures={"accuracy": 0.5, "nothing": np.nan},
                 source={"model": "tiny", "recipe": {"passes": []}})
    return place


@pytest.fixture(scope="module")
def bundle(written):
    return Bundle.open(written, num_threads=1)


@pytest.fixture
def copy(written, tmp_path):
    return shutil.copytree(written, tmp_path / "copy")


def first_edition(place, tiny_dir, contents):
    place.mkdir()
    (place / "model.tflite").write_bytes(contents)
    (place / "labels.txt").write_text("bad\nfine\ngood\n")
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(tiny_dir / name, place)
    return place


def test_answers_are_those_of_the_model(bundle, written, tokenizer):
    interpreter = Interpreter(written / "model.tflite", encoder=tokenizer)
    logits = interpreter.predict(TEXTS)
    np.testing.assert_array_equal(bundle.outputs(TEXTS), logits)
    answers = bundle.predict(TEXTS)
    for row, answer in zip(logits, answers, strict=True):
        chances = np.exp(row) / np.exp(row).sum()
        assert answer["label"] == TASK.labels[int(row.argmax())]
        assert answer["score"] == pytest.approx(chances.max(), abs=1e-6)
        assert answer["scores"] == pytest.approx(
            dict(zip(TASK.labels, chances, strict=True)), abs=1e-6)
    assert len({answer["score"] for answer in answers}) == len(TEXTS)


def test_pairs_and_long_texts_are_read_as_the_tokenizer_cuts_them(
        bundle, written, tokenizer):
    interpreter = Interpreter(written / "model.tflite")
    first, second = ["a great film " * 9] * 2, ["bad", "good " * 9]
    encoded = tokenizer.encode(first, second, max_length=12)
    assert encoded.truncated == 2
    np.testing.assert_array_equal(
        bundle.outputs(first, second),
        interpreter.logits(encoded.ids, encoded.first_lengths))


def test_that_texts_are_cut_is_said_once(written, caplog):
    bundle = Bundle.open(written, num_threads=1)
    for text in ("bad", "good " * 20, "bad " * 20):
        bundle.predict([text])
    assert [record.getMessage() for record in caplog.records] == [
        "Texts are cut to 12 tokens; the rest of them has no part in the answer"]


def test_no_texts_have_no_answers(bundle):
    assert bundle.predict([]) == []
    assert bundle.outputs([]).shape == (0, 3)


@pytest.mark.parametrize(("texts", "pairs", "received"), [
    ("so bad", None, "texts='so bad'"), (["a"], "b", "pairs='b'"),
    (["\udc80"], None, r"'\udc80'"), (["a"], [], "1 texts, 0 pairs")])
def test_what_is_no_list_of_texts_is_refused(bundle, texts, pairs, received):
    with pytest.raises(ValueError) as refusal:
        bundle.predict(texts, pairs)
    assert str(refusal.value).endswith(f"Received: {received}")


def test_threads_get_what_one_gets(bundle):
    texts = [" ".join(TEXTS[:1 + n % 3]) for n in range(240)]
    alone = [bundle.predict([text])[0] for text in texts]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda text: bundle.predict([text])[0], texts))
    assert together == alone


def test_the_file_says_what_the_bundle_is(bundle, written):
    said = json.loads((written / "bundle.json").read_text(encoding="utf-8"))
    assert bundle.fields == said
    hashes = said.pop("files")
    assert said == {
        "format": 2, "max_length": 12, "scheme": SCHEME,
        "task": {"task": "classification", "labels": ["bad", "fine", "good"]},
        "figures": {"accuracy": 0.5},
        "source": {"model": "tiny", "recipe": {"passes": []}}}
    assert hashes == {name: digest(written / name) for name in (
        "model.tflite", "tokenizer.json", "tokenizer_config.json", "vocab.txt")}
    assert data.read_labels(written / "labels.txt") == ["bad", "fine", "good"]
    assert (bundle.task, bundle.max_length) == (TASK, 12)
    assert bundle.tokenizer.vocab_size == 103


def test_a_model_that_is_there_becomes_a_bundle(copy, tokenizer):
    before = Bundle.open(copy).outputs(TEXTS)
    other = tasks.named("classification")(labels=("c", "b", "a"))
    Bundle.write(copy, task=other, tokenizer=tokenizer, max_length=20, scheme=SCHEME)
    again = Bundle.open(copy)
    assert (again.task, again.max_length) == (other, 20)
    np.testing.assert_array_equal(again.outputs(TEXTS), before)
    assert data.read_labels(copy / "labels.txt") == ["c", "b", "a"]


def test_a_bundle_needs_a_model(tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"Received: no .*model\.tflite$"):
        Bundle.write(tmp_path, task=TASK, tokenizer=tokenizer, max_length=8,
                     scheme=SCHEME)
    assert not list(tmp_path.iterdir())


def test_a_directory_of_the_first_edition_opens(tiny_dir, contents, bundle, tmp_path):
    old = Bundle.open(first_edition(tmp_path / "old", tiny_dir, contents))
    assert (old.fields["format"], old.max_length, old.task) == (1, 128, TASK)
    assert old.predict(TEXTS[:2]) == bundle.predict(TEXTS[:2])


@pytest.mark.parametrize("name", ["model.tflite", "labels.txt", "vocab.txt"])
def test_a_missing_file_of_the_first_edition_is_named(name, tiny_dir, contents,
                                                      tmp_path):
    place = first_edition(tmp_path / "old", tiny_dir, contents)
    (place / name).unlink()
    with pytest.raises(ValueError, match=f"Received: .*old without .*{name}"):
        Bundle.open(place)


@pytest.mark.parametrize(("change", "received"), [
    ({"format": 3}, "a newer tfopt reads others. Received: {file} of format 3"),
    ({"format": "2"}, "the number `format`. Received: {file}"),
    ({"format": True}, "the number `format`. Received: {file}"),
    ({"task": "classification"}, "{file} with task='classification'"),
    ({"task": {"task": "poetry", "labels": []}}, "task='poetry' (the bundle {place})"),
    ({"task": {"task": "classification", "labels": [1]}}, "(the bundle {place})"),
    ({"task": {"task": "classification", "labels": ["a"]}},
     "1 outputs of its task, classification. Received: 3 outputs (the bundle {place})"),
    ({"max_length": "12"}, "{file} with max_length='12'"),
    ({"max_length": 0}, "{file} with max_length=0"),
    ({"max_length": 1 << 70}, "{file} with max_length=1180591620717411303424"),
    ({"files": None}, "{file} with files=None"),
    ({"files": {"../a": "b"}}, "{file} with '../a'"),
    ({"files": {"": "b"}}, "{file} with ''"),
    ({"files": {"a\0": "b"}}, "{file} with 'a\\x00'"),
    ({"files": {"model.tflite": 3}}, "{place}/model.tflite"),
])
def test_a_wrong_file_is_told_in_a_sentence(change, received, copy):
    file = copy / "bundle.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError) as refusal:
        Bundle.open(copy)
    assert str(refusal.value).endswith(received.format(file=file, place=copy))


@pytest.mark.parametrize("contents_", [b"", b"{", b"[2]", b"\xff", b"[" * 100_000])
def test_a_damaged_bundle_json_is_named(contents_, copy):
    (copy / "bundle.json").write_bytes(contents_)
    with pytest.raises(ValueError, match=r"Received: .*bundle\.json"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", ["model.tflite", "tokenizer.json", "vocab.txt"])
def test_a_damaged_or_missing_file_is_named(name, copy):
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[:-1] + b"?")
    with pytest.raises(ValueError, match=f"of another. Received: .*{re.escape(name)}$"):
        Bundle.open(copy)
    (copy / name).unlink()
    with pytest.raises(ValueError, match=f"missing. Received: .*{re.escape(name)}$"):
        Bundle.open(copy)


def test_no_directory_is_no_bundle(tmp_path):
    with pytest.raises(ValueError, match="must be a directory. Received: .*nowhere$"):
        Bundle.open(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="without model.tflite, labels.txt, a token"):
        Bundle.open(tmp_path)
