"""The commands by two processes of one machine, as docs/distributed.md has them."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import local_workers
import numpy as np
import pytest
import scripts

from tfopt import model

# Of each kind of recipe: what stands for it, and how far weights may be from those of
# one process after 180 steps and more: 4e-5 was found; where ranges round, the last bit
# of a sum may become a step of the grid.
RECIPES = {
    "plain": ({"passes": [{"pass": "none"}]}, 1e-4),
    "magnitude": ({"passes": [{"pass": "magnitude", "final_sparsity": 0.5}]}, 1e-4),
    "structured": ({"passes": [{"pass": "structured", "keep": 0.5, "examples": 48,
                                "neurons_multiple": 4}],
                    "distillation": {"hidden_weight": 1.0}}, 1e-4),
    "quantized": ({"passes": [{"pass": "quantization_aware"}]}, 1e-3),
}


def start(index: int, ports: list[int], *flags) -> subprocess.Popen:
    """Starts `tfopt compress` as a worker."""
    return local_workers.start(ports, index, "-m", "tfopt.cli", "compress", *flags)


@pytest.mark.slow
def test_the_documented_command_runs(files, tmp_path):
    """Of a random model, with `magnitude_50`; the first worker leaves all there is."""
    out, ports = tmp_path / "out", local_workers.free_ports(2)
    flags = ["--model_dir=random:bert_tiny", f"--train_file={files.train}",
             f"--dev_file={files.dev}", "--max_length=16", "--smoke",
             "--recipe=magnitude_50", "--strategy=multi_worker", f"--out_dir={out}"]
    said = local_workers.end_of([start(index, ports, *flags) for index in range(2)])
    assert "Strategy multi_worker, since asked for; 2 replicas in 2 proc" in said[1]
    assert "Traceback" not in "".join(said)
    kernel = model.load(out / "keras").get_layer("layer_0_query").kernel.numpy()
    assert (kernel == 0).mean() == 0.5
    assert {"model.tflite", "report.md", "bundle.json"} <= {
        file.name for file in out.iterdir()}
    assert not (out / "state").exists()


@pytest.fixture(scope="module")
def without_dropout(tiny_dir, tmp_path_factory) -> Path:
    """The tiny checkpoint; masks of dropout differ between replicas."""
    place = tmp_path_factory.mktemp("without_dropout") / "bert"
    shutil.copytree(tiny_dir, place)
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({
        **config, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "classifier_dropout": 0.0}))
    return place


def weights(out: Path) -> np.ndarray:
    return np.concatenate([w.ravel() for w in model.load(out / "keras").get_weights()])


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("kind", RECIPES)
def test_a_command_goes_on_after_a_worker_is_lost(kind, victim, without_dropout, files,
                                                  tmp_path):
    """In the middle of the pass, or of the fine-tuning; to one process' weights."""
    recipe, tolerance = RECIPES[kind]
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    flags = [f"--model_dir={without_dropout}", f"--train_file={files.train}",
             f"--dev_file={files.dev}", "--max_length=32", "--batch_size=8",
             "--epochs=30", f"--recipe={tmp_path / 'recipe.json'}", "--num_threads=1"]
    scripts.run("compress", *flags, f"--out_dir={tmp_path / 'one'}")
    out, ports = tmp_path / "two", local_workers.free_ports(2)
    flags += [f"--out_dir={out}", "--strategy=multi_worker"]
    workers = [start(index, ports, *flags) for index in range(2)]
    try:
        wait_for(out / "state", "baseline" if kind == "plain" else
                 f"0_{recipe['passes'][0]['pass']}", workers)
        workers[victim].send_signal(signal.SIGKILL)
        workers[victim].communicate(timeout=60)
        assert not (out / "keras").exists()
    finally:
        workers[victim].kill()
    workers[victim] = start(victim, ports, *flags)
    said = local_workers.end_of(workers, timeout=500)
    assert "A worker is lost" in said[1 - victim]
    assert all("Resumed at step" in one for one in said)
    found, expected = weights(out), weights(tmp_path / "one")
    print(f"{kind}, victim {victim}: largest difference "
          f"{np.abs(found - expected).max():.1e}")
    np.testing.assert_allclose(found, expected, atol=tolerance, rtol=0)


def wait_for(state: Path, part: str, workers) -> None:
    """Waits until a state of a part of the run is there."""
    deadline = time.monotonic() + 240
    while not any(part in str(file) for file in state.rglob("checkpoint")):
        assert all(worker.poll() is None for worker in workers)
        assert time.monotonic() < deadline
        time.sleep(0.02)
