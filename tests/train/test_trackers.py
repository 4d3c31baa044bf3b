"""Where the figures of a training go."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tfopt import train
from tfopt.backend import keras, tf
from tfopt.compress.pruning.callbacks import SparsityLog
from tfopt.train import trackers
from tfopt.train.callbacks import TrainingLog

ONES = np.ones([8, 1], np.float32)
PARAMS = {"epochs": 2, "learning_rate": 0.1, "jit_compile": None}


@pytest.fixture
def line() -> keras.Model:
    return keras.Sequential([keras.Input([1]), keras.layers.Dense(
        1, use_bias=False, kernel_initializer="zeros", name="dense")])


def fitted(line, log_dir, names, **options) -> dict:
    line.compile(keras.optimizers.SGD(0.1), "mse")
    return line.fit(ONES, ONES, batch_size=4, epochs=2, verbose=0, validation_data=(
        ONES, ONES), callbacks=[TrainingLog(log_dir, 4, every=1, names=names,
                                            params=PARAMS, **options)]).history


def lines_of(log_dir) -> list[dict]:
    return [json.loads(line) for line in (log_dir / "figures.jsonl").read_text()
            .splitlines()]


def test_json_lines_have_all_figures_by_step(line, tmp_path):
    history = fitted(line, tmp_path, ["jsonl"])
    assert [place.name for place in tmp_path.iterdir()] == ["figures.jsonl"]
    first, *figures = lines_of(tmp_path)
    assert first == {"params": PARAMS}
    by_name = {name: [(own["step"], own[name]) for own in figures if name in own]
               for name in ("train/loss", "train/learning_rate", "dev/loss")}
    assert [step for step, _ in by_name["train/loss"]] == [1, 2, 3, 4]
    np.testing.assert_allclose([rate for _, rate in by_name["train/learning_rate"]],
                               0.1, rtol=1e-6)
    assert by_name["dev/loss"] == list(zip([2, 4], history["val_loss"], strict=True))


def test_json_lines_go_on_and_are_json_whatever_comes(tmp_path):
    for step in (1, 2):
        trackers.JsonLines(tmp_path / "logs").scalars({"loss": float("nan")}, step)
    assert [(own["step"], own["loss"]) for own in lines_of(tmp_path / "logs")] == [
        (1, None), (2, None)]


def test_tensorboard_has_what_the_training_was_told(line, tmp_path):
    fitted(line, tmp_path, ["tensorboard"])
    place, = tmp_path.glob("events.*")
    tags = {value.tag for record in tf.data.TFRecordDataset(str(place))
            for value in tf.compat.v1.Event.FromString(record.numpy()).summary.value}
    assert {"_hparams_/session_start_info", "train/loss", "dev/loss"} <= tags


def test_zeros_of_kernels_go_the_same_way(line, tmp_path):
    line.compile("sgd", "mse")
    line.fit(ONES, ONES, batch_size=4, verbose=0,
             callbacks=[SparsityLog(tmp_path, names=["jsonl"])])
    assert lines_of(tmp_path)[0]["sparsity/dense"] == 0.0


def test_settings_say_where_figures_go(tiny_model, tiny_batches, tmp_path):
    train.fit(tiny_model, tiny_batches, None, train.Settings(
        epochs=1, trackers=("jsonl",)), log_dir=tmp_path)
    assert [place.name for place in tmp_path.iterdir()] == ["figures.jsonl"]
    told = lines_of(tmp_path)[0]["params"]
    assert told["epochs"] == 1 and told["batch_size"] == tiny_batches.batch_size


@pytest.mark.parametrize(("names", "said"), [
    (("csv",), "must be of jsonl, tensorboard, wandb, each once. Received: .*csv"),
    (("jsonl", "jsonl"), "each once. Received: trackers=jsonl,jsonl"),
    (("jsonl", "wandb"), r"'wandb' needs a package: pip install 'tfopt\[wandb\]'. "
                         "Received: trackers=jsonl,wandb")])
def test_trackers_that_cannot_be_are_refused_before_training(names, said, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(train.Settings(), trackers=names)


def test_weights_and_biases_get_params_and_figures(line, tmp_path, monkeypatch):
    seen: list = []

    def init(**given):
        seen.append(given)
        return SimpleNamespace(
            config=SimpleNamespace(update=lambda values, **_: seen.append(values)),
            log=lambda figures, step: seen.append((step, figures)))

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    fitted(line, tmp_path / "runs" / "mine" / "logs", ["wandb"])
    given, params, (step, figures), *_ = seen
    assert given["dir"].endswith("runs/mine/logs")
    assert given["name"] == "runs/mine/logs" and params == PARAMS
    assert step == 1 and figures["train/loss"] == pytest.approx(1.0)
    assert all(type(value) is float for value in figures.values())
    assert [own[0] for own in seen[2:] if "dev/loss" in own[1]] == [2, 4]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None,
                    reason="the extra wandb is not installed")
def test_weights_and_biases_offline_leave_a_run_to_be_sent(tmp_path):
    subprocess.run([sys.executable, "-c", (
        "from tfopt.train.trackers import WeightsAndBiases\n"
        f"own = WeightsAndBiases({str(tmp_path)!r})\n"
        "own.params({'epochs': 2})\nown.scalars({'loss': 0.5}, 1)\n")],
        check=True, timeout=300, env={**__import__("os").environ,
                                      "WANDB_MODE": "offline"})
    file, = tmp_path.rglob("*.wandb")
    assert file.stat().st_size > 0
