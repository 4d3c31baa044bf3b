"""The record of a cut: given back as it was, and refused where it is damaged."""

from __future__ import annotations

import json

import pytest

from tfopt.compress.structure.choice import Choice
from tfopt.compress.structure.closed_loop import Trial
from tfopt.compress.structure.slicing import Kept

CHOICE = Choice(
    Kept(heads=((0, 2), ()), neurons=((1, 3, 4), (0,))), ((0.5, 0.0, 0.25), (1.0,)),
    (Trial(num_heads=(2, 0), intermediate_sizes=(3, 1), predicted=1.5, measured=2.0,
           measured_before=4.0, over=1.1),), 0.75)


def test_it_is_given_back(tmp_path):
    path = tmp_path / "kept.json"
    path.write_text(CHOICE.to_json())
    assert Choice.read(path) == CHOICE


@pytest.mark.parametrize("damage", [
    {"kept": None}, {"kept": {"heads": []}},
    {"kept": {"heads": [["a"]], "neurons": []}},
    {"kept": {"heads": [], "neurons": [], "more": []}}, {"head_scores": 3},
    {"head_scores": [["x"]]}, {"trials": [3]}, {"trials": [{}]}, {"correction": "1"},
    {"correction": None}], ids=str)
def test_a_damaged_one_is_named(damage, tmp_path):
    path = tmp_path / "kept.json"
    path.write_text(json.dumps(json.loads(CHOICE.to_json()) | damage))
    with pytest.raises(ValueError, match="remove it, .*Received: .*kept.json: "):
        Choice.read(path)
    path.write_text(CHOICE.to_json()[:40])
    with pytest.raises(ValueError, match="remove it, .*Received: .*kept.json: "):
        Choice.read(path)
