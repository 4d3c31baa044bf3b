"""What a script learns from a teacher: flags into fields, over those of a recipe."""

from __future__ import annotations

import contextlib

import flags as shared
import pytest
import task
from absl import flags

from tfopt.train import Distillation


@contextlib.contextmanager
def given(*arguments):
    """The flags of distillation, as the command line would set them."""
    before = set(flags.FLAGS)
    shared.define_distillation()
    own = set(flags.FLAGS) - before
    try:
        flags.FLAGS(["script", *arguments])
        yield
    finally:
        for name in own:
            delattr(flags.FLAGS, name)


RECIPES = Distillation(temperature=4.0, layers="nearest", hidden_weight=1.0)


@pytest.mark.parametrize(("arguments", "recipes", "expected"), [
    ([], None, None),
    ([], RECIPES, RECIPES),
    (["--teacher_dir=there"], None, Distillation()),
    (["--teacher_dir=there"], RECIPES, RECIPES),
    (["--distil_hard_weight=0"], None, Distillation(hard_weight=0.0)),
    (["--distil_temperature=3"], None, Distillation(temperature=3.0)),
    (["--distil_temperature=2", "--distil_layers=even", "--distil_hard_weight=0"],
     RECIPES, Distillation(hidden_weight=1.0, hard_weight=0.0)),
    (["--distil_hidden_weight=0", "--cache_teacher_logits", "--augment=1"], RECIPES,
     Distillation(temperature=4.0, layers="nearest")),
])
def test_flags_that_are_given_replace_fields_of_the_recipes(arguments, recipes,
                                                            expected):
    with given(*arguments):
        assert task.distillation(recipes) == expected


@pytest.mark.parametrize(("arguments", "recipes", "message"), [
    (["--augment=2"], None, "needs a teacher: give .*recipe.*Received: --augment=2$"),
    (["--unlabelled_file=a.txt"], None, "Received: --unlabelled_file=a.txt$"),
    (["--cache_teacher_logits"], RECIPES,
     "keeps logits alone.*Received: hidden_weight=1.0, relations_weight=0.0$"),
    (["--distil_hidden_weight=0", "--distil_soft_weight=0"], RECIPES,
     "the teacher teaches nothing. Received: soft_weight=0.0, "),
])
def test_flags_that_do_not_fit_are_told(arguments, recipes, message):
    with given(*arguments), pytest.raises(ValueError, match=message):
        task.distillation(recipes)
