"""The latency table: its arithmetic on one made by hand, its file, and a real one."""

from __future__ import annotations

import hashlib
import json
import re

import numpy as np
import pytest

from tfopt import model
from tfopt.measure import block_benchmark, latency, table_file
from tfopt.measure.block_benchmark import Sizes
from tfopt.measure.latency_table import Curve, LatencyTable
from tfopt.model import Head

CONFIG = model.EncoderConfig.uniform(hidden_size=8, num_layers=3, num_heads=2,
                                  intermediate_size=16, vocab_size=103,
                                  max_positions=64)
TOKENS = (2, 10)


def curve(sizes, ms):
    return Curve(sizes=sizes, ms=ms)


@pytest.fixture
def table() -> LatencyTable:
    """Times that are easy to add: at 2 tokens, and ten times as much at 10."""
    return LatencyTable(
        environment=block_benchmark.environment(CONFIG, 1, "float32", TOKENS),
        tokens=TOKENS, first_ms=(1.0, 10.0), layer_ms=(0.5, 5.0),
        attention={"inner": curve((0, 1, 2), ((0.0, 0.0), (3.0, 30.0), (4.0, 40.0))),
                   "last": curve((0, 2), ((0.0, 0.0), (1.0, 10.0)))},
        ffn={"inner": curve((0, 8, 16), ((0.0, 0.0), (2.0, 20.0), (6.0, 60.0))),
             "last": curve((0, 16), ((0.0, 0.0), (0.8, 8.0)))},
        interaction=((2, ((0.0, 0.0), (640.0, 0.1), (1280.0, 0.3))),
                  (6, ((0.0, 0.0), (640.0, 0.5)))),
        spread=(0.9, 1.0, 1.2))


def sized(heads, neurons):
    return CONFIG.replace(num_heads=heads, intermediate_sizes=neurons)


@pytest.mark.parametrize(("heads", "neurons", "ms"), [
    ((0, 0, 0), (0, 0, 0), 1 + 2 * 0.5),
    ((0,), (0,), 1),
    # Weights: a head has 4 * 8 * 4 of them, a neuron 2 * 8. Between 2 blocks and 6,
    # what they take together is linear.
    ((1, 2, 0), (0, 0, 0), 2 + 3 + 4 + 384 / 640 * 0.1),
    ((0, 0, 2), (0, 0, 0), 2 + 1 + 256 / 640 * 0.1),
    ((0, 0, 1), (0, 0, 0), 2 + 0.5 + 128 / 640 * 0.1),
    ((0, 0, 0), (4, 12, 8), 2 + 1 + 4 + 0.4 + 0.75 * 0.06 + 0.25 * 0.3),
    ((2, 2, 2), (16, 0, 0), 2 + 8 + 1 + 6 + (0.22 + 0.5) / 2),
    ((2, 2, 2), (16, 16, 16), 2 + 8 + 1 + 12 + 0.8 + 0.5),
])
def test_a_prediction_is_the_sum_of_its_blocks(heads, neurons, ms, table):
    assert table.predict(sized(heads, neurons), [2]) == pytest.approx(ms)


def test_between_token_counts_times_are_linear(table):
    config = sized((0, 0, 0), (8, 0, 0))
    beyond = 128 / 640 * 0.1
    assert table.predict_each(config, [2, 4, 10]) == pytest.approx(
        [4 + beyond, 13 + beyond, 40 + beyond])
    assert table.predict(config, [2, 4, 10, 4, 4]) == pytest.approx(13 + beyond)


def test_the_median_of_all_requests_lies_between_the_lengths(table):
    config = sized((0,), (0,))  # 1 ms at 2 tokens, 10 at 10
    assert table.predict(config, [2, 2, 10]) == pytest.approx(1.2)
    assert table.predict(config, [2, 10]) == pytest.approx((1.2 + 9) / 2)


