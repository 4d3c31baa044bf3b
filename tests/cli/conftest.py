"""Runs that several files look at: fine-tuned, pruned, killed and resumed."""

from __future__ import annotations

import functools
import os
import random
import shutil
import signal
import subprocess
import time
from types import SimpleNamespace

import pytest
import scripts
from scripts import command, run

from tfopt import model
from tfopt.measure.latency_table import Curve, LatencyTable

WORDS = {"bad": "bad awful not", "fine": "it is a", "good": "good great really"}


@pytest.fixture(scope="session")
def files(tmp_path_factory, tiny_dir):
    """Files of 48 and 12 short texts in three classes, and the flags that name them."""
    place = tmp_path_factory.mktemp("files")
    chance = random.Random(0)
    for name, count in (("train", 48), ("dev", 12)):
        rows = []
        for number in range(count):
            label = list(WORDS)[number % 3]
            words = [chance.choice(WORDS[label].split())
                     for _ in range(chance.randint(2, 12))]
            rows.append(f"{' '.join(words)}\t{label}\n")
        (place / f"{name}.tsv").write_text("text\tlabel\n" + "".join(rows))
    return SimpleNamespace(train=place / "train.tsv", dev=place / "dev.tsv", flags=[
        f"--model_dir={tiny_dir}", f"--train_file={place / 'train.tsv'}",
        f"--dev_file={place / 'dev.tsv'}", "--max_length=32"])


@pytest.fixture(scope="session")
def no_tensorflow(tmp_path_factory):
    """An environment in which nothing can be imported that tfopt-serve does without."""
    place = tmp_path_factory.mktemp("empty")
    for name in ("tensorflow", "tf_keras", "tensorflow_model_optimization", "keras",
                 "ai_edge_quantizer", "safetensors", "tensorboard", "matplotlib"):
        (place / f"{name}.py").write_text(
            f"raise ModuleNotFoundError('no {name} here', name='{name}')")
    places = [str(place), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}


@pytest.fixture(scope="session")
def finetuned(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("finetune") / "new" / "out"
    done = run("finetune", *files.flags, "--smoke", f"--out_dir={out}")
    return SimpleNamespace(out=out, done=done)


@pytest.fixture(scope="session")
def pruned(files, finetuned, tmp_path_factory):
    """A smoke run from a baseline of one's own, its flags in a file."""
    out = tmp_path_factory.mktemp("pruned") / "out"
    flagfile = out.with_name("run.flags")
    flagfile.write_text("\n".join([
        *files.flags, "--smoke", "--recipe=magnitude_50",
        f"--baseline_dir={finetuned.out}", f"--out_dir={out}"]))
    done = run("compress", f"--flagfile={flagfile}")
    return SimpleNamespace(out=out, done=done, flagfile=flagfile)


@pytest.fixture(scope="session")
def resumed(files, tmp_path_factory):
    """A whole run that is killed in the middle of fine-tuning, and started again."""
    out = tmp_path_factory.mktemp("resumed") / "out"
    flags = [*files.flags, "--recipe=int8", f"--epochs={scripts.EPOCHS}",
             "--batch_size=8", "--learning_rate=3e-3", f"--out_dir={out}"]
    with open(out.with_name("first.log"), "w") as log:
        first = subprocess.Popen(command("compress", *flags), stdout=log, stderr=log)
        state = out / "state" / "baseline"
        deadline = time.monotonic() + 120
        while not (state / "checkpoint").exists():  # comes last: a state is whole
            assert first.poll() is None, log.name
            assert time.monotonic() < deadline
            time.sleep(0.02)
        first.send_signal(signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL
    assert not (out / "baseline").exists()
    return SimpleNamespace(out=out, done=run("compress", *flags))


@pytest.fixture(scope="session")
def baseline_of(finetuned, tmp_path_factory):
    """Layers -> flags of a baseline of so many, with a latency table of its width."""
    def curves(most, ms):
        return dict.fromkeys(("inner", "last"), Curve(
            sizes=(0, most), ms=((0.0, 0.0), (ms, 10 * ms))))

    @functools.cache
    def flags(layers: int) -> list[str]:
        place = tmp_path_factory.mktemp(f"layers_{layers}")
        trained = model.load(finetuned.out)
        config = model.config_of(trained).replace(
            num_heads=(4,) * layers, intermediate_sizes=(80,) * layers)
        shutil.copytree(finetuned.out, place / "baseline")
        model.save(model.build(config, model.head_of(trained), seed=0),
                   place / "baseline")
        table = LatencyTable(
            environment={"num_threads": 1, "scheme": "dynamic_wi8_afp32",
                         "hidden_size": 32, "head_size": 8, "activation": "gelu"},
            tokens=(1, 64), first_ms=(0.1, 1.0), layer_ms=(0.0, 0.0),
            attention=curves(4, 1.0), ffn=curves(80, 2.0), spread=(1.0,),
            interaction=((0, ((0.0, 0.0),)),))
        (place / "table.json").write_text(table.to_json())
        return [f"--baseline_dir={place / 'baseline'}", "--latency_tables_as_is",
                f"--latency_tables={place / 'table.json'}", "--num_threads=1"]

    return flags


@pytest.fixture(scope="session")
def wide(finetuned, tmp_path_factory):
    """A baseline of one layer that blocks of 64x64 divide, as flags."""
    place = tmp_path_factory.mktemp("wide") / "baseline"
    shutil.copytree(finetuned.out, place)
    model.save(model.build(model.EncoderConfig.uniform(
        hidden_size=64, num_layers=1, num_heads=2, intermediate_size=320,
        vocab_size=103, max_positions=64), model.Head(outputs=3), seed=0), place)
    return [f"--baseline_dir={place}", "--learning_rate=1e-6"]
