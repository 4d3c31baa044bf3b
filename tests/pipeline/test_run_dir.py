"""A results directory: claimed, given back, resumed, and refused in a sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tfopt.pipeline import identity as identities
from tfopt.pipeline import run_dir
from tfopt.pipeline.fine_tuning import FineTuning
from tfopt.pipeline.options import Batching
from tfopt.train import Settings


def test_a_directory_is_given_back_when_nothing_was_left_there(tmp_path):
    out = tmp_path / "new" / "out"
    for existing in (False, True):
        if existing:
            out.mkdir(parents=True)
        with pytest.raises(ValueError, match="mistake"), run_dir.claim(out, {}):
            raise ValueError("mistake")
        assert out.exists() == existing
        assert list(tmp_path.rglob("*")) == ([out.parent, out] if existing else [])


def test_a_directory_is_kept_once_something_is_there(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(OSError, match="full"), run_dir.claim(out, {"epochs": 3}):
        (out / "state").mkdir()
        raise OSError("full")
    assert (out / "run.json").exists()
    with run_dir.claim(out, {"epochs": 3}) as path:
        assert path == out


def test_another_identity_is_refused_and_changes_nothing(tmp_path):
    with run_dir.claim(tmp_path, {"recipe": [1], "epochs": 3}):
        (tmp_path / "keras").mkdir()
    before = (tmp_path / "run.json").read_text()
    with pytest.raises(ValueError, match=r"recipe \[1\] there, \[2\] here; epochs 3 "
                                         "there, 5 here; .*Received: "), \
            run_dir.claim(tmp_path, {"recipe": [2], "epochs": 5}):
        pass
    assert (tmp_path / "run.json").read_text() == before


@pytest.mark.parametrize("contents, said", [
    (b"{", "must be a JSON object"), (b"\xff", "must be a JSON object"),
    (b"", "must be a JSON object"),
    (b"[" * 100_000, "must be a JSON object"), (b"[1]", "a JSON object. .*: list$"),
    (b"null", "a JSON object. .*: NoneType$"),
    (b'{"train": 3}', "another run: train 3 there, a.tsv here"),
    (b'{"train": {"name": 3, "sha256": "x"}}', "train .* there, a.tsv here")])
@pytest.mark.parametrize("helper", [False, True])
def test_a_damaged_run_file_is_told(contents, said, helper, tmp_path, monkeypatch):
    (tmp_path / "run.json").write_bytes(contents)
    monkeypatch.setattr(run_dir, "is_helper", lambda: helper)
    if helper:
        said = said.replace("another run: ", "of another command: ")
    with pytest.raises(ValueError, match=said), \
            run_dir.claim(tmp_path, {"train": {"name": "a.tsv", "sha256": "y"}}):
        pass
    assert (tmp_path / "run.json").read_bytes() == contents


def test_one_run_at_a_time(tmp_path):
    """Another process, and this one too, until the first is done or killed."""
    code = ("import sys, time\nfrom tfopt.pipeline import run_dir\n"
            f"with run_dir.claim({str(tmp_path)!r}, {{}}):\n"
            "    print('claimed', flush=True)\n    time.sleep(60)\n")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE,
                          text=True) as other:
        assert other.stdout.readline() == "claimed\n"
        said = rf"One run at a time.*Received: .*, in use by process {other.pid} on "
        with pytest.raises(ValueError, match=said), run_dir.claim(tmp_path, {}):
            pass
        assert (tmp_path / "run.json").exists()
        other.kill()
        other.wait()
    with run_dir.claim(tmp_path, {}), pytest.raises(ValueError, match="One run"), \
            run_dir.claim(tmp_path, {}):
        pass


def test_what_a_killed_process_wrote_in_part_is_removed(tmp_path):
    with run_dir.claim(tmp_path, {}):
        for name in ("keras/.partial-abc/model.keras", "exports/.a.tflite.partial",
                     "keras/model.keras"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("half")
    with run_dir.claim(tmp_path, {}):
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()
                and "run" not in path.name and "lock" not in path.name] == [
            "model.keras"]
        assert not list(tmp_path.rglob("*partial*"))


def test_a_stage_is_done_for_the_identity_that_it_was_made_for(tmp_path):
    one = {"train": {"name": "a.tsv", "sha256": "1"}, "epochs": 3}
    run_dir.note_stage(tmp_path, one)
    assert not run_dir.is_done(tmp_path, "model.keras", one)
    (tmp_path / "model.keras").write_text("")
    assert run_dir.is_done(tmp_path, "model.keras", one)
    moved = one | {"train": {"name": "b.tsv", "sha256": "1"}}
    assert run_dir.is_done(tmp_path, "model.keras", moved)
    changed = one | {"train": {"name": "a.tsv", "sha256": "2"}}
    assert not run_dir.is_done(tmp_path, "model.keras", changed)


@pytest.fixture
def tuning(tmp_path, tiny_dir) -> FineTuning:
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text("text\tlabel\na\tb\n")
    return FineTuning(model=tiny_dir, train=tmp_path / "train.tsv",
                      dev=tmp_path / "dev.tsv")


def differ(one, other) -> str:
    return identities.difference(one.identity(), other.identity())


def test_an_identity_is_of_contents_and_of_options(tuning, tmp_path):
    import dataclasses

    before = tuning.identity()
    assert differ(tuning, tuning) == ""
    more = dataclasses.replace(
        tuning, settings=Settings(epochs=5), batching=Batching(batch_size=8))
    assert differ(tuning, more) == "epochs 3 there, 5 here; batch_size 32 there, 8 here"
    (tmp_path / "moved.tsv").write_bytes((tmp_path / "train.tsv").read_bytes())
    moved = dataclasses.replace(tuning, train=tmp_path / "moved.tsv")
    assert differ(tuning, moved) == ""
    (tmp_path / "train.tsv").write_text("text\tlabel\nanother\tb\n")
    assert identities.difference(before, tuning.identity()) == (
        "train differs: train.tsv was changed since")
    other = dataclasses.replace(tuning, train=tmp_path / "dev.tsv")
    assert "train differs: " in identities.difference(tuning.identity(),
                                                      other.identity())
    none = dataclasses.replace(tuning, dev=None)
    assert differ(tuning, none).startswith("dev ")
    assert "null here" in differ(tuning, none)


def test_an_identity_is_of_the_checkpoints_weights(tuning, tmp_path):
    import dataclasses
    import shutil

    place = tmp_path / "bert"
    shutil.copytree(tuning.model, place)
    copied = dataclasses.replace(tuning, model=place)
    assert differ(tuning, copied) == ""
    weights = place / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert "model differs: " in differ(tuning, copied)
