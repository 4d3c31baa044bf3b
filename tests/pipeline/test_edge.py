"""Which exports of a run clients on devices open, and what is said of the others."""

from __future__ import annotations

import pytest

from tfopt import data, model, tasks
from tfopt.export import mediapipe, tflite
from tfopt.pipeline.edge import Clients
from tfopt.tasks import registry

LABELS = ("bad", "fine", "good")


@pytest.fixture(scope="module")
def contents(tiny_dir):
    return tflite.convert(model.load(tiny_dir))


@pytest.fixture(scope="module")
def tokenizer(tiny_dir):
    return data.tokenizer_from(tiny_dir)


def task(name: str, **fields) -> tasks.Task:
    return registry.named(name)(**fields)


@pytest.mark.parametrize("name", ["classification", "multi_label"])
def test_a_classifier_is_one_for_clients(name, contents, tokenizer):
    clients = Clients(task=task(name, labels=LABELS), tokenizer=tokenizer)
    assert not mediapipe.problems(clients.finished("float32", contents))
    assert clients.notes() == []


def test_nothing_is_added_where_nobody_wants_it(contents, tokenizer):
    clients = Clients(task=task("classification", labels=LABELS), tokenizer=tokenizer,
                      wanted=False)
    assert clients.finished("float32", contents) is contents
    assert clients.notes() == []


def test_what_is_left_out_is_said_once(contents, tokenizer, tmp_path):
    cased = data.WordPiece(_vocabulary(tokenizer, tmp_path), lowercase=False)
    clients = Clients(task=task("classification", labels=LABELS), tokenizer=cased)
    for scheme in ("float32", "float16"):
        assert clients.finished(scheme, contents) is contents
    assert clients.notes() == [
        "float32, float16: without metadata for MediaPipe's clients: they make texts "
        "lower case, and the vocabulary is cased."]


def _vocabulary(tokenizer, place):
    tokenizer.save(place)
    return place / "vocab.txt"


@pytest.mark.parametrize(("fields", "reason"), [
    ({"task": task("regression")}, "they have none for the task 'regression'"),
    ({"pairs": True}, "they read one text, not two"),
])
def test_tasks_that_clients_do_not_have(fields, reason, contents, tokenizer):
    clients = Clients(**{"task": task("classification", labels=LABELS),
                         "tokenizer": tokenizer, **fields})
    assert clients.why_not() == reason


@pytest.mark.parametrize(("family", "reason"), [
    ("tiny_roberta", "they know WordPiece alone, and the tokenizer is BPE"),
    ("tiny_mpnet", "they need [UNK], [CLS], [SEP]; the vocabulary lacks [CLS]"),
])
def test_tokenizers_that_clients_do_not_have(family, reason, contents,
                                               tiny_dir):
    found = data.tokenizer_from(tiny_dir.with_name(family))
    clients = Clients(task=task("classification", labels=LABELS), tokenizer=found)
    assert clients.why_not() == reason
