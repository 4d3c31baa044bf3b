"""A ladder's file: what is read back, which rungs stay, and what is refused."""

from __future__ import annotations

import json
import re

import pytest

from tfopt.serve.ladder import Ladder
from tfopt.serve.rungs import Cascade, LeftOut, Rung, sorted_out

RUNGS = (Rung(name="1x", directory="1x", quality=0.9, p50_ms=2.0),
         Rung(name="3x", directory="3x", quality=0.88, p50_ms=0.7))
LEFT = (LeftOut(name="5x", quality=0.8, p50_ms=0.8, beaten_by="3x"),)
CASCADE = Cascade(threshold=0.93, quality=0.898, share_handed_on=0.2, max_drop=0.003)


@pytest.fixture
def place(tmp_path):
    for rung in RUNGS:
        (tmp_path / rung.directory).mkdir()
    Ladder(place=tmp_path, rungs=RUNGS, monitor="accuracy", left_out=LEFT,
           cascade=CASCADE).write()
    return tmp_path


def edited(place, **fields):
    file = place / "ladder.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return place


def test_what_is_written_is_read_back(place):
    found = Ladder.read(place)
    assert (found.rungs, found.left_out, found.cascade, found.monitor) == (
        RUNGS, LEFT, CASCADE, "accuracy")
    assert (found.best.name, found.fastest.name) == ("1x", "3x")
    assert found.path(found.fastest) == place / "3x"
    fields = json.loads((place / "ladder.json").read_text())
    assert fields["rungs"][0] == {"name": "1x", "directory": "1x", "quality": 0.9,
                                  "p50_ms": 2.0}
    Ladder(place=place, rungs=RUNGS).write()
    assert Ladder.read(place).cascade is None
    assert "cascade" not in json.loads((place / "ladder.json").read_text())


def test_a_bundle_alone_is_a_ladder_of_one_rung(tmp_path):
    place = tmp_path / "mine"
    place.mkdir()
    (place / "bundle.json").write_text('{"figures": {"latency_p50_ms": 1.5}}')
    found = Ladder.read(place)
    assert found.rungs == (Rung(name="mine", directory=".", p50_ms=1.5),)
    assert found.path(found.best) == place
    (place / "bundle.json").unlink()
    with pytest.raises(ValueError, match=re.escape(f"Received: {place} with neither")):
        Ladder.read(place)
    (place / "model.tflite").write_bytes(b"")  # of the first edition
    assert Ladder.read(place).best.name == "mine"


@pytest.mark.parametrize("better, qualities, kept, beaten", [
    ("higher", (0.9, 0.88, 0.87, 0.89), ["a", "d", "c"], {"b": "d"}),
    ("lower", (0.1, 0.2, 0.05, 0.3), ["c"], {"a": "c", "b": "c", "d": "c"}),
    ("higher", (0.9, 0.9, 0.9, 0.9), ["c"], {"d": "c", "b": "c", "a": "c"})])
def test_what_another_beats_in_both_is_left_out(better, qualities, kept, beaten):
    made = [Rung(name=name, directory=name, quality=quality, p50_ms=p50)
            for name, quality, p50 in zip("abcd", qualities, (3.0, 2.0, 1.0, 1.5),
                                          strict=True)]
    rungs, left = sorted_out(made, better)
    assert [rung.name for rung in rungs] == kept
    assert {each.name: each.beaten_by for each in left} == beaten


def test_of_two_that_are_the_same_the_first_stays():
    rungs, left = sorted_out([Rung(name=name, directory=name, quality=1, p50_ms=1)
                              for name in "xy"])
    assert [rung.name for rung in rungs] == ["x"] and left[0].name == "y"


@pytest.mark.parametrize("fields, message", [
    ({"format": 2}, "up to format 1"), ({"format": True}, "format True"),
    ({"rungs": []}, "one rung or more"), ({"rungs": {}}, "must be a list"),
    ({"rungs": [{"name": "1x"}]}, "directory"),
    ({"rungs": [{"name": "1x", "directory": "../1x"}]}, "right below"),
    ({"rungs": [{"name": "1x", "directory": ".."}]}, "right below"),
    ({"rungs": [{"name": "a/b", "directory": "1x"}]}, "without a slash"),
    ({"rungs": [{"name": 1, "directory": "1x"}]}, "`name` must be a text"),
    ({"rungs": [{"name": "1x", "directory": "1x", "p50_ms": -1.0}]}, "above 0"),
    ({"rungs": [{"name": "1x", "directory": "1x", "quality": "?"}]}, "finite number"),
    ({"rungs": [{"name": "1x", "directory": "9x"}]}, "no .*9x"),
    ({"rungs": [{"name": "1x", "directory": "1x", "colour": "red"}]}, "colour"),
    ({"rungs": [{"name": "1x", "directory": n} for n in ("1x", "3x")]}, "name each"),
    ({"rungs": [{"name": n, "directory": n, "quality": q, "p50_ms": 2.0}
                for n, q in (("3x", 0.8), ("1x", 0.9))]}, "3x before 1x"),
    ({"rungs": [{"name": n, "directory": n} for n in ("1x", "3x")]}, "`p50_ms`"),
    ({"better": "faster"}, "'higher' or 'lower'"), ({"monitor": 3}, "`monitor`"),
    ({"left_out": [{"name": "5x"}]}, "beaten_by"), ({"cascade": []}, "an object with"),
    ({"cascade": {"threshold": -1, "quality": 1, "share_handed_on": 0}}, "threshold"),
    ({"cascade": {"threshold": 1, "quality": 1, "share_handed_on": 2}}, "share"),
    ({"cascade": {"threshold": 1, "quality": 1, "share_handed_on": 0, "first": "9x"}},
     "A cascade's rungs must be of the ladder's"),
    ({"cascade": {"threshold": 1, "quality": 1, "share_handed_on": 0,
                  "then": [{"name": "1x", "threshold": 0.5}]}},
     "A cascade's rungs must be of the ladder's"),
    ({"cascade": {"threshold": 1, "quality": 1, "share_handed_on": 0, "then": [3]}},
     "Each of `then` must be an object")])
def test_what_is_wrong_is_one_sentence(place, fields, message):
    with pytest.raises(ValueError, match=rf"(?s){message}.*Received|Received.*{message}"
                       ) as error:
        Ladder.read(edited(place, **fields))
    assert str(place) in str(error.value) and "\n" not in str(error.value)


def test_what_is_no_ladder_is_refused(place):
    with pytest.raises(ValueError, match="must be a directory"):
        Ladder.read(place / "ladder.json")
    (place / "ladder.json").write_text('{"format": 1, "rungs": [')
    with pytest.raises(ValueError, match="must be a JSON object"):
        Ladder.read(place)
