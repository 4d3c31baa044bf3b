"""The closed loop: a search that is held against a machine, here a stubbed one."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from tfopt import data
from tfopt import model as models
from tfopt.backend import tf
from tfopt.compress import Context, Recipe
from tfopt.compress import run as run_recipe
from tfopt.compress.costs import Costs
from tfopt.compress.passes.structured import Structured
from tfopt.compress.structure import closed_loop
from tfopt.compress.structure.closed_loop import NEAR, ClosedLoop
from tfopt.compress.structure.slicing import Kept
from tfopt.train import Settings
from tfopt.train.distribute import workers

# A neuron takes 0.01 ms by the table, all else 2 ms; the whole 12 ms.
CONFIG = models.EncoderConfig.uniform(
    hidden_size=16, num_layers=1, num_heads=1, intermediate_size=1000, vocab_size=103,
    max_positions=64)


def predicted(config) -> float:
    return 2 + 0.01 * sum(config.intermediate_sizes)


def find(aim) -> Kept:
    """The most neurons that the table allows."""
    count = int((aim - 2) / 0.01 + 1e-9)
    if count < 0:
        raise ValueError("No structure meets the target")
    return Kept(heads=((0,),), neurons=(tuple(range(min(count, 1000))),))


class Machine:
    """Takes the table's time, but for what a rule makes of that of smaller models."""

    def __init__(self, rule):
        self.rule, self.timed = rule, []

    def __call__(self, whole, small):
        self.timed.append(small.intermediate_sizes)
        return predicted(whole), self.rule(predicted(small), len(self.timed))


def searched(rule, target=6.0, relative=True):
    machine = Machine(rule)
    loop = ClosedLoop(CONFIG, Costs(heads=(), neurons=(), whole=predicted, unit="ms",
                                    measure=machine), target, relative=relative)
    kept, trials = loop.search(CONFIG, find)
    assert machine.timed[-1:] and len(trials) == len(machine.timed)
    assert kept.config(CONFIG).intermediate_sizes == trials[-1].intermediate_sizes
    return machine, trials


@pytest.mark.parametrize(("rule", "timed"), [
    (lambda ms, _: ms, 1), (lambda ms, _: 1.02 * ms, 1),  # near enough
    (lambda ms, _: 1.4 * ms, 2), (lambda ms, _: 0.8 * ms, 2),
    (lambda ms, _: ms + 1.0, 2), (lambda ms, _: ms + 2.0, 3),
    (lambda ms, _: 1.3 * ms ** 1.1, 3)])
@pytest.mark.parametrize("relative", [True, False])
def test_a_machine_that_differs_from_the_table_is_allowed_for(rule, timed, relative):
    machine, trials = searched(rule, relative=relative)
    assert len(machine.timed) == timed
    assert trials[-1].measured == pytest.approx(6.0, rel=NEAR)
    assert trials[-1].is_near


def test_a_target_is_a_part_of_what_the_whole_takes_here():
    """Where all takes twice the table's time, nothing need be corrected."""
    def twice(whole, small):
        return 2 * predicted(whole), 2 * predicted(small)

    costs = Costs(heads=(), neurons=(), whole=predicted, unit="ms", measure=twice)
    loop = ClosedLoop(CONFIG, costs, 6.0, relative=True)
    _, trials = loop.search(CONFIG, find)
    assert len(trials) == 1 and trials[0].measured == 12.0
    _, trials = ClosedLoop(CONFIG, costs, 6.0, relative=False).search(CONFIG, find)
    assert len(trials) == 2 and trials[-1].measured == pytest.approx(6.0, rel=NEAR)


