"""Copies whose replaced words a masked language model has found."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tfopt
from tfopt import data, model, train
from tfopt.data.augment import Draft
from tfopt.model import masked_lm
from tfopt.model.families import registry
from tfopt.pipeline import masked_words, trials
from tfopt.pipeline.masked_words import MaskedWords
from tfopt.pipeline.options import Data
from tfopt.pipeline.teacher_options import Teacher
from tfopt.pipeline.teachers import LoadedTeacher

GOLDENS = Path(__file__).parents[1] / "goldens"
WITH_WORDS = ("bert_tokens", "roberta")


def with_head(directory: Path, name: str = "bert_tokens", liked: str = "") -> Path:
    """A tiny checkpoint with a head that finds one word most likely everywhere."""
    shutil.copytree(GOLDENS / f"tiny_{name}", directory)
    dense, norm, output = registry.all_families()[name.partition("_")[0]].masked_lm
    tensors = load_file(directory / "model.safetensors")
    words = data.tokenizer_from(directory).words
    bias = np.zeros(len(words), np.float32)
    if liked:
        bias[words.index(liked)] = 100.0
    save_file(tensors | {
        f"{dense}.weight": np.eye(32, dtype=np.float32),
        f"{dense}.bias": np.zeros(32, np.float32),
        f"{norm}.weight": np.ones(32, np.float32),
        f"{norm}.bias": np.zeros(32, np.float32), f"{output}.bias": bias,
    }, directory / "model.safetensors")
    return directory


def two_words(path: Path) -> list[str]:
    return list(masked_words.whole_words(data.tokenizer_from(path)).values())[:2]


def drafts(count: int) -> list[Draft]:
    return [Draft(tuple(f"w{i}" for i in range(2 + row % 5)), (1,) if row % 3 else ())
            for row in range(count)]


@pytest.mark.parametrize("name", WITH_WORDS)
def test_the_most_likely_word_fills_every_gap(name, tmp_path):
    word = two_words(GOLDENS / f"tiny_{name}")[0]
    liked = f"Ġ{word}" if name == "roberta" else word
    find = MaskedWords(with_head(tmp_path / "mlm", name, liked), tmp_path / "kept", 32)
    draft = Draft(("one", "two", "three"), (0, 2))
    assert find([draft, Draft(("one",)), draft], frozenset()) == [
        [word, word], [], [word, word]]
    assert draft.filled([word, word]) == f"{word} two {word}"


def test_neither_banned_words_nor_the_old_one_are_taken(tmp_path):
    word, other = two_words(GOLDENS / "tiny_bert_tokens")
    find = MaskedWords(with_head(tmp_path / "mlm", liked=word), tmp_path / "kept", 32)
    same, = find([Draft((word, "x"), (0,))], frozenset())
    assert same != [word]
    banned, = find([Draft((other, "x"), (0,))], frozenset([word.lower()]))
    assert banned[0].lower() not in (word.lower(), other.lower())


def test_words_behind_the_length_stay(tmp_path):
    word, _ = two_words(GOLDENS / "tiny_bert_tokens")
    find = MaskedWords(with_head(tmp_path / "mlm", liked=word), tmp_path / "kept", 4)
    assert find([Draft(("a", "b", "c"), (1, 2))], frozenset()) == [[word, "c"]]
    assert find([Draft(("a", "b", "c"), (2,))], frozenset()) == [["c"]]


def test_a_killed_run_goes_on_to_the_same_words(tmp_path, monkeypatch):
    path = with_head(tmp_path / "mlm")
    whole = MaskedWords(path, tmp_path / "whole", 32, seed=3)(drafts(300), frozenset())
    assert len({words[0] for words in whole if words}) > 5
    assert MaskedWords(path, tmp_path / "other", 32, seed=4)(
        drafts(300), frozenset()) != whole

    calls, logits = [], masked_lm.MaskedLM.logits

    def killed(self, *arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return logits(self, *arguments)

    find = MaskedWords(path, tmp_path / "kept", 32, seed=3)
    monkeypatch.setattr(masked_lm.MaskedLM, "logits", killed)
    with pytest.raises(KeyboardInterrupt):
        find(drafts(300), frozenset())
    kept, = (tmp_path / "kept").iterdir()
    with open(kept, "a", encoding="utf-8") as file:
        file.write('["half a li')
    assert find(drafts(300), frozenset()) == whole
    assert len(calls) == 3 + 2  # of four batches the first two were kept
    assert find(drafts(300), frozenset()) == whole and len(calls) == 5
    assert len([json.loads(line) for line in kept.read_text().splitlines()]) == 200


def test_a_tokenizer_without_words_is_refused(tmp_path):
    with pytest.raises(ValueError, match="head it was pretrained with"):
        MaskedWords(GOLDENS / "tiny_bert_tokens", tmp_path, 32)(
            drafts(5), frozenset())


@pytest.fixture
def tuning(tmp_path, tiny_dir) -> tfopt.Job:
    file = tmp_path / "train.tsv"
    file.write_text("text\tlabel\n" + "so very fine a film\tgood\n" * 30
                    + "so very poor a film\tbad\n" * 30)
    return tfopt.Job(
        model=tiny_dir, train=file, dev=file, data=Data(max_length=12),
        out_dir=tmp_path / "out", teacher=Teacher(
            augment=2, augment_model=with_head(tmp_path / "mlm", "roberta")))


def test_copies_have_the_words_that_were_found(tuning, tmp_path, tiny_dir):
    plain = tuning.dataset()
    _, _, found = trials.chosen(tuning, train.Distillation(), plain, LoadedTeacher(
        model=model.load(tiny_dir)), tmp_path / "state")
    assert len(found.texts) == len(plain.texts) == 3 * 60
    assert found.texts.texts[:60] == plain.texts.texts[:60]
    words = {word for text in found.texts.texts for word in text.split()}
    own = {word for text in plain.texts.texts for word in text.split()}
    known = masked_words.whole_words(data.tokenizer_from(tuning.teacher.augment_model))
    assert words - own and words - own <= set(known.values())
    assert not any({"fine", "poor"} <= set(text.split()) for text in found.texts.texts)
    assert "a masked language model found the words" in " ".join(found.notes)
    assert len(list((tmp_path / "state" / "copies").glob("*.words.jsonl"))) == 2


def test_the_teacher_finds_words_where_it_has_the_head(tuning, tiny_dir, tmp_path):
    own = with_head(tmp_path / "teacher")
    for teacher, expected in ((own, own), (tiny_dir, None), (None, None)):
        changed = dataclasses.replace(
            tuning, teacher=Teacher(teacher=teacher, augment=2))
        assert masked_words.named(changed) == expected


def test_a_model_that_finds_no_words_is_refused_before_any_work(tuning, tiny_dir):
    wrong = dataclasses.replace(tuning, teacher=Teacher(
        augment=2, augment_model=tiny_dir))
    with pytest.raises(ValueError, match="head it was pretrained with"):
        wrong.load_teacher(train.Distillation(), tuning.dataset())
    with pytest.raises(ValueError, match="--augment.*Received: --augment_model_dir=x"):
        Teacher(augment_model="x")
