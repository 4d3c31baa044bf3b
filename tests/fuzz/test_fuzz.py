"""Damaged files of every kind: taken, or refused by one sentence; nothing else.

The long one, 20,000 files in processes of their own, of which crashes, hangs and memory
are seen: `pytest -m slow tests/fuzz`.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest
from fuzz import harness, mutations
from fuzz.loaders import LOADERS

LONG = 20_000


@pytest.fixture(scope="session")
def good_files(tmp_path_factory):
    """Gives a loader's good files, made once."""
    made = {}

    def of(loader):
        if loader.make not in made:
            made[loader.make] = tmp_path_factory.mktemp("good") / "files"
            made[loader.make].mkdir()
            loader.make(made[loader.make])
        return made[loader.make]

    return of


@pytest.mark.parametrize("name", [name for name in LOADERS if LOADERS[name].short])
def test_damaged_files_are_taken_or_refused_by_a_sentence(name, good_files):
    loader = LOADERS[name]
    outcome = harness.here(loader, good_files(loader), range(loader.short))
    assert not outcome.faults
    assert outcome.refused  # else nothing was damaged


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADERS)
def test_no_damaged_file_crashes_hangs_or_takes_much_memory(name, good_files, capsys):
    loader = LOADERS[name]
    outcome = harness.apart(loader, good_files(loader), range(LONG // len(LOADERS) + 1))
    with capsys.disabled():
        print(f"\n{name}: {outcome.loaded} taken, {outcome.refused} refused, at most "
              f"{outcome.most_bytes / 1e6:.0f} MB more")
    assert not outcome.faults


def test_a_damage_is_the_same_each_time(good_files, tmp_path):
    loader = LOADERS["task.json"]
    texts = set()
    for name in ("a", "b"):
        place = tmp_path / name
        place.mkdir()
        loader.make(place)
        harness.damage(loader, place, 3)
        texts.add(tuple(path.read_bytes() for path in sorted(place.iterdir())))
    assert len(texts) == 1


@pytest.mark.parametrize("mutation", [
    mutations.of_bytes, mutations.of_lines, mutations.of_json, mutations.of_jsonl])
def test_most_damages_change_a_file(mutation):
    good = json.dumps({"a": [1, 2, {"b": "c"}], "d": None}).encode()
    changed = {mutation(random.Random(seed), good) for seed in range(100)}
    assert len(changed - {good}) > 60


SAID = {
    "taken": ('print(\'{"said": "loaded", "bytes": 5}\')', [], 5),
    "died": ("import os; os.abort()", ["seed 0: died: -6"], 0),
    "hung": ("import time; time.sleep(60)", ["seed 0: hang"], 0),
    "large": ('print(\'{"said": "refused", "bytes": 2000000000}\')',
              ["seed 0: 2.0 GB"], 2_000_000_000),
}


@pytest.mark.parametrize("code, faults, most", SAID.values(), ids=SAID)
def test_the_harness_sees_what_becomes_of_a_process(
        code, faults, most, tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "HANG_S", 1)
    monkeypatch.setattr(harness, "_process", lambda *_: subprocess.Popen(
        [sys.executable, "-c", f"print('ready', flush=True); {code}"], text=True,
        stdout=subprocess.PIPE))
    outcome = harness.apart(LOADERS["tsv"], tmp_path, range(1))
    assert (outcome.faults, outcome.most_bytes) == (faults, most)


FAULTS = {
    "a sentence": (ValueError("No. Received: it"), None),
    "another type": (KeyError("a"), "seed 0: KeyError: \"'a'\""),
    "no sentence": (ValueError("math domain error"),
                    "seed 0: ValueError: 'math domain error'"),
}


@pytest.mark.parametrize("raised, fault", FAULTS.values(), ids=FAULTS)
def test_the_harness_tells_sentences_from_faults(raised, fault, tmp_path):
    def load(place):
        if (place / "a.txt").read_text() != "some text":
            raise raised

    loader = harness.Loader(name="x", make=lambda place: None, load=load,
                            files={"a.txt": mutations.of_bytes})
    (tmp_path / "a.txt").write_text("some text")
    seed = next(seed for seed in range(20) if harness.here(
        loader, tmp_path, range(seed, seed + 1)).loaded == 0)
    outcome = harness.here(loader, tmp_path, range(seed, seed + 1))
    assert (outcome.faults, outcome.refused) == (
        ([], 1) if fault is None else ([fault.replace("seed 0", f"seed {seed}")], 0))
    (tmp_path / "a.txt").write_text("not as it must be")
    with pytest.raises(type(raised)):  # what refuses good files tells nothing
        harness.here(loader, tmp_path, range(1))
