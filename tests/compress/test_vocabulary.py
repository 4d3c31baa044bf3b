"""Rows of the token embedding that go, and the texts that do not notice."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfopt import compress, data, report
from tfopt import model as models
from tfopt.backend import keras
from tfopt.compress import Context, Recipe
from tfopt.compress.passes.magnitude import Magnitude
from tfopt.compress.passes.student import Student
from tfopt.compress.passes.vocabulary import Vocabulary
from tfopt.export.interpreter import Interpreter
from tfopt.train import Distillation, Settings

SCRIPT = Path(__file__).parents[2] / "experiments" / "compress.py"
TEXTS = ["a great film", "not bad, really", "it is great!", "the movie was awful"]
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@pytest.fixture(scope="module")
def wordpiece(tiny_dir):
    return data.WordPiece.from_directory(tiny_dir)


def batches(wordpiece, texts, **options) -> data.Batches:
    return data.Batches(wordpiece.encode(texts), [n % 3 for n in range(len(texts))],
                        batch_size=2, **options)


@pytest.fixture
def context(wordpiece) -> Context:
    return Context(train=batches(wordpiece, TEXTS, shuffle_seed=0),
                   dev=batches(wordpiece, ["a good film", "great"]),
                   settings=Settings(epochs=2, learning_rate=1e-3),
                   resources={"tokenizer": wordpiece})


def run(model, context, *passes):
    return compress.run(model, Recipe(passes=passes or (Vocabulary(),)), context)


def inputs(encoded: data.Encoded) -> dict:
    found, = data.Batches(encoded, batch_size=len(encoded.ids)).each_once()
    back = np.argsort(found[0])
    return {name: values.numpy()[back] for name, values in found[1].items()}


def pieces(wordpiece, text) -> list[str]:
    return [wordpiece.words[i] for i in wordpiece.encode([text]).ids[0]]


def test_specials_single_characters_and_used_pieces_stay(
        tiny_model, context, wordpiece):
    outcome, = run(tiny_model, context)
    used = {word for text in TEXTS for word in pieces(wordpiece, text)}
    expected = [i for i, word in enumerate(wordpiece.words)
                if word in SPECIALS or word in used
                or len(word.removeprefix("##")) == 1]
    assert outcome.provides["tokenizer"].words == [wordpiece.words[i]
                                                   for i in expected]
    assert outcome.touched == ("token_embedding",)
    gone = set(wordpiece.words) - {wordpiece.words[i] for i in expected}
    assert {"good", "this", "##ing"} <= gone
    assert models.config_of(outcome.model) == models.config_of(tiny_model).replace(
        vocab_size=len(expected))
    np.testing.assert_array_equal(
        outcome.model.get_layer("token_embedding").get_weights()[0],
        tiny_model.get_layer("token_embedding").get_weights()[0][expected])


def test_texts_of_the_corpus_have_the_same_pieces_and_logits(
        tiny_model, context, wordpiece, tmp_path):
    outcome, = run(tiny_model, context)
    outcome.provides["tokenizer"].save(tmp_path)
    small = data.WordPiece.from_directory(tmp_path)
    assert small.lowercase == wordpiece.lowercase
    assert small.vocab_size == models.config_of(
        outcome.model).vocab_size < wordpiece.vocab_size
    for text in TEXTS:
        assert pieces(small, text) == pieces(wordpiece, text)
    before, after = wordpiece.encode(TEXTS), small.encode(TEXTS)
    assert after.ids != before.ids
    np.testing.assert_array_equal(outcome.model(inputs(after)),
                                  tiny_model(inputs(before)))


@pytest.mark.parametrize(("text", "before", "after"), [
    ("good", ["good"], ["g", "##o", "##o", "##d"]),
    ("filming", ["film", "##ing"], ["film", "##i", "##n", "##g"]),
    ("great", ["great"], ["great"]),
    ("[MASK] é", ["[MASK]", "e"], ["[MASK]", "e"]),
    ("☕", ["[UNK]"], ["[UNK]"]),
])
def test_other_words_are_spelled_out(
        tiny_model, context, wordpiece, text, before, after):
    outcome, = run(tiny_model, context)
    small = outcome.provides["tokenizer"]
    assert pieces(wordpiece, text) == ["[CLS]", *before, "[SEP]"]
    assert pieces(small, text) == ["[CLS]", *after, "[SEP]"]


@pytest.mark.parametrize(("words", "removable"), [
    (["a", "##b", "ab"], {6}),
    (["a", "b", "ab", "##ab"], set()),  # there is no "##b" to spell them by
    (["a", "##a", "##b", "##ab"], {7}),
    (["é", "##x", "éx", "xé"], {6}),
    (["[unused1]", "#", "##"], set()),
])
def test_what_single_characters_do_not_spell_stays(tmp_path, words, removable):
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words]) + "\n")
    assert data.WordPiece(file).removable() == dict.fromkeys(removable, 1)


def test_rows_beyond_the_vocabulary_are_passed_over(wordpiece):
    assert wordpiece.keeping([*range(103), 103, 107]).words == wordpiece.words


def test_a_tokenizer_needs_its_special_tokens(wordpiece):
    with pytest.raises(ValueError, match=r"rows without \[CLS\], \[PAD\]$"):
        wordpiece.keeping([1, 3, 5])


def test_passes_that_follow_read_the_new_ids(tiny_model, context, wordpiece):
    """Their training is, to the bit, that with texts encoded anew."""
    pruning = Magnitude(final_sparsity=0.5)
    old = dataclasses.replace(context, dev=None)
    first, second = run(tiny_model, old, Vocabulary(), pruning)
    small = first.provides["tokenizer"]
    new = dataclasses.replace(old, train=batches(small, TEXTS, shuffle_seed=0))
    expected, = run(first.model, new, pruning)
    for ours, theirs in zip(second.model.get_weights(), expected.model.get_weights(),
                            strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_the_context_is_left_with(tiny_model, context, wordpiece):
    outcome, = run(tiny_model, dataclasses.replace(context, teacher=tiny_model))
    small = outcome.provides["tokenizer"]
    changed = context.replaced(outcome.provides)
    assert changed.get("tokenizer") is small
    assert set(outcome.provides) == {"train", "dev", "teacher", "tokenizer"}
    expected = inputs(small.encode(TEXTS))["input_ids"]
    for index, found in changed.train.each_once():
        ids = found["input_ids"].numpy()
        np.testing.assert_array_equal(ids, expected[index][:, :ids.shape[1]])
    (dev, _), = changed.dev.dataset()
    assert [small.words[i] for i in dev["input_ids"].numpy()[1][:5]] == [
        "[CLS]", "a", "[UNK]", "film", "[SEP]"]
    np.testing.assert_array_equal(changed.teacher(inputs(small.encode(TEXTS))),
                                  tiny_model(inputs(wordpiece.encode(TEXTS))))


def test_words_of_texts_that_the_teacher_alone_judges_stay(tiny_model, context,
                                                           wordpiece):
    more = dataclasses.replace(context, teacher=tiny_model,
                               transfer_set=batches(wordpiece, [*TEXTS, "a good film"]))
    (alone,), (outcome,) = run(tiny_model, context), run(tiny_model, more)
    good, = wordpiece.encode(["good"]).ids[0][1:-1]
    good = wordpiece.words[good]
    assert good in outcome.provides["tokenizer"].words
    assert good not in alone.provides["tokenizer"].words
    small = outcome.provides["tokenizer"]
    changed = more.replaced(outcome.provides)
    expected = inputs(small.encode([*TEXTS, "a good film"]))["input_ids"]
    for index, found in changed.training_set.each_once():
        ids = found["input_ids"].numpy()
        np.testing.assert_array_equal(ids, expected[index][:, :ids.shape[1]])


def test_a_teachers_kept_logits_are_those_of_the_new_batches(
        tiny_model, context, tmp_path):
    taught = dataclasses.replace(
        context, teacher=tiny_model, teacher_logits_dir=tmp_path,
        distillation=Distillation(hard_weight=0.5))
    cached = run(tiny_model, taught, Vocabulary(), Student(layers=2, epochs=1))[1]
    note, = tmp_path.glob("*.json")
    kept = np.fromfile(note.with_suffix(".float16"), "<f2").reshape([-1, 3])
    for index, x in context.train.each_once():
        np.testing.assert_allclose(kept[index], tiny_model(x), atol=5e-3)
    assert json.loads(note.read_text())["texts"] != context.train.fingerprint()
    live = run(tiny_model, dataclasses.replace(taught, teacher_logits_dir=None),
               Vocabulary(), Student(layers=2, epochs=1))[1]
    for ours, theirs in zip(cached.model.get_weights(), live.model.get_weights(),
                            strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_a_remainder_that_an_epoch_leaves_out_is_used_too(tiny_model, context,
                                                          wordpiece):
    train = batches(wordpiece, [*TEXTS, "good"], shuffle_seed=0, drop_remainder=True)
    outcome, = run(tiny_model, dataclasses.replace(context, train=train))
    assert "good" in outcome.provides["tokenizer"].words


@dataclasses.dataclass
class Removable:
    """A tokenizer that says that it can do without these."""

    tokens: dict

    def removable(self):
        return self.tokens


@pytest.mark.parametrize(("changes", "message"), [
    ({"tokenizer": Removable({5: 5})}, r"with \[5\] on both sides$"),
    ({"tokenizer": Removable({5: 103})}, r"model's 103 rows. Received: \[103\]$"),
    ({"tokenizer": Removable({})}, "Received: 103 rows, all in use"),
    ({"teacher": 99}, "a teacher of 99 and a student of 103 entries$"),
    ({"tokenizer": None}, "needs tokenizer. Received: "),
])
def test_what_does_not_fit_is_refused(tiny_model, context, changes, message):
    if "teacher" in changes:
        config = models.config_of(tiny_model)
        changes = {"teacher": models.build(config.replace(vocab_size=99))}
    with pytest.raises(ValueError, match=message):
        run(tiny_model, context.replaced(changes))


def test_a_model_without_a_token_embedding_is_refused(context):
    entry = keras.Input([4])
    with pytest.raises(ValueError, match="encoder made by tfopt. Received: "):
        run(keras.Model(entry, keras.layers.Dense(2)(entry)), context)


def test_a_run_leaves_the_smaller_tokenizer_and_uses_it(tiny_dir, tmp_path):
    """Resumed as well: the second run finds the model made, and the rest to do."""
    rows = [f"{text}\t{label}\n" for text, label in zip(
        ["a great film", "not bad", "it is awful", "really great"] * 4,
        ["good", "fine", "bad", "good"] * 4, strict=True)]
    (tmp_path / "train.tsv").write_text("text\tlabel\n" + "".join(rows))
    (tmp_path / "dev.tsv").write_text("text\tlabel\na good film\tgood\n" + rows[1])
    (tmp_path / "mine.json").write_text(
        '{"passes": [{"pass": "vocabulary"}], "exports": ["float32"]}')
    out = tmp_path / "out"
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, str(SCRIPT), f"--model_dir={tiny_dir}", "--smoke",
             f"--train_file={tmp_path / 'train.tsv'}", f"--out_dir={out}",
             f"--dev_file={tmp_path / 'dev.tsv'}", "--max_length=32",
             f"--recipe={tmp_path / 'mine.json'}"],
            capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
    full = data.WordPiece.from_directory(tiny_dir)
    for place in (out, out / "keras"):
        small = data.WordPiece.from_directory(place)
        assert "good" not in small.words and "film" in small.words
    assert data.WordPiece.from_directory(out / "baseline").words == full.words
    runner = Interpreter(out / "model.tflite", encoder=small)
    texts = ["a great film", "really not bad"]
    before = models.load(out / "baseline")
    np.testing.assert_allclose(runner.predict(texts), before(inputs(full.encode(
        texts))), atol=1e-5)
    read = models.load(out / "keras")(inputs(small.encode(["a good film", "not bad"])))
    _, figures = report.from_json((out / "report.json").read_text())
    accuracy = {row.artifact: row.value for row in figures if row.metric == "accuracy"}
    assert accuracy["float32"] == np.mean(np.argmax(read, axis=1) == [2, 1])
    said = (out / "report.md").read_text()
    assert f"{small.vocab_size} of 103 rows of the token embedding stay" in said
    assert "dev has 12 tokens, and had 9" in said
