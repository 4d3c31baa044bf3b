"""A run knows what it is made of: whatever changed, nothing of before is taken."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import scripts

import tfopt
from tfopt import compress, data, model, pipeline, tasks
from tfopt.pipeline import job as jobs
from tfopt.pipeline import text_side
from tfopt.train.run_state import RunState

ROWS = "a great film\tgood\nbad bad\tbad\nit is\tgood\n" * 4
RECIPE = compress.Recipe(passes=(compress.from_fields({"pass": "none"}),),
                         exports=("dynamic_wi8_afp32",))


def change(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")


def change_weights(place: Path) -> None:
    changed = model.load(place)
    changed.set_weights([weight + 1 for weight in changed.get_weights()])
    model.save(changed, place)


@pytest.fixture
def place(tmp_path, tiny_dir) -> Path:
    """A checkpoint, files, and a fine-tuned model twice: as baseline, as teacher."""
    shutil.copytree(tiny_dir, tmp_path / "bert")
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.tsv").write_text("text\tlabel\n" + ROWS)
    (tmp_path / "more.txt").write_text("a film\nit is bad\n")
    tuned = tmp_path / "baseline"
    model.save(model.load(tiny_dir, num_labels=2), tuned)
    text_side.write(tuned, data.tokenizer_from(tiny_dir),
                    tasks.named("classification")(labels=("bad", "good")), 16)
    shutil.copytree(tuned, tmp_path / "teacher")
    return tmp_path


@pytest.fixture
def plain(place) -> tfopt.Job:
    return tfopt.Job(
        model=place / "bert", train=place / "train.tsv", dev=place / "dev.tsv",
        test=place / "test.tsv", recipe=RECIPE, out_dir=place / "out",
        data=pipeline.Data(max_length=16))


@pytest.fixture
def taught(plain, place) -> tfopt.Job:
    return dataclasses.replace(
        plain, baseline=place / "baseline",
        teacher=pipeline.Teacher(teacher=place / "teacher",
                                 unlabelled=place / "more.txt"))


@pytest.fixture
def claims(monkeypatch) -> list[Path]:
    """Jobs claim their directory, leave something there, and do nothing else."""
    claimed: list[Path] = []

    def go(road, out, tpu):
        (out / "state").mkdir(exist_ok=True)
        claimed.append(out)

    monkeypatch.setattr(jobs.Road, "go", go)
    return claimed


def assert_refused(job: tfopt.Job, claims: list, said: str) -> None:
    before = {path.name: path.read_bytes() for path in job.out_dir.iterdir()
              if path.is_file()}
    with pytest.raises(ValueError, match=f"another run: .*{said}.*Received: "):
        job.run()
    assert len(claims) == 1
    assert {path.name: path.read_bytes() for path in job.out_dir.iterdir()
            if path.is_file()} == before


def test_the_same_run_goes_on(plain, claims):
    plain.run()
    plain.run()
    assert len(claims) == 2


@pytest.mark.parametrize(("file", "before", "after"), [
    ("train.tsv", "film", "movie"),
    ("dev.tsv", "film", "movie"),
    ("test.tsv", "it is\tgood", "it is\tbad"),
    ("bert/vocab.txt", "great\ngood", "good\ngreat"),
    ("bert/tokenizer_config.json", "true", "false"),
])
def test_a_changed_file_makes_another_run(file, before, after, plain, place, claims):
    plain.run()
    change(place / file, before, after)
    what = "model" if file.startswith("bert") else Path(file).stem
    assert_refused(plain, claims, f"{what} differs: .* was changed since")


def test_a_renamed_label_makes_another_run(plain, place, claims):
    plain.run()
    for name in ("train", "dev", "test"):
        change(place / f"{name}.tsv", "\tbad", "\tworse")
    assert_refused(plain, claims, "train differs: .*dev differs")


def test_a_third_class_makes_another_run(plain, place, claims):
    plain.run()
    change(place / "train.tsv", "it is\tgood", "it is\tfine")
    assert_refused(plain, claims, "train differs")


def test_other_weights_make_another_run(plain, place, claims):
    plain.run()
    weights = place / "bert" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert_refused(plain, claims, "model differs: bert was changed since")


def test_another_recipe_makes_another_run(plain, place, claims):
    recipe = place / "recipe.json"
    recipe.write_text(RECIPE.to_json())
    by_file = dataclasses.replace(plain, recipe=recipe)
    by_file.run()
    change(recipe, "dynamic_wi8_afp32", "float16")
    assert_refused(by_file, claims, "recipe .*dynamic_wi8_afp32.* there, .*float16")


@pytest.mark.parametrize("name", ["baseline", "teacher"])
def test_other_weights_beside_the_model_make_another_run(name, taught, place, claims):
    taught.run()
    change_weights(place / name)
    assert_refused(taught, claims, f"{name} differs: {name} was changed since")


@pytest.mark.parametrize(("file", "before", "after", "said"), [
    ("more.txt", "bad", "good", "unlabelled differs: more.txt was changed since"),
    ("baseline/tokenizer.json", '"lowercase": true', '"lowercase": false',
     "baseline differs"),
    ("teacher/tokenizer.json", '"lowercase": true', '"lowercase": false',
     "teacher differs"),
    ("teacher/text.json", "16", "12", "teacher differs"),
])
def test_a_changed_file_beside_the_model_makes_another_run(
        file, before, after, said, taught, place, claims):
    taught.run()
    change(place / file, before, after)
    change_settings(place / Path(file).parent)
    assert_refused(taught, claims, said)


def change_settings(place: Path) -> None:
    """Has the settings say what `tokenizer.json` does."""
    if (place / "tokenizer.json").exists():
        lower = '"lowercase": true' in (place / "tokenizer.json").read_text("utf-8")
        file = place / "tokenizer_config.json"
        file.write_text(json.dumps({"do_lower_case": lower}))


def test_nothing_is_taken_from_the_checkpoint_beside_a_baseline(taught, place, claims):
    taught.run()
    weights = place / "bert" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    taught.run()
    assert len(claims) == 2


@pytest.fixture
def killed(place, monkeypatch) -> SimpleNamespace:
    """A `finetune` that was stopped after its second epoch of three."""
    flags = [f"--model_dir={place / 'bert'}", f"--train_file={place / 'train.tsv'}",
             f"--dev_file={place / 'dev.tsv'}", "--max_length=16", "--batch_size=4",
             f"--out_dir={place / 'out'}"]
    saved, save = [], RunState.save

    def stop_at_the_second(state):
        save(state)
        saved.append(state.step)
        if len(saved) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunState, "save", stop_at_the_second)
        assert scripts.call("finetune", *flags).status == 130
    assert not (place / "out" / "model.keras").exists()
    return SimpleNamespace(flags=flags, step=saved[-1], out=place / "out")


def test_a_killed_finetune_goes_on_with_its_own_data_alone(killed, place):
    def contents():
        return {path: path.read_bytes() for path in killed.out.rglob("*")
                if path.is_file()}

    before = contents()
    for name in ("train", "dev"):
        change(place / f"{name}.tsv", "\tbad", "\tworse")
    done = scripts.call("finetune", *killed.flags, status=1)
    assert "train differs: train.tsv was changed since" in done.stderr
    assert "Resumed" not in done.stderr
    assert contents() == before
    for name in ("train", "dev"):
        change(place / f"{name}.tsv", "\tworse", "\tbad")
    done = scripts.call("finetune", *killed.flags, status=0)
    assert f"Resumed at step {killed.step} " in done.stderr
    assert data.read_labels(killed.out / "labels.txt") == ["bad", "fine", "good"]
