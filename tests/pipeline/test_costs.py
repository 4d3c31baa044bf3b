"""Targets of speed: into recipes, a table into costs, measured against asked."""

from __future__ import annotations

import pytest

import tfopt
from tfopt import compress, data, model, report
from tfopt.measure.latency_table import Curve, LatencyTable
from tfopt.pipeline import costs
from tfopt.pipeline.options import Tables, Targets

CONFIG = model.EncoderConfig(vocab_size=60, hidden_size=16, num_heads=(2, 2),
                          intermediate_sizes=(32, 32), head_size=8)


def recipe(*passes) -> compress.Recipe:
    return compress.Recipe(passes=tuple(map(compress.from_fields, passes)))


STRUCTURED = {"pass": "structured", "keep": 0.5, "steps": 3}


def test_a_target_takes_the_place_of_the_recipes_own():
    found, = costs.aimed(recipe(STRUCTURED), Targets(target_speedup=2.5)).passes
    assert (found.keep, found.target_speedup, found.steps) == (None, 2.5, 3)


def test_without_a_target_the_recipe_stays():
    assert costs.aimed(recipe(STRUCTURED), Targets()) == recipe(STRUCTURED)


@pytest.mark.parametrize("fields, passes", [
    ({"target_speedup": 2.0}, [{"pass": "truncate", "threshold": 0.1}]),
    ({"target_speedup": 2.0}, [STRUCTURED, STRUCTURED]),
    ({"target_speedup": 2.0, "target_latency_ms": 1.0}, [STRUCTURED])])
def test_a_target_needs_one_place(fields, passes):
    with pytest.raises(ValueError, match="One target.*Received: "):
        costs.aimed(recipe(*passes), Targets(**fields))


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
def tables(tmp_path) -> list:
    """With two threads, the first head costs more and the neurons less."""
    for found in (table(1, 1.0), table(2, 1.5, 0.05)):
        path = tmp_path / f"table_{found.environment['num_threads']}.json"
        path.write_text(found.to_json())
    return [tmp_path / "table_1.json", tmp_path / "table_2.json"]


def test_costs_are_looked_up_for_the_sizes_of_each_layer(monkeypatch):
    asked = []
    monkeypatch.setattr(costs.table_file, "load", lambda config, **fields: (
        asked.append((config, fields)) or table(1, 1.0)))
    costs_of = costs.costs([7, 150], num_threads=1)
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


def test_a_model_costs_what_it_takes_with_the_best_number_of_threads(tables):
    found = costs.costs([7, 70], tables=tables, as_is=True)(CONFIG)
    only_heads = CONFIG.replace(intermediate_sizes=(0, 0))
    assert found.whole(only_heads) == pytest.approx(13.0)  # one thread; two: 14.5
    only_neurons = CONFIG.replace(num_heads=(0, 0))
    assert found.whole(only_neurons) == pytest.approx(12.4)  # two; one: 14.8
    assert found.heads[0].tolist() == [0, 1, 2]
    assert found.neurons[1][32] == pytest.approx(0.8)


def test_tables_taken_as_they_are_must_hold_the_texts_alone(tables, monkeypatch):
    asked = []
    monkeypatch.setattr(costs.table_file, "load", lambda config, **fields: (
        asked.append(fields) or table(1, 1.0)))
    costs.costs([70, 7, 50], tables=tables, as_is=True)(CONFIG)
    assert [fields["num_threads"] for fields in asked] == [1, 2]
    assert [fields["path"][-6:] for fields in asked] == ["1.json", "2.json"]
    assert all(fields["as_is"] and fields["tokens"] == (7, 70) for fields in asked)


def test_tables_of_one_model_are_numbered_and_share_their_exports(monkeypatch):
    asked = []
    monkeypatch.setattr(costs.table_file, "load", lambda config, **fields: (
        asked.append(fields) or table(1, 1.0)))
    costs.costs([7], num_threads=2)(CONFIG)
    assert [fields["title"] for fields in asked] == ["Latency table 1 of 2",
                                                     "Latency table 2 of 2"]
    assert len({fields["exports"] for fields in asked}) == 1
    assert not any(fields["retime"] for fields in asked)


