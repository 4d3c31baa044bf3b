"""What a worker takes at once: in which order it is computed; no text is lost."""

from __future__ import annotations

import threading

import pytest

from tfopt.serve import group, scheduler
from tfopt.serve.group import Waiting, in_order
from tfopt.serve.models import open_model
from tfopt.serve.request import Request
from tfopt.serve.scheduler import Scheduler


@pytest.fixture
def model(tiny_ladder):
    return open_model("tiny", 1, tiny_ladder, copies=2)


def waiting(model, texts, expected_s=1e-4, **fields):
    """Requests of a text each, as a worker takes them."""
    return [Waiting(Request(model=model, done=lambda: None, deadline_s=60.0,
                            texts=[text], **fields), 0, expected_s) for text in texts]


def taken(model, texts, tokens=0, **fields):
    """The texts in the order in which they are computed, and how many ids each has."""
    return [(item.request.texts[0], text and len(text.ids))
            for item, text in in_order(waiting(model, texts, **fields), tokens)]


def test_the_length_of_the_text_before_comes_first_then_by_length(model):
    texts = ["good good", "good", "good good good", "bad", "bad bad"]
    assert taken(model, texts) == [
        ("good", 3), ("bad", 3), ("good good", 4), ("bad bad", 4),
        ("good good good", 5)]
    assert [text for text, _ in taken(model, texts, tokens=4)] == [
        "good good", "bad bad", "good", "bad", "good good good"]


def test_texts_that_take_long_stay_in_the_order_of_their_arrival(model):
    texts = ["good good", "good"]
    assert [text for text, _ in taken(model, texts, expected_s=group.GROUP_S)] == texts


def test_one_text_is_left_to_be_read_alone(model):
    assert taken(model, ["good"]) == [("good", None)]


def test_a_group_is_read_in_one_call_of_its_tokenizer(model, monkeypatch):
    calls = []
    bundle = model.variants[0].bundle
    encode = bundle.encode
    monkeypatch.setattr(bundle, "encode", lambda texts, pairs=None: (
        calls.append((texts, pairs)), encode(texts, pairs))[1])
    ids, = waiting(model, [""], ids=[([2, 7, 3], 3)])
    items = [*waiting(model, ["good", "bad"]), ids,
             *waiting(model, ["a"], pairs=["film"])]
    ids.request.texts = ()
    found = dict(in_order(items, 0))
    assert calls == [(["good", "bad"], None), (["a"], ["film"])]
    assert found[ids].ids == [2, 7, 3]
    assert found[items[3]].first_length == 3


def test_what_cannot_be_read_or_is_cut_is_read_alone(model):
    assert dict(taken(model, ["good", "\ud800"])) == {"good": None, "\ud800": None}
    assert dict(taken(model, ["good", "bad " * 100])) == {"good": 3, "bad " * 100: None}


@pytest.fixture
def held(model, monkeypatch):
    """A worker that a first text keeps busy until `go` is set; and what it took."""
    go, busy, groups = threading.Event(), threading.Event(), []

    def wait(items, tokens):
        groups.append(len(items))
        if len(groups) == 1:
            busy.set()
            assert go.wait(60)
        return in_order(items, tokens)

    monkeypatch.setattr(scheduler, "in_order", wait)
    threads = Scheduler(1, 64)
    requests = []

    def ask(text, **fields):
        done = threading.Event()
        requests.append((Request(model=model, done=done.set, texts=[text],
                                 **{"deadline_s": 60.0, **fields}), done))
        threads.submit(requests[-1][0])
        return requests[-1][0]

    def answered():
        go.set()
        assert all(done.wait(60) for _, done in requests)
        threads.close()
        return groups

    ask("a")
    assert busy.wait(60)
    return ask, answered


def test_answers_of_a_group_are_those_of_each_text_alone(held, model, bundles):
    ask, answered = held
    texts = ["good " * (1 + i % 4) for i in range(9)] + ["bad " * 100]
    for variant in model.variants:  # which take a thousandth of GROUP_S, not what is
        variant.times.value = lambda *_: 1e-6  # measured on a busy machine
    requests = [ask(text) for text in texts]
    assert answered() == [1, 10]
    for request, text in zip(requests, texts, strict=True):
        assert request.answers[0].fields == bundles["whole"].predict([text])[0]
    cut = [request.answers[0].truncated for request in requests]
    assert cut == [False] * 9 + [True]


def test_an_error_of_one_text_does_not_hit_the_others_of_its_group(held, model):
    ask, answered = held
    for variant in model.variants:
        variant.times.value = lambda *_: 1e-6
    wrong, *others = ask("\ud800"), *(ask("good") for _ in range(3))
    late = ask("bad", deadline_s=1e-4)
    threading.Event().wait(0.01)
    assert answered() == [1, 5]
    assert isinstance(wrong.error, ValueError)
    assert late.error.reason == "late"
    assert all(request.error is None for request in others)


def test_texts_that_take_long_are_taken_one_by_one(held, model):
    ask, answered = held
    for variant in model.variants:
        variant.times.value = lambda *_: group.GROUP_S
    for _ in range(3):
        ask("good")
    assert answered() == [1, 1, 1, 1]


def test_each_worker_leaves_the_others_their_share(model, monkeypatch):
    for variant in model.variants:
        variant.times.value = lambda *_: 1e-6
    go, busy, groups = threading.Event(), threading.Semaphore(0), []

    def wait(items, tokens):
        groups.append(len(items))
        busy.release()
        assert go.wait(60)
        return in_order(items, tokens)

    monkeypatch.setattr(scheduler, "in_order", wait)
    threads, done = Scheduler(2, 64), threading.Event()
    for _ in range(2):
        threads.submit(Request(model=model, done=lambda: None, deadline_s=60.0,
                               texts=["a"]))
        assert busy.acquire(timeout=60)
    threads.submit(Request(model=model, done=done.set, deadline_s=60.0,
                           texts=["a"] * 7))
    go.set()
    assert done.wait(60)
    threads.close()
    assert groups[:3] == [1, 1, 3]
    assert sum(groups) == 9
