"""Targets of speed: flags into recipes, a table into costs, measured against asked."""

from __future__ import annotations

import pytest
import targets
from absl import flags

from tfopt import compress, model, report
from tfopt.measure.latency_table import Curve, LatencyTable

CONFIG = model.EncoderConfig(vocab_size=60, hidden_size=16, num_heads=(2, 2),
                          intermediate_sizes=(32, 32), head_size=8)


@pytest.fixture
def given(monkeypatch):
    """Sets flags for a test, as the command line would."""
    values = flags.FlagValues()
    monkeypatch.setattr(targets, "FLAGS", values)
    flags.DEFINE_float("target_speedup", None, "", flag_values=values)
    flags.DEFINE_float("target_latency_ms", None, "", flag_values=values)
    flags.DEFINE_list("latency_tables", [], "", flag_values=values)
    flags.DEFINE_bool("latency_tables_as_is", False, "", flag_values=values)
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


TOKENS = (1, 8, 200)


def table(num_threads, head_ms, neuron_ms=0.1) -> LatencyTable:
    """An empty layer takes 5 ms; in the last, blocks take half their time."""
    def curves(most, ms):
        return {place: Curve(sizes=(0, most), ms=((0.0,) * 3, (share * ms * most,) * 3))
                for place, share in (("inner", 1.0), ("last", 0.5))}

    return LatencyTable(
        environment={"num_threads": num_threads, "scheme": "dynamic_wi8_afp32",
                     "hidden_size": 16, "head_size": 8, "activation": "gelu"},
        tokens=TOKENS, first_ms=(5.0,) * 3, layer_ms=(5.0,) * 3,
        attention=curves(2, head_ms), ffn=curves(32, neuron_ms),
        interaction=((0, ((0.0, 0.0),)),), spread=(1.0,))


@pytest.fixture
def tables(tmp_path) -> str:
    """With two threads, the first head costs more and the neurons less."""
    for found in (table(1, 1.0), table(2, 1.5, 0.05)):
        path = tmp_path / f"table_{found.environment['num_threads']}.json"
        path.write_text(found.to_json())
    return f"--latency_tables={tmp_path / 'table_1.json'},{tmp_path / 'table_2.json'}"


def test_costs_are_looked_up_for_the_sizes_of_each_layer(given, monkeypatch):
    given("--num_threads=1")
    asked = []
    monkeypatch.setattr(targets.table_file, "load", lambda config, **fields: (
        asked.append((config, fields)) or table(1, 1.0)))
    costs_of = targets.costs([7, 150])
    assert not asked  # timed when a search asks
    found = costs_of(CONFIG)
    assert [row.tolist() for row in found.heads] == [[0, 1, 2], [0, 0.5, 1]]
    smaller = costs_of(CONFIG.replace(num_heads=(1, 0), intermediate_sizes=(32, 0)))
    assert [len(row) for row in (*smaller.heads, *smaller.neurons)] == [2, 1, 33, 1]
    # Layers 5 each, heads 2 and 1, neurons 3.2 and 1.6.
    assert found.whole(CONFIG) == pytest.approx(17.8) and found.unit == "ms"
    (config, fields), = asked
    assert config == CONFIG
    assert fields["tokens"][-1] >= 150
    assert fields["num_threads"] == 1 and fields["as_is"] is False


def test_a_model_costs_what_it_takes_with_the_best_number_of_threads(given, tables):
    given(tables, "--latency_tables_as_is")
    found = targets.costs([7, 70])(CONFIG)
    only_heads = CONFIG.replace(intermediate_sizes=(0, 0))
    assert found.whole(only_heads) == pytest.approx(13.0)  # one thread; two: 14.5
    only_neurons = CONFIG.replace(num_heads=(0, 0))
    assert found.whole(only_neurons) == pytest.approx(12.4)  # two; one: 14.8
    assert found.heads[0].tolist() == [0, 1, 2]
    assert found.neurons[1][32] == pytest.approx(0.8)


def test_tables_taken_as_they_are_must_hold_the_texts_alone(given, tables, monkeypatch):
    given(tables, "--latency_tables_as_is")
    asked = []
    monkeypatch.setattr(targets.table_file, "load", lambda config, **fields: (
        asked.append(fields) or table(1, 1.0)))
    targets.costs([70, 7, 50])(CONFIG)
    assert [fields["num_threads"] for fields in asked] == [1, 2]
    assert [fields["path"][-6:] for fields in asked] == ["1.json", "2.json"]
    assert all(fields["as_is"] and fields["tokens"] == (7, 70) for fields in asked)


@pytest.mark.parametrize("arguments", [
    [], ["--latency_tables=/none/table.json", "--num_threads=1"]])
def test_tables_to_be_taken_as_they_are_must_be_there(given, arguments):
    given("--latency_tables_as_is", *arguments)
    with pytest.raises(ValueError, match="needs the files.*--latency_tables="):
        targets.costs([7])


@pytest.mark.parametrize("threads, counts", [(2, "1, 2"), (4, "1, 2, 4")])
def test_there_must_be_a_table_for_each_number_of_threads(given, threads, counts):
    given("--latency_tables=only.json", f"--num_threads={threads}")
    with pytest.raises(ValueError, match=rf"\[{counts}\] threads.*only.json"):
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
    given("--latency_tables=there.json,two.json", "--latency_tables_as_is")
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
