"""Targets of speed: flags into recipes, a table into costs, measured against asked."""

from __future__ import annotations

import numpy as np
import pytest
import targets
from absl import flags

from tfopt import compress, model, report

CONFIG = model.BertConfig(vocab_size=60, hidden_size=16, num_heads=(2, 2),
                          intermediate_sizes=(32, 32), head_size=8)


@pytest.fixture
def given(monkeypatch):
    """Sets flags for a test, as the command line would."""
    values = flags.FlagValues()
    monkeypatch.setattr(targets, "FLAGS", values)
    flags.DEFINE_float("target_speedup", None, "", flag_values=values)
    flags.DEFINE_float("target_latency_ms", None, "", flag_values=values)
    flags.DEFINE_string("latency_table", None, "", flag_values=values)
    flags.DEFINE_bool("latency_table_as_is", False, "", flag_values=values)
    flags.DEFINE_integer("num_threads", 2, "", flag_values=values)
    return lambda *arguments: values(["script", *arguments])


def recipe(*passes) -> compress.Recipe:
    return compress.Recipe(passes=tuple(map(compress.from_fields, passes)))


STRUCTURED = {"pass": "structured", "keep": 0.5, "steps": 3}


def test_a_flag_takes_the_place_of_the_recipes_target(given):
    given("--target_speedup=2.5")
    found, = targets.aimed(recipe(STRUCTURED)).passes
    assert (found.keep, found.target_speedup, found.steps) == (None, 2.5, 3)


def test_without_a_flag_the_recipe_stays(given):
    given()
    assert targets.aimed(recipe(STRUCTURED)) == recipe(STRUCTURED)


@pytest.mark.parametrize("arguments, passes", [
    (["--target_speedup=2"], [{"pass": "truncate", "threshold": 0.1}]),
    (["--target_speedup=2"], [STRUCTURED, STRUCTURED]),
    (["--target_speedup=2", "--target_latency_ms=1"], [STRUCTURED])])
def test_a_target_needs_one_place(given, arguments, passes):
    given(*arguments)
    with pytest.raises(ValueError, match="One target.*Received: "):
        targets.aimed(recipe(*passes))


class Table:
    """Stands in for a latency table: a head takes 1 ms, a neuron 0.1, a layer 5."""

    def attention_ms(self, place, lengths):
        return np.arange(3) * {"inner": 1.0, "last": 0.5}[place]

    def ffn_ms(self, place, lengths):
        return np.arange(33) * {"inner": 0.1, "last": 0.05}[place]

    def predict(self, config, lengths):
        return 5.0 * config.num_layers + sum(config.num_heads)


def test_costs_are_looked_up_for_the_sizes_of_each_layer(given, monkeypatch):
    given()
    asked = []
    monkeypatch.setattr(targets.table_file, "load", lambda config, **fields: (
        asked.append((config, fields)) or Table()))
    costs_of = targets.costs([7, 150])
    assert not asked  # timed when a search asks
    found = costs_of(CONFIG)
    assert [row.tolist() for row in found.heads] == [[0, 1, 2], [0, 0.5, 1]]
    smaller = costs_of(CONFIG.replace(num_heads=(1, 0), intermediate_sizes=(32, 0)))
    assert [len(row) for row in (*smaller.heads, *smaller.neurons)] == [2, 1, 33, 1]
    assert found.whole(CONFIG) == 14.0 and found.unit == "ms"
    (config, fields), = asked
    assert config == CONFIG
    assert fields["tokens"][-1] >= 150
    assert fields["as_is"] is False


def test_a_table_taken_as_it_is_must_hold_the_texts_alone(given, monkeypatch, tmp_path):
    (tmp_path / "table.json").touch()
    given(f"--latency_table={tmp_path / 'table.json'}", "--latency_table_as_is")
    asked = []
    monkeypatch.setattr(targets.table_file, "load", lambda config, **fields: (
        asked.append(fields) or Table()))
    targets.costs([70, 7, 50])(CONFIG)
    (fields,) = asked
    assert fields["as_is"] is True and fields["tokens"] == (7, 70)


@pytest.mark.parametrize("arguments", [[], ["--latency_table=/none/table.json"]])
def test_a_table_to_be_taken_as_it_is_must_be_there(given, arguments):
    given("--latency_table_as_is", *arguments)
    with pytest.raises(ValueError, match="needs the file.*--latency_table="):
        targets.costs([7])


def rows(before, after):
    return [report.Row("whole", "latency_p50_ms", before, "ms", "lower", ""),
            report.Row("small", "latency_p50_ms", after, "ms", "lower", "")]


@pytest.mark.parametrize("fields, after, met", [
    ({"target_speedup": 2.0}, 1.09, True), ({"target_speedup": 2.0}, 1.11, False),
    ({"target_latency_ms": 0.5}, 0.54, True),
    ({"target_latency_ms": 0.5}, 0.56, False)])
def test_measured_time_is_held_against_the_target(given, fields, after, met):
    given()
    (said,), found = targets.verdict(recipe({"pass": "structured", **fields}),
                                     rows(2.0, after), ["whole"], "small")
    assert found is met
    assert ("was met" if met else "was not met") in said
    assert f"{2 / after:.2f}x" in said


def test_a_target_of_another_machine_is_not_judged_here(given):
    given("--latency_table=there.json", "--latency_table_as_is")
    (said,), met = targets.verdict(recipe(STRUCTURED | {"keep": None,
                                                        "target_speedup": 2.0}),
                                   rows(2.0, 1.9), ["whole"], "small")
    assert met and "1.05x" in said and "there.json" in said and "met" not in said


def test_without_a_target_there_is_only_the_time(given):
    given()
    (said,), met = targets.verdict(recipe(STRUCTURED), rows(2.0, 1.0), ["whole"],
                                   "small")
    assert met and "2.00x" in said and "target" not in said
    assert targets.verdict(recipe(STRUCTURED), [], [], "small") == ([], True)