def test_noise_ends_it_after_three_corrections_and_is_told(caplog):
    factors = [1.5, 0.5, 1.4, 0.8, 1.0]  # and the last would be right
    machine, trials = searched(lambda ms, number: factors[number - 1] * ms)
    assert len(machine.timed) == 1 + closed_loop.MOST_CORRECTIONS == 4
    assert not trials[-1].is_near
    # What is kept is within the target, and the nearest of those that are.
    within = [trial.over for trial in trials if trial.over <= 1 + NEAR]
    assert trials[-1].over == max(within)
    said = closed_loop.said_of(trials, "ms")
    assert "the nearest of 4 structures" in said and "below the target" in said
    assert "No structure of the measured time that was asked for" in caplog.text


def test_what_noise_says_never_leads_past_what_was_timed():
    """A first trial that seems far too fast asks for no more than the whole."""
    factors = [0.3, 1.0, 1.0, 1.0]
    machine, trials = searched(lambda ms, number: factors[number - 1] * ms)
    sizes = [size for size, in machine.timed]
    assert sizes[0] == 400 < sizes[3] < sizes[2] < sizes[1] < 1000  # of 1000
    assert trials[-1].intermediate_sizes == (400,)  # within the target, as it seemed


def test_between_too_fast_and_too_slow_it_is_interpolated():
    factors = [1.5, 0.4, 1.0, 1.0]
    machine, _ = searched(lambda ms, number: factors[number - 1] * ms)
    first, second, third, *_ = [size for size, in machine.timed]
    assert second < third < first


def test_where_all_are_too_slow_the_fastest_is_kept_and_told():
    _, trials = searched(lambda ms, number: 9.0 - 0.1 * number)
    assert trials[-1].measured == min(trial.measured for trial in trials)
    assert closed_loop.said_of(trials, "ms").endswith("above the target")


def test_a_structure_is_not_timed_twice():
    """Where there is nothing between two structures, more trials tell nothing."""
    machine = Machine(lambda ms, _: 0.5 * ms)
    costs = Costs(heads=(), neurons=(), whole=predicted, unit="ms", measure=machine)
    found = Kept(heads=((0,),), neurons=(tuple(range(400)),))
    kept, trials = ClosedLoop(CONFIG, costs, 6.0, relative=True).search(
        CONFIG, lambda aim: found)
    assert kept == found and len(trials) == len(machine.timed) == 1


def test_a_corrected_target_out_of_reach_leaves_the_best_there_was():
    machine, trials = searched(lambda ms, _: 5 * ms, target=2.5)
    assert len(machine.timed) == 1 and trials[0].over == pytest.approx(5)


def test_a_target_out_of_the_tables_reach_is_refused():
    with pytest.raises(ValueError, match="No structure"):
        searched(lambda ms, _: ms, target=1.0)


def test_what_one_search_learned_the_next_begins_with():
    machine = Machine(lambda ms, _: 1.4 * ms)
    costs = Costs(heads=(), neurons=(), whole=predicted, unit="ms", measure=machine)
    loop = ClosedLoop(CONFIG, costs, 6.0, relative=True)
    loop.search(CONFIG, find)
    assert loop.correction == pytest.approx(1 / 1.4, rel=1e-2)
    assert loop.aim(1.0) == pytest.approx(6 / 1.4, rel=1e-2)
    assert loop.aim(0.5) == pytest.approx((12 * 6 / 1.4) ** 0.5, rel=1e-2)
    before = len(machine.timed)
    loop.search(CONFIG, find)
    assert len(machine.timed) == before + 1


def test_of_several_workers_the_chief_alone_is_believed(monkeypatch):
    strategy = tf.distribute.get_strategy()
    assert workers.chiefs_numbers(strategy, (1.2345678901, 2.0)) == (1.2345678901, 2.0)
    monkeypatch.setattr(workers, "count", lambda _: 2)
    said = []
    monkeypatch.setattr(workers, "numbers", lambda _, own: (
        said.append(own) or np.array([np.float32(0.75).view(np.int32), own], np.int32)))
    monkeypatch.setattr(workers, "is_chief", lambda _: False)
    assert workers.chiefs_numbers(strategy, (9.0, 9.0)) == (0.75, 0.75)
    assert said == [0, 0]
    monkeypatch.setattr(workers, "is_chief", lambda _: True)
    assert workers.chiefs_numbers(strategy, (0.5, 1.5)) == (0.75, 1.5)