def test_block_costs_are_means_over_texts_by_size(table):
    assert table.attention_ms("inner", [2, 10]) == pytest.approx([0, 16.5, 22])
    assert table.attention_ms("last", [2]) == pytest.approx([0, 0.5, 1])
    neurons = table.ffn_ms("inner", [2])
    assert neurons.shape == (17,)
    assert neurons[[0, 4, 8, 12, 16]] == pytest.approx([0, 1, 2, 4, 6])
    assert table.ffn_ms("last", [2])[8] == pytest.approx(0.4)


@pytest.mark.parametrize(("change", "match"), [
    ({"num_heads": (3, 0, 0)}, r"at most 2.*num_heads=\(3, 0, 0\)"),
    ({"intermediate_sizes": (0, 17, 0)}, r"at most 16.*\(0, 17, 0\)"),
    ({"hidden_size": 12}, "'hidden_size': 8.*Received.*'hidden_size': 12"),
    ({"head_size": 2}, "Received.*'head_size': 2"),
    ({"activation": "relu"}, "Received.*'activation': 'relu'"),
])
def test_sizes_the_table_has_not_are_refused(change, match, table):
    with pytest.raises(ValueError, match=match):
        table.predict(CONFIG.replace(**change), [2])


@pytest.mark.parametrize("lengths", [[], [1], [2, 11]])
def test_lengths_the_table_has_not_are_refused(lengths, table):
    with pytest.raises(ValueError, match=r"2 to 10.*Received: lengths="):
        table.predict(CONFIG, lengths)
    with pytest.raises(ValueError, match=r"2 to 10.*Received: lengths="):
        table.ffn_ms("inner", lengths)


def test_an_unknown_place_is_refused(table):
    with pytest.raises(ValueError, match="Received: place='first'"):
        table.attention_ms("first", [2])


def test_a_table_survives_its_file(table):
    assert LatencyTable.from_json(table.to_json()) == table


@pytest.mark.parametrize("damage", [
    lambda fields: fields.pop("ffn"), lambda fields: fields["attention"].pop("last"),
    lambda fields: fields.update(interaction=3), lambda fields: fields.update(more=1),
    lambda fields: fields.update(environment=[]),
    lambda fields: fields.update(tokens=["2", 10]),
    lambda fields: fields.update(tokens=[10, 2]),
    lambda fields: fields.update(tokens=[2, 10, 12]),
    lambda fields: fields.update(first_ms=[1.0]),
    lambda fields: fields.update(layer_ms=[1.0, float("nan")]),
    lambda fields: fields.update(layer_ms=[1.0, 1e300]),
    lambda fields: fields.update(spread=[]), lambda fields: fields.update(spread=[0.0]),
    lambda fields: fields.update(interaction=[[2, [[0.0]]]]),
    lambda fields: fields.update(interaction=[[2, []]]),
    lambda fields: fields.update(interaction=[[True, [[0.0, 0.0]]]]),
    lambda fields: fields["ffn"]["inner"].update(sizes=[0, 16, 8]),
    lambda fields: fields["ffn"]["inner"].update(sizes=[1, 16]),
    lambda fields: fields["ffn"]["inner"].update(ms=[[0.0, 0.0]]),
    lambda fields: fields["ffn"]["last"]["ms"][1].append(3.0)])
def test_a_damaged_table_is_told(damage, table, tmp_path):
    fields = json.loads(table.to_json())
    damage(fields)
    path = tmp_path / "table.json"
    path.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="cannot be read.*Received: .*table.json: "):
        table_file.load(CONFIG, path=path)


@pytest.mark.parametrize(("arguments", "match"), [
    ({"num_threads": 0}, "num_threads=0"), ({"rounds": 0}, "rounds=0"),
    ({"tokens": ()}, "tokens="), ({"tokens": (4, 2)}, "tokens="),
    ({"tokens": (0, 2)}, "tokens="), ({"scheme": "int3"}, "int3"),
    ({"scheme": "static_wi8_ai8"}, "static_wi8_ai8")])
def test_wrong_arguments_are_refused(arguments, match, tmp_path):
    with pytest.raises(ValueError, match=f"Received: .*{match}"):
        table_file.load(CONFIG, path=tmp_path / "table.json", **arguments)


