"""Which variant answers, who is refused, and that nothing taken in is lost."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from tfopt.serve import scheduler
from tfopt.serve.estimates import Estimates
from tfopt.serve.models import open_model
from tfopt.serve.refusal import Refusal
from tfopt.serve.request import Request
from tfopt.serve.scheduler import Scheduler, best_in_time

TEXTS = ["a great film", "bad", "it was not really good, this movie!"]


@pytest.fixture
def model(tiny_ladder):
    return open_model("tiny", 1, tiny_ladder, copies=2)


@pytest.fixture
def cascade(tiny_ladder):
    return open_model("tiny", 1, tiny_ladder, copies=2, cascade=True)


@pytest.fixture
def threads():
    made = Scheduler(2, 64)
    yield made
    made.close()


def asked(threads, model, texts=TEXTS, deadline_s=60.0, **fields):
    """The finished request of texts."""
    done = threading.Event()
    request = Request(model=model, done=done.set, deadline_s=deadline_s, texts=texts,
                      **fields)
    threads.submit(request)
    assert done.wait(60)
    return request


def of_seconds(*seconds):
    return [SimpleNamespace(name=str(number), times=Estimates({0: each}))
            for number, each in enumerate(seconds)]


@pytest.mark.parametrize(("room_s", "chosen"), [
    (1.0, "0"), (0.030, "1"), (0.011, "1"), (0.010, "2"), (0.001, "2"), (-5.0, "2")])
def test_the_best_variant_that_there_is_time_for_is_taken(room_s, chosen):
    variants = of_seconds(0.030, 0.010, 0.002)
    assert best_in_time(variants, room_s, 0, 0.0).name == chosen


@pytest.mark.parametrize("behind_s, chosen", [
    (0.0, "0"), (0.001, "0"), (0.002, "1"), (0.009, "1"), (0.010, "2")])
def test_who_takes_a_variant_has_the_time_to_answer_all_that_wait_by_it(behind_s,
                                                                        chosen):
    # 2 ms of the fastest's are one text more, for which the best would take 30 ms.
    variants = of_seconds(0.030, 0.010, 0.002)
    assert best_in_time(variants, 0.060, 0, 0.0, behind_s).name == chosen


def test_a_worker_that_is_slower_than_it_computes_is_known(threads, model):
    asked(threads, model, texts=TEXTS * 8)
    now = time.perf_counter()
    assert threads._busy.value(0, now) > 1.0  # tokenizing takes time, too
    threads._busy = Estimates({0: 1e6})
    with pytest.raises(Refusal, match="A request must be one that can be answered"):
        asked(threads, model, deadline_s=1.0)


def test_a_worker_that_was_slow_is_not_for_ever(threads, model):
    now = time.perf_counter()
    for _ in range(10):
        threads._busy.add(0, 1e6, now)
    assert threads._busy.value(0, now) > 10
    assert threads._busy.value(0, now + 60) < 1.1  # though nothing was computed


def test_who_can_wait_long_does_not_make_others_late(monkeypatch, model):
    monkeypatch.setattr(scheduler, "_BETTER", 0.35)
    monkeypatch.setattr(Estimates, "add", lambda *_: None)
    for variant, seconds in zip(model.variants, (11.0, 10.0), strict=True):
        monkeypatch.setattr(variant.times, "value", lambda *_, seconds=seconds: seconds)
    threads = Scheduler(1, 64)
    held = Held(monkeypatch, threads, model, count=1)
    patient = held.submit(threads, model, ["a"] * 2, deadline_s=1e6)
    held.submit(threads, model, deadline_s=60.0)  # it should have begun after 21 s
    held.answered()
    threads.close()
    assert [answer.variant.name for answer in patient.answers] == ["half", "half"]


def test_answers_are_those_of_the_best_variant_where_there_is_time(
        threads, model, bundles):
    request = asked(threads, model)
    assert request.error is None
    for answer, text in zip(request.answers, TEXTS, strict=True):
        assert answer.variant.name == "whole"
        np.testing.assert_array_equal(answer.outputs,
                                      bundles["whole"].outputs([text])[0])
        assert answer.fields == bundles["whole"].predict([text])[0]
        assert answer.ids == bundles["whole"].encode([text]).ids[0]
        assert 0 <= answer.queue_s < 60


def test_a_short_deadline_gets_the_fastest(threads, model, bundles, monkeypatch):
    monkeypatch.setattr(scheduler, "_BETTER", 0.0)
    request = asked(threads, model)
    assert [answer.variant.name for answer in request.answers] == ["half"] * 3
    assert [answer.fields for answer in request.answers] == bundles["half"].predict(
        TEXTS)


def test_a_named_variant_answers_whatever_time_there_is(threads, model, monkeypatch):
    monkeypatch.setattr(scheduler, "_BETTER", 0.0)
    request = asked(threads, model, variant=model.variant("whole"))
    assert {answer.variant.name for answer in request.answers} == {"whole"}


def test_a_cascade_hands_on_what_the_fastest_is_not_sure_of(threads, cascade, bundles):
    texts = [*TEXTS, "a film", "good", "not bad", "really", "this was great"]
    scores = [answer["score"] for answer in bundles["half"].predict(texts)]
    between = float(np.median(scores))
    expected = ["half" if score >= between else "whole" for score in scores]
    assert expected.count("whole") == 4
    request = asked(threads, dataclasses.replace(
        cascade, steps=((cascade.first, between),)), texts)
    assert [answer.variant.name for answer in request.answers] == expected
    assert [answer.fields for answer in request.answers] == [
        bundles[name].predict([text])[0]
        for name, text in zip(expected, texts, strict=True)]


def test_the_threshold_is_the_ladders(cascade, model):
    assert [(variant.name, threshold) for variant, threshold in cascade.steps] == [
        ("half", 0.6)]  # the fastest, where the ladder does not say
    assert model.steps == ()


def from_the_middle(model, threshold):
    """A cascade whose second of three variants answers first."""
    fastest = dataclasses.replace(model.variants[1], name="fastest")
    return dataclasses.replace(model, variants=(*model.variants, fastest),
                               steps=((model.variants[1], threshold),))


def test_the_first_is_the_ladders(threads, model, bundles):
    request = asked(threads, from_the_middle(model, 0.0))
    assert {answer.variant.name for answer in request.answers} == {"half"}


def test_a_chain_hands_on_from_one_to_the_next(threads, model):
    half = model.variants[1]
    fastest = dataclasses.replace(half, name="fastest")
    chain = dataclasses.replace(model, variants=(*model.variants, fastest))

    def answered_by(*thresholds):
        steps = tuple(zip((fastest, half), thresholds, strict=True))
        request = asked(threads, dataclasses.replace(chain, steps=steps))
        return {answer.variant.name for answer in request.answers}

    assert answered_by(0.0, 0.0) == {"fastest"}
    assert answered_by(2.0, 0.0) == {"half"}
    assert answered_by(2.0, 2.0) == {"whole"}


def test_where_there_is_no_time_for_the_first_the_fastest_answers(threads, model,
                                                                monkeypatch):
    monkeypatch.setattr(scheduler, "_BETTER", 0.0)
    request = asked(threads, from_the_middle(model, 2.0))
    assert {answer.variant.name for answer in request.answers} == {"fastest"}


def test_a_cascade_without_time_keeps_the_first_answer(threads, cascade, monkeypatch):
    monkeypatch.setattr(scheduler, "_BETTER", 0.0)
    request = asked(threads, cascade)
    assert {answer.variant.name for answer in request.answers} == {"half"}


def test_a_cascade_needs_a_threshold(folder):
    file = folder / "tiny" / "ladder.json"
    fields = json.loads(file.read_text())
    del fields["cascade"]
    file.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="a threshold for it. Received: .*tiny$"):
        open_model("tiny", 1, folder / "tiny", copies=1, cascade=True)
    alone = open_model("one", 1, folder / "one", copies=1, cascade=True)
    assert alone.steps == ()


def test_a_text_that_is_cut_is_told(threads, model):
    request = asked(threads, model, ["a film", "good " * 100])
    assert [(answer.truncated, len(answer.ids)) for answer in request.answers] == [
        (False, 4), (True, 32)]


def test_pairs_and_ids_are_read_as_they_are(threads, model, bundles):
    request = asked(threads, model, ["a film"], pairs=["good"])
    whole = bundles["whole"]
    assert request.answers[0].fields == whole.predict(["a film"], ["good"])[0]
    encoded = whole.encode(["a film"], ["good"])
    ids = [(encoded.ids[0], encoded.first_lengths[0])]
    assert asked(threads, model, (), ids=ids).answers[0].fields == (
        request.answers[0].fields)


def test_what_the_model_refuses_is_told(threads, model):
    request = asked(threads, model, (), ids=[([2, 5_000, 3], 3)])
    assert isinstance(request.error, ValueError)
    assert "ids 2 to 5000" in str(request.error)
    assert asked(threads, model).error is None  # the threads live on


def test_a_failure_does_not_end_a_thread(threads, model, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(scheduler, "_answered", lambda *_: 1 / 0)
        for _ in range(4):
            assert isinstance(asked(threads, model).error, ZeroDivisionError)
    assert asked(threads, model).error is None


class Held:
    """Threads that are kept busy until `go` is set."""

    def __init__(self, monkeypatch, threads, model, count=2):
        self.go, busy = threading.Event(), threading.Semaphore(0)
        read = scheduler._read

        def wait(*arguments):
            busy.release()
            assert self.go.wait(60)
            return read(*arguments)

        monkeypatch.setattr(scheduler, "_read", wait)
        self.requests = []
        for _ in range(count):
            self.submit(threads, model)
            assert busy.acquire(timeout=60)

    def submit(self, threads, model, texts=("a",), deadline_s=60.0):
        done = threading.Event()
        request = Request(model=model, done=done.set, deadline_s=deadline_s,
                          texts=list(texts))
        threads.submit(request)
        self.requests.append((request, done))
        return request

    def answered(self):
        self.go.set()
        assert all(done.wait(60) for _, done in self.requests)


def test_what_cannot_be_answered_in_time_is_refused_on_arrival(
        monkeypatch, threads, model):
    held = Held(monkeypatch, threads, model)
    half = model.variant("half")
    monkeypatch.setattr(half.times, "value", lambda bucket, now: 0.5)
    held.submit(threads, model, ["a"] * 10)  # 10 * 0.5 s of work for two threads
    with pytest.raises(Refusal, match="of 2000 ms, where 3000 ms of") as refusal:
        held.submit(threads, model, deadline_s=2.0)
    assert (refusal.value.status, refusal.value.retry_after_s) == (503, 3)
    held.submit(threads, model, deadline_s=4.0)  # 3 s are within 0.8 of it
    held.answered()
    assert all(request.error is None for request, _ in held.requests)
    assert threads.waiting == 0


def test_a_full_queue_refuses(monkeypatch, threads, model):
    held = Held(monkeypatch, threads, model)
    held.submit(threads, model, ["a"] * 60)
    with pytest.raises(Refusal, match="5 more, where 60 wait") as refusal:
        held.submit(threads, model, ["a"] * 5)
    assert (refusal.value.status, refusal.value.reason) == (503, "queue_full")
    with pytest.raises(Refusal, match="may have 64 texts. Received: 65") as refusal:
        held.submit(threads, model, ["a"] * 65)
    assert refusal.value.status == 413
    held.submit(threads, model, ["a"] * 4)
    held.answered()


def test_a_text_whose_deadline_passed_while_it_waited_is_given_up(
        monkeypatch, threads, model):
    held = Held(monkeypatch, threads, model)
    monkeypatch.setattr(model.variant("half").times, "value", lambda *_: 1e-6)
    late = held.submit(threads, model, deadline_s=1e-3)
    threading.Event().wait(0.01)
    held.answered()
    assert (late.error.status, late.error.reason) == (503, "late")
    assert late.answers == [None]


def test_the_queue_that_waits_makes_answers_cheaper(monkeypatch, model):
    """In 42 s the best answers three texts of 11 s: one, and two that wait."""
    monkeypatch.setattr(scheduler, "_BETTER", 0.35)
    monkeypatch.setattr(Estimates, "add", lambda *_: None)  # as busy as at first
    for variant, seconds in zip(model.variants, (11.0, 10.0), strict=True):
        monkeypatch.setattr(variant.times, "value", lambda *_, seconds=seconds: seconds)
    threads = Scheduler(1, 64)
    held = Held(monkeypatch, threads, model, count=1)
    many = held.submit(threads, model, ["a"] * 9, deadline_s=120.0)
    held.answered()
    threads.close()
    assert [answer.variant.name for answer in many.answers] == (
        ["half"] * 6 + ["whole"] * 3)


def test_closing_answers_all_that_was_taken_in(monkeypatch, model):
    threads = Scheduler(2, 64)
    held = Held(monkeypatch, threads, model)
    held.submit(threads, model, ["a"] * 20)
    closing = threading.Thread(target=threads.close)
    closing.start()
    while not threads._closed:
        pass
    with pytest.raises(Refusal, match="The service ends") as refusal:
        held.submit(threads, model)
    assert (refusal.value.status, refusal.value.reason) == (503, "draining")
    held.answered()
    closing.join(60)
    assert all(request.error is None and None not in request.answers
               for request, _ in held.requests)