SMALL = models.EncoderConfig.uniform(
    hidden_size=16, num_layers=2, num_heads=4, intermediate_size=64, vocab_size=103,
    max_positions=64, initializer_range=0.3)
STEP = Structured(target_speedup=2.0, epochs=0, neurons_multiple=1, score="magnitude",
                  reconstruct=False)


@pytest.fixture
def context(tiny_examples):
    return Context(train=data.Batches(*tiny_examples, batch_size=16, shuffle_seed=0,
                                      pad_to=16), settings=Settings(epochs=1))


@pytest.fixture(scope="module")
def before():
    return models.build(SMALL, models.Head(outputs=3), seed=1)


def costs_of(machine):
    """A head takes 1 ms, a neuron 0.1, all else 2: 22.8 for the whole."""
    def ms(config):
        return 2 + sum(config.num_heads) + 0.1 * sum(config.intermediate_sizes)

    def of(config):
        return Costs(
            heads=tuple(np.arange(n + 1.0) for n in config.num_heads),
            neurons=tuple(0.1 * np.arange(n + 1) for n in config.intermediate_sizes),
            whole=ms, unit="ms",
            measure=lambda whole, small: (ms(whole), machine(ms(small), small)))

    return of


def run(before, step, context):
    outcome, = run_recipe(before, Recipe(passes=(step,)), context)
    return outcome


def slow(ms, _):
    return 1.4 * ms


@pytest.mark.parametrize("fields", [
    {}, {"steps": 2, "step_epochs": 0}, {"search_depth": True},
    {"target_speedup": None, "target_latency_ms": 11.4}])
def test_the_pass_reaches_a_measured_target(before, context, fields):
    step = dataclasses.replace(STEP, **fields)
    outcome = run(before, step, context.replaced({"costs": costs_of(slow)}))
    left = models.config_of(outcome.model)
    ms = 1.4 * (2 + sum(left.num_heads) + 0.1 * sum(left.intermediate_sizes))
    assert ms == pytest.approx(11.4, rel=NEAR)
    assert outcome.facts["trials"][-1]["measured"] == pytest.approx(ms)
    assert json.loads(json.dumps(outcome.facts)) == outcome.facts
    told = outcome.notes[1]
    assert told.startswith("timed before it was cut: 11.") and "the target" not in told


def test_costs_that_cannot_be_measured_are_taken_at_their_word(before, context):
    outcome = run(before, dataclasses.replace(STEP, target_speedup=None, keep=0.5),
                  context.replaced({"costs": costs_of(slow)}))
    assert "trials" not in outcome.facts and len(outcome.notes) == 1


def test_nothing_is_cut_or_trained_before_the_structure_is_timed(before, context,
                                                                 tmp_path):
    def killed(ms, small):
        assert sum(small.num_heads) + sum(small.intermediate_sizes) < 136
        raise KeyboardInterrupt

    given = dataclasses.replace(context.replaced({"costs": costs_of(killed)}),
                                state_dir=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(before, dataclasses.replace(STEP, epochs=1), given)
    assert not list(tmp_path.rglob("*.json"))


def test_a_resumed_run_keeps_what_was_timed(before, context, tmp_path):
    step = dataclasses.replace(STEP, steps=2, step_epochs=0)
    given = dataclasses.replace(context, state_dir=tmp_path)
    first = run(before, step, given.replaced({"costs": costs_of(slow)}))

    def never(*_):
        raise AssertionError("timed again")

    again = run(before, step, given.replaced({"costs": costs_of(never)}))
    assert again.facts == first.facts and again.notes == first.notes
    records = sorted(tmp_path.rglob("kept.json"))
    records[1].unlink()  # as if killed in the second cut
    corrected = run(before, step, given.replaced({"costs": costs_of(slow)}))
    assert corrected.facts["heads_kept"] == first.facts["heads_kept"]