def test_a_model_without_a_kind_of_block_has_no_table(tmp_path):
    with pytest.raises(ValueError, match=r"attention and ffn.*num_heads=\(0, 0, 0\)"):
        table_file.load(sized((0,) * 3, (16,) * 3), path=tmp_path / "table.json")


class Clock:
    """Stands in for `block_benchmark.measure`: times by a rule; counts its calls."""

    def __init__(self):
        self.calls, self.medians_spread, self.disturbance = 0, 0.04, 1.1

    def __call__(self, config, plan, *, tokens, num_threads, scheme, rounds, record,
                 head, exports, title):
        self.calls += 1
        return block_benchmark.Times(
            ms={name: self.ms(config, sizes, np.array(tokens))
                for name, sizes in plan.items()}, spread=np.array([0.9, 1.0, 1.2]),
            medians_spread=self.medians_spread, disturbance=self.disturbance)

    def ms(self, config, sizes, tokens):
        blocks = sum(sizes.heads[:-1]) + 0.1 * sum(sizes.neurons[:-1])
        last = 0.2 * sizes.heads[-1] + 0.01 * sizes.neurons[-1]
        whole = 5 if len(sizes.heads) == config.num_layers else 0
        return (2 + 0.5 * len(sizes.heads) + blocks) * tokens + last + whole


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(block_benchmark, "measure", made)
    return made


def test_a_table_takes_the_measured_times_apart(clock, tmp_path):
    table = table_file.load(CONFIG, path=tmp_path / "table.json", tokens=TOKENS)
    assert table.spread == (0.9, 1.0, 1.2)
    assert table.first_ms == pytest.approx((5, 25))
    assert table.layer_ms == pytest.approx((1, 5))
    assert table.attention_ms("inner", [2]) == pytest.approx([0, 2, 4])
    assert table.attention_ms("last", [2, 10]) == pytest.approx([0, 0.2, 0.4])
    assert table.ffn_ms("inner", [10]) == pytest.approx(np.arange(17.0))
    assert table.ffn_ms("last", [2])[16] == pytest.approx(0.16)
    # A whole model takes 5 ms that its blocks do not show; one of fewer layers, none.
    (shallow, few), (deep, many) = table.interaction
    assert (shallow, deep) == (2, 6)
    assert few[0] == many[0] == (0, 0)
    assert [ms for _, ms in few] == pytest.approx([0] * 5, abs=1e-9)
    assert [ms for _, ms in many[1:]] == pytest.approx([5] * 4)
    assert many[-1][0] == 3 * 8 * (4 * 4 * 2 + 2 * 16)
    assert table.predict(CONFIG, [10]) == pytest.approx(
        clock.ms(CONFIG, Sizes.of(CONFIG), 10))


