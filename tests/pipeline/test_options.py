"""Options: what a teacher teaches, ranges that hold, flags of the same fields."""

from __future__ import annotations

import dataclasses

import pytest
from absl import flags

from tfopt import train
from tfopt.cli import flags as made
from tfopt.pipeline import options, teacher_options
from tfopt.pipeline.option import Options
from tfopt.train import Distillation

RECIPES = Distillation(temperature=4.0, layers="nearest", hidden_weight=1.0)
RECORDS = [kind for module in (options, teacher_options)
           for kind in vars(module).values() if isinstance(kind, type)
           and issubclass(kind, Options) and kind is not Options]


@pytest.mark.parametrize(("fields", "recipes", "expected"), [
    ({}, None, None),
    ({}, RECIPES, RECIPES),
    ({"teacher": "there"}, None, Distillation()),
    ({"teacher": "there"}, RECIPES, RECIPES),
    ({"hard_weight": 0.0}, None, Distillation(hard_weight=0.0)),
    ({"temperature": 3.0}, None, Distillation(temperature=3.0)),
    ({"temperature": 2.0, "layers": "even", "hard_weight": 0.0}, RECIPES,
     Distillation(hidden_weight=1.0, hard_weight=0.0)),
    ({"hidden_weight": 0.0, "cache_teacher_logits": True, "augment": 1}, RECIPES,
     Distillation(temperature=4.0, layers="nearest")),
])
def test_options_that_are_given_replace_fields_of_the_recipes(fields, recipes,
                                                              expected):
    assert teacher_options.Teacher(**fields).distillation(recipes) == expected


@pytest.mark.parametrize(("fields", "recipes", "message"), [
    ({"augment": 2}, None, "needs a teacher: give .*recipe.*Received: --augment=2$"),
    ({"unlabelled": "a.txt"}, None, "Received: --unlabelled_file=a.txt$"),
    ({"cache_teacher_logits": True}, RECIPES,
     "keep logits alone.*Received: hidden_weight=1.0, relations_weight=0.0$"),
    ({"hidden_weight": 0.0, "soft_weight": 0.0}, RECIPES,
     "the teacher teaches nothing. Received: soft_weight=0.0, "),
])
def test_options_of_a_teacher_that_do_not_fit_are_refused(fields, recipes, message):
    with pytest.raises(ValueError, match=message):
        teacher_options.Teacher(**fields).distillation(recipes)


@pytest.mark.parametrize(("fields", "expected"), [
    ({"augment": "4", "hard_weight": "0.25"}, (4, 0.25)), ({"augment": 4}, (4, None)),
    ({"augment": "auto", "hard_weight": "auto"}, ("auto", "auto"))])
def test_what_is_to_be_found_may_be_a_number_too(fields, expected):
    found = teacher_options.Teacher(teacher="there", **fields)
    assert (found.augment, found.hard_weight) == expected
    assert found.copies == (0 if expected[0] == "auto" else 4)
    weight = found.distillation().hard_weight
    assert weight == (0.25 if expected[1] == 0.25 else 0.5)


@pytest.mark.parametrize(("fields", "message"), [
    ({"augment": "many"}, "`augment` must be a whole number from 0, or 'auto'"),
    ({"augment": -1}, "Received: augment=-1"), ({"augment": "1.5"}, "augment='1.5'"),
    ({"hard_weight": "nan"}, "`hard_weight` must be a number, or 'auto'")])
def test_what_is_no_number_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        teacher_options.Teacher(**fields)


@pytest.mark.parametrize(("kind", "fields", "message"), [
    (options.Batching, {"batch_size": 0}, "at least 1. Received: batch_size=0"),
    (options.Data, {"holdout_fraction": 0.6}, "at most 0.5.*holdout_fraction=0.6"),
    (options.Data, {"keep_epoch": "first"}, "one of .*Received: keep_epoch='first'"),
    (options.Files, {"task": "magic"}, "one of .*classification.*task='magic'"),
    (options.Targets, {"target_speedup": 0.5}, "at least 1. Received: target_speedup"),
])
def test_a_value_out_of_its_range_is_refused(kind, fields, message):
    with pytest.raises(ValueError, match=message):
        kind(**fields)


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_every_option_is_a_flag_that_says_what_it_is_and_gives_it_back(kind,
                                                                       monkeypatch):
    values = flags.FlagValues()
    monkeypatch.setattr(made, "FLAGS", values)
    for name in ("string", "enum", "integer", "float", "bool", "list"):
        real = getattr(flags, f"DEFINE_{name}")
        monkeypatch.setattr(made.flags, f"DEFINE_{name}", lambda *given, real=real,
                            **more: real(*given, **more, flag_values=values))
    made.define(kind)
    values(["script"])
    for field in dataclasses.fields(kind):
        assert len(values[field.metadata["flag"] or field.name].help.split()) >= 3
    assert made.read(kind) == kind()


def test_training_flags_have_the_defaults_of_the_settings(monkeypatch):
    values = flags.FlagValues()
    monkeypatch.setattr(made, "FLAGS", values)
    for name in ("string", "enum", "integer", "float", "bool", "list"):
        real = getattr(flags, f"DEFINE_{name}")
        monkeypatch.setattr(made.flags, f"DEFINE_{name}", lambda *given, real=real,
                            **more: real(*given, **more, flag_values=values))
    made.define_training()
    values(["script"])
    assert made.settings() == train.Settings()