def test_tables_are_timed_anew_once_a_run(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(costs.table_file, "load", lambda config, **fields: (
        asked.append(fields["retime"]) or table(1, 1.0)))
    for _ in range(2):  # the second time as a killed run that goes on
        costs.costs([7], num_threads=2, retimed=tmp_path / "state" / "retimed")(CONFIG)
    assert asked == [True, True, False, False]


@pytest.mark.parametrize(("takes", "told"), [
    (lambda ms: ms, 0), (lambda ms: 2 * ms, 0), (lambda ms: ms + 9.0, 1)])
def test_a_timer_tells_once_how_far_the_tables_are_off(monkeypatch, takes, told):
    monkeypatch.setattr(costs.table_file, "load", lambda *_, **__: table(1, 1.0))
    small, notes = CONFIG.replace(num_heads=(0, 0), intermediate_sizes=(0, 0)), []

    def timer(*configs):
        return tuple(takes(found.whole(config)) for config in configs)

    found = costs.costs([7], num_threads=1, timer=timer, note=notes.append)(CONFIG)
    for _ in range(2):
        assert found.measure(CONFIG, small) == (takes(17.8), takes(10.0))
    assert len(notes) == told
    if told:
        assert "predicted 1.78x where 1.41x was measured" in notes[0]
        assert "--retime" in notes[0]
    assert costs.costs([7], num_threads=1)(CONFIG).measure is None


def test_tables_of_another_machine_are_not_timed_anew():
    with pytest.raises(ValueError, match="--retime, --latency_tables_as_is"):
        Tables(retime=True, latency_tables_as_is=True)


@pytest.mark.parametrize("files", [[], ["/none/table.json"]])
def test_tables_to_be_taken_as_they_are_must_be_there(files):
    with pytest.raises(ValueError, match="needs the files.*--latency_tables="):
        costs.costs([7], tables=files, num_threads=1, as_is=True)


@pytest.mark.parametrize("threads, counts", [(2, "1, 2"), (4, "1, 2, 4")])
def test_there_must_be_a_table_for_each_number_of_threads(threads, counts):
    with pytest.raises(ValueError, match=rf"\[{counts}\] threads.*only.json"):
        costs.costs([7], tables=["only.json"], num_threads=threads)


def rows(before, after):
    return [report.Row("whole", "latency_p50_ms", before, "ms", "lower", ""),
            report.Row("small", "latency_p50_ms", after, "ms", "lower", "")]


@pytest.mark.parametrize("fields, after, met", [
    ({"target_speedup": 2.0}, 1.09, True), ({"target_speedup": 2.0}, 1.11, False),
    ({"target_latency_ms": 0.5}, 0.54, True),
    ({"target_latency_ms": 0.5}, 0.56, False)])
def test_measured_time_is_held_against_the_target(fields, after, met):
    (said,), found = costs.verdict(recipe({"pass": "structured", **fields}),
                                     rows(2.0, after), ["whole"], "small")
    assert found is met
    assert ("was met" if met else "was not met") in said
    assert f"{2 / after:.2f}x" in said


def test_a_target_of_another_machine_is_not_judged_here():
    tables = Tables(latency_tables=("there.json", "two.json"),
                    latency_tables_as_is=True)
    (said,), met = costs.verdict(
        recipe(STRUCTURED | {"keep": None, "target_speedup": 2.0}), rows(2.0, 1.9),
        ["whole"], "small", tables)
    assert met and "1.05x" in said and "there.json" in said and "met" not in said


def test_without_a_target_there_is_only_the_time():
    (said,), met = costs.verdict(recipe(STRUCTURED), rows(2.0, 1.0), ["whole"],
                                 "small")
    assert met and "2.00x" in said and "target" not in said
    assert costs.verdict(recipe(STRUCTURED), [], [], "small") == ([], True)


def test_a_pass_of_ones_own_aims_at_a_speedup(tables, tiny_examples):
    small = CONFIG.replace(vocab_size=103)
    context = compress.Context(
        train=data.Batches(*tiny_examples, batch_size=8),
        resources={"costs": costs.costs([7, 70], tables=tables, as_is=True)})
    step = tfopt.Structured(target_speedup=2, epochs=0, examples=16, neurons_multiple=1)
    outcome, = compress.run(model.build(small, model.Head(outputs=3)),
                            tfopt.Recipe(passes=(step,)), context)
    found = outcome.facts["predicted_before"] / outcome.facts["predicted"]
    assert found >= 2 and outcome.facts["unit"] == "ms"
    left = model.config_of(outcome.model)
    assert outcome.facts["predicted"] == pytest.approx(
        context.get("costs")(left).whole(left))


def test_tables_are_of_the_tokens_that_the_head_reads(monkeypatch):
    heads = []

    def load(config, head, **fields):
        heads.append(head)
        return table(1, head_ms=1.0)

    monkeypatch.setattr(costs.table_file, "load", load)
    tokens = model.Head(outputs=13, reads="all", pooler=None)
    for head in (model.Head(outputs=77), tokens, tokens.with_outputs(2)):
        costs.costs([8], num_threads=1, head=head)(CONFIG)
    # How many outputs there are takes next to no time, and no table of its own.
    assert heads == [model.Head(), tokens.with_outputs(2), tokens.with_outputs(2)]