def test_a_table_is_timed_once_for_each_environment(clock, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    table = table_file.load(CONFIG, tokens=TOKENS)
    assert table_file.load(CONFIG, tokens=TOKENS) == table
    assert clock.calls == 1
    table_file.load(CONFIG, tokens=TOKENS, num_threads=1)
    assert clock.calls == 2
    assert len(list((tmp_path / ".cache" / "tfopt").glob("latency_*.json"))) == 2


def test_a_table_is_of_a_family_and_a_head(clock, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for calls, (config, head) in enumerate([
            (CONFIG, Head()), (CONFIG.replace(family="other"), Head()),
            (CONFIG, Head(outputs=9)), (CONFIG, Head(reads="all")),
            (CONFIG, Head(pooler=None))], start=1):
        for _ in range(2):
            table_file.load(config, tokens=TOKENS, head=head)
            assert clock.calls == calls
    table_file.load(CONFIG, tokens=TOKENS, head=Head(dropout=0.3))
    assert clock.calls == 5


@pytest.fixture
def first_edition(table, tmp_path):
    """The fields of a table as the first edition wrote it."""
    fields = json.loads(table.to_json())
    fields["together"] = fields.pop("interaction")
    for name in ("family", "head"):
        del fields["environment"][name]
    return fields


@pytest.mark.parametrize("by_name", [True, False])
def test_a_table_of_the_first_edition_is_used(clock, table, first_edition, tmp_path,
                                              monkeypatch, by_name):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "table.json"
    if not by_name:  # where that edition kept it
        digest = hashlib.sha256(json.dumps(first_edition["environment"],
                                           sort_keys=True).encode()).hexdigest()
        path = tmp_path / ".cache" / "tfopt" / f"latency_{digest[:16]}.json"
        path.parent.mkdir(parents=True)
    path.write_text(json.dumps(first_edition))
    given = {"path": path if by_name else None, "tokens": TOKENS, "num_threads": 1,
             "scheme": "float32"}
    for head in (Head(), Head(outputs=77)):  # it did not say of how many classes
        found = table_file.load(CONFIG, head=head, **given)
        assert found.interaction == table.interaction
    assert clock.calls == 0
    table_file.load(CONFIG, head=Head(reads="mean"), **given)
    assert clock.calls == 1


def test_a_table_of_elsewhere_is_told_of_and_replaced(clock, table, tmp_path, caplog):
    path = tmp_path / "table.json"
    fields = json.loads(table.to_json())
    fields["environment"] |= {"cpu": "abacus", "scheme": "dynamic_wi8_afp32",
                              "num_threads": 2}
    path.write_text(json.dumps(fields))
    made = table_file.load(CONFIG, path=path, tokens=TOKENS)
    assert clock.calls == 1
    assert "cpu 'abacus' there" in caplog.text
    assert "num_threads" not in caplog.text
    assert table_file.load(CONFIG, path=path, tokens=TOKENS) == made
    assert clock.calls == 1


@pytest.fixture
def elsewhere(table, tmp_path):
    """The file of a table of another machine, with another runtime."""
    path = tmp_path / "table.json"
    fields = json.loads(table.to_json())
    fields["environment"] |= {"cpu": "abacus", "cores": 10, "ai_edge_litert": "0.0.1"}
    path.write_text(json.dumps(fields))
    return path


def test_a_table_of_elsewhere_may_be_taken_as_it_is(clock, table, elsewhere):
    found = table_file.load(sized((1, 2, 0, 2), (4, 0, 16, 8)), path=elsewhere,
                               tokens=(3, 9), num_threads=1, scheme="float32",
                               as_is=True)
    assert found.environment["cpu"] == "abacus"
    assert (found.attention, found.ffn) == (table.attention, table.ffn)
    assert clock.calls == 0


@pytest.mark.parametrize(("arguments", "match"), [
    ({"num_threads": 3}, "num_threads 1 there, 3 here"),
    ({"scheme": "dynamic_wi8_afp32"}, "scheme 'float32' there"),
    ({"tokens": (2, 11)}, r"2 to 10.*lengths=\[2, 11\]"),
    ({"config": CONFIG.replace(hidden_size=12)}, "'hidden_size': 12"),
    ({"config": CONFIG.replace(activation="relu")}, "'activation': 'relu'"),
    ({"config": CONFIG.replace(family="other")}, "'family': 'other'"),
    ({"head": Head(reads="mean")}, "head {'outputs': 2, 'reads': 'first'"),
    ({"config": sized((2, 3, 2), (16,) * 3)}, r"num_heads=\(2, 3, 2\)")])
def test_a_table_taken_as_it_is_must_fit_all_the_same(elsewhere, clock, arguments,
                                                      match):
    with pytest.raises(ValueError, match=f"table.json must fit.*Received.*{match}"):
        table_file.load(**{"config": CONFIG, "num_threads": 1, "scheme": "float32",
                              "tokens": TOKENS} | arguments, path=elsewhere, as_is=True)
    assert clock.calls == 0


@pytest.mark.parametrize("path", [None, "/none/table.json"])
def test_a_table_taken_as_it_is_must_be_there(clock, path):
    with pytest.raises(ValueError, match=f"must be there. Received: path={path}"):
        table_file.load(CONFIG, path=path, as_is=True)
    assert clock.calls == 0


def test_a_block_is_timed_by_layers_that_have_nothing_else():
    assert Sizes.of_block("heads", "inner", 3) == Sizes(
        heads=(3, 3, 3, 3, 0), neurons=(0, 0, 0, 0, 0))
    assert Sizes.of_block("neurons", "last", 5) == Sizes(
        heads=(0, 0, 0, 0, 0), neurons=(0, 0, 0, 0, 5))


def test_grids_hold_every_head_and_round_neurons():
    grids = block_benchmark.grids(model.named("minilm_l6"))
    assert grids["heads", "inner"] == list(range(1, 13))
    assert grids["heads", "last"] == [3, 6, 9, 12]
    assert grids["neurons", "inner"] == [32, 64, 128, 192, 384, 576, 768, 960, 1152,
                                         1344, 1536]
    assert grids["neurons", "last"] == [384, 768, 1152, 1536]
    assert block_benchmark.grids(CONFIG)["neurons", "inner"] == [16]


def test_mixed_models_grow_by_scale_and_end_with_the_whole():
    config = model.named("minilm_l6")
    grids = block_benchmark.grids(config)
    mixed = Sizes.mixed(config)
    assert set(mixed) == {2, 6}
    for layers, scales in mixed.items():
        assert [len(scale) for scale in scales] == [2, 2, 2, 1]
        every = [sizes for scale in scales for sizes in scale]
        assert {len(sizes.heads) for sizes in every} == {layers}
        assert {n for sizes in every for n in sizes.heads} <= {*grids["heads", "inner"]}
        assert {n for sizes in every for n in sizes.neurons} <= {
            *grids["neurons", "inner"]}
        totals = [sum(sum(sizes.neurons) for sizes in scale) / len(scale)
                  for scale in scales]
        assert totals == sorted(totals)
        assert scales[-1] == (Sizes(heads=(12,) * layers, neurons=(1536,) * layers),)
    assert set(Sizes.mixed(CONFIG.replace(num_heads=(2,), intermediate_sizes=(16,)))
               ) == {1}


class Stopwatch:
    """Stands in for `TimedArtifact`: a millisecond a token, more when disturbed."""

    disturbed = staticmethod(lambda request: 1.0)

    def __init__(self, *_):
        self._requests = -1  # the first warms up

    def time(self, ids, first_lengths):
        assert [len(example) for example in ids] == first_lengths
        seconds = 1e-3 * np.array(first_lengths, float)
        seconds *= 99 if self._requests < 0 else self.disturbed(self._requests)
        self._requests += 1
        seconds[0] = 0.0  # the first of a turn must not count, either
        return seconds

    def close(self):
        """Has nothing to close."""


@pytest.mark.parametrize(("disturbed", "factor"), [
    (lambda request: 1.0, 1.0),  # never
    (lambda request: 9.0 if request % 10 < 4 else 1.0, 1.0),  # seldom
    (lambda request: 1.5 if request % 10 < 8 else 1.0, 1.5)])  # most of the time
def test_times_are_quiet_ones_times_the_usual_disturbance(disturbed, factor,
                                                          monkeypatch):
    monkeypatch.setattr(latency, "TimedArtifact", Stopwatch)
    monkeypatch.setattr(Stopwatch, "disturbed", staticmethod(disturbed))
    monkeypatch.setattr(block_benchmark.tflite, "convert", lambda *_: b"")
    times = block_benchmark.measure(
        CONFIG, {"a": Sizes.empty(1), ("b", 1): Sizes.empty(2)}, tokens=(4, 7, 9),
        num_threads=1, scheme="float32", rounds=10)
    ms = times.ms
    assert times.disturbance == pytest.approx(factor)
    assert times.spread == pytest.approx(
        np.sort([1.0 * disturbed(request) for request in range(10)]) / factor)
    assert list(ms) == ["a", ("b", 1)]
    for name in ms:
        assert ms[name] == pytest.approx(factor * np.array([4, 7, 9]))


class Killed(Exception):
    """Ends a run, as a signal would."""


class Takes:
    """Stands in for `TimedArtifact`: what is asked says what it takes; notes turns."""

    turns: list[tuple] = []
    left = 10**9

    def __init__(self, path, *_):
        self._name = path.name

    def time(self, ids, first_lengths):
        if not Takes.left:
            raise Killed
        Takes.left -= 1
        Takes.turns.append((self._name, *first_lengths))
        return np.linspace(1, 2, len(ids)) * first_lengths

    def close(self):
        """Has nothing to close."""


PLAN = {"a": Sizes.empty(1), ("b", 1): Sizes.empty(2), "c": Sizes.empty(3)}


@pytest.fixture
def take(monkeypatch):
    """Measures for 12 rounds, or so many turns; returns times and turns."""
    monkeypatch.setattr(latency, "TimedArtifact", Takes)
    monkeypatch.setattr(block_benchmark.model, "build", lambda *_: None)
    monkeypatch.setattr(block_benchmark.tflite, "convert", lambda *_: b"")
    monkeypatch.setattr(block_benchmark, "_SETTLE_S", 0.0)

    def run(record, turns=10**9, plan=PLAN, tokens=(4, 7, 9), **more):
        Takes.turns, Takes.left = [], turns
        try:
            ms = block_benchmark.measure(CONFIG, plan, tokens=tokens, num_threads=1,
                                         scheme="float32", rounds=12, record=record,
                                         **more).ms
        except Killed:
            ms = None
        return ms, Takes.turns

    return run


# The rounds are 3 turns each, the first of them warms up; 5 and 10 are saved.
@pytest.mark.parametrize(("turns", "saved"), [(3 * 6 - 1, 0), (3 * 8 + 1, 5),
                                              (3 * 11, 10), (3 * 13 - 1, 10)])
def test_a_killed_measurement_goes_on_as_if_it_had_not_been(take, tmp_path, turns,
                                                            saved):
    whole, all_turns = take(None)
    record = tmp_path / "table.json.rounds"
    assert take(record, turns)[0] is None
    assert record.exists() == (saved > 0)
    found, rest = take(record)
    assert rest == all_turns[:3] + all_turns[3 + 3 * saved:]
    assert list(found) == list(whole)
    for name, ms in whole.items():
        np.testing.assert_array_equal(found[name], ms)


@pytest.mark.parametrize("change", [
    {"tokens": (4, 7, 8)}, {"plan": PLAN | {"c": Sizes.empty(4)}}])
def test_rounds_of_something_else_are_told_of_and_not_used(take, tmp_path, change,
                                                           caplog):
    record = tmp_path / "table.json.rounds"
    take(record, 3 * 8)
    assert len(take(record, **change)[1]) == 3 * 13
    assert "of another environment or plan" in caplog.text


def test_a_damaged_record_is_told_of_and_not_used(take, tmp_path, caplog):
    record = tmp_path / "table.json.rounds"
    record.write_text("[]")
    assert len(take(record)[1]) == 3 * 13
    assert "of another environment or plan" in caplog.text


def test_the_record_of_a_finished_table_is_removed(clock, tmp_path, monkeypatch):
    record = tmp_path / "table.json.rounds"

    def measure(*args, **fields):
        assert fields["record"] == record
        record.touch()
        return clock(*args, **fields)

    monkeypatch.setattr(block_benchmark, "measure", measure)
    table_file.load(CONFIG, path=tmp_path / "table.json", tokens=TOKENS)
    assert [file.name for file in tmp_path.iterdir()] == ["table.json"]


@pytest.mark.parametrize(("slow", "spread"), [
    (lambda part: 1.0, 0.0), (lambda part: 1.0 + 0.1 * part, 0.4 / 1.2)])
def test_the_spread_of_a_table_is_of_medians_of_its_rounds(slow, spread, monkeypatch):
    """Of 10 rounds, each fifth is slower than the one before."""
    monkeypatch.setattr(latency, "TimedArtifact", Stopwatch)
    monkeypatch.setattr(block_benchmark.tflite, "convert", lambda *_: b"")
    # A turn of a file has 1 + 3 sequences of 3 lengths, of which the first is left out.
    monkeypatch.setattr(Stopwatch, "disturbed", staticmethod(
        lambda request: slow(request // 2)))
    times = block_benchmark.measure(
        CONFIG, {"a": Sizes.empty(1), "b": Sizes.empty(2)}, tokens=(4, 7, 9),
        num_threads=1, scheme="float32", rounds=10)
    assert times.medians_spread == pytest.approx(spread)


def test_numbers_of_threads_share_their_exports(take, tmp_path, monkeypatch, caplog):
    converted = []
    monkeypatch.setattr(block_benchmark.tflite, "convert",
                        lambda *_: converted.append(1) or b"")
    for threads in (1, 2):
        block_benchmark.measure(CONFIG, PLAN, tokens=(4, 7, 9), num_threads=threads,
                                scheme="float32", rounds=5, exports=tmp_path,
                                title=f"Table {threads} of 2")
    assert len(converted) == len(PLAN) == len(list(tmp_path.iterdir()))


def test_progress_says_which_table_and_what_is_left(take, tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    plan = {number: Sizes.empty(1) for number in range(20)}
    take(None, plan=plan, title="Latency table 1 of 2")
    for what in ("exported 10 of 20", "timed round 5 of 12"):
        assert re.search(rf"Latency table 1 of 2: {what}, some \d+ s left", caplog.text)


@pytest.mark.parametrize(("spread", "disturbance", "wide"), [
    (0.04, 1.1, False), (0.5, 1.1, True), (0.04, 2.5, True)])
def test_every_use_of_a_table_tells_its_spread(clock, tmp_path, caplog, spread,
                                               disturbance, wide):
    clock.medians_spread, clock.disturbance = spread, disturbance
    path = tmp_path / "table.json"
    for _ in range(2):  # timed, then read
        told = []
        caplog.clear()
        table = table_file.load(CONFIG, path=path, tokens=TOKENS, note=told.append)
        assert table.is_wide == wide
        assert f"differ by {spread:.0%}" in told[-1] and "(2 threads)" in told[-1]
        assert ("--retime" in told[-1]) == wide
        assert ("--retime" in caplog.text) == wide
    assert clock.calls == 1


def test_a_table_that_does_not_tell_its_spread_is_used(table, tmp_path):
    path = tmp_path / "table.json"
    fields = json.loads(table.to_json())
    for name in ("medians_spread", "disturbance"):
        del fields[name]
    path.write_text(json.dumps(fields))
    told = []
    found = table_file.load(CONFIG, path=path, tokens=TOKENS, num_threads=1,
                            scheme="float32", note=told.append)
    assert found == table and not found.is_wide
    assert "does not say how far" in told[0]


def test_a_table_is_timed_anew_where_that_is_asked_for(clock, tmp_path):
    path = tmp_path / "table.json"
    for calls, retime in enumerate([False, True, True], start=1):
        table_file.load(CONFIG, path=path, tokens=TOKENS, retime=retime)
        assert clock.calls == calls


def test_a_real_table_is_built_and_grows_with_size(tmp_path, monkeypatch):
    monkeypatch.setattr(block_benchmark, "REPEATS", 1)
    config = CONFIG.replace(num_heads=(1, 1), intermediate_sizes=(8, 8))
    table = table_file.load(config, path=tmp_path / "table.json", num_threads=1,
                               tokens=(2, 128), rounds=4)
    assert LatencyTable.from_json((tmp_path / "table.json").read_text()) == table
    assert 0 < min(table.first_ms) <= max(table.first_ms) < 1e3
    assert table.predict(config, [2]) < table.predict(config, [128])
    assert table.attention_ms("inner", [128])[1] > 0
    assert table.predict(config, [128]) > table.predict(
        config.replace(num_heads=(0, 0), intermediate_sizes=(0, 0)), [128])
