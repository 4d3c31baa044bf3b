"""Checkpoints on disk -> keras.Model, and back.

Read are: a Hugging Face directory (`config.json`, `model.safetensors` or its shards;
also one of sentence-transformers), Google's original TensorFlow checkpoint
(`bert_config.json`, `bert_model.ckpt.*`, or `model.ckpt-343.*` of its training), and
tfopt's own directory (`model.keras`). By name: `minilm`, the checkpoint of the demo,
`random:SHAPE`, random weights for benchmarks, and `org/name`, a repository of the hub.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfopt import checks
from tfopt.backend import keras
from tfopt.checkpoint_names import RANDOM, place_of
from tfopt.files import partial_directory, to_json
from tfopt.model import (
    config,
    encoder,
    heads,
    keras_file,
    layer_names,
    not_honoured,
    tensor_files,
)
from tfopt.model.anatomy import Anatomy
from tfopt.model.families import registry
from tfopt.model.heads import Head
from tfopt.types import PathLike

KERAS_FILE = "model.keras"
CONFIG_FILE = "bert.json"


def directory(name: PathLike) -> Path:
    """The directory a checkpoint's name stands for, where its vocabulary lies.

    Args:
        name: a directory, "minilm", "random:SHAPE" (which borrows the vocabulary of
            "minilm", BERT's own uncased one), or a text org/name[@revision] for a
            repository of the hub, which is fetched.

    Returns:
        An existing directory.

    Raises:
        ValueError: there is none; the message says what to do.
    """
    path = place_of(name)
    if not path.is_dir():
        raise ValueError(
            "A checkpoint must be a directory, 'minilm', 'random:SHAPE' with SHAPE of "
            f"{config.SHAPE_NAMES}, or 'org/name' of the hub. Received: model_dir="
            f"{os.fspath(name)!r}")
    return path


def load(name: PathLike, *, num_labels: int | None = None, head: Head | None = None,
         seed: int = 0, custom_objects: Mapping[str, Any] | None = None
         ) -> keras.Model:
    """Loads a checkpoint as a model with a head.

    Args:
        name: a directory of one of the three kinds, "minilm", "random:SHAPE", or
            org/name[@revision] of the hub (`hub.fetch`).
        num_labels: C, classes. Where the checkpoint's classifier has another number of
            them, or none, it is fresh, and the log says so. Default: the checkpoint's
            own, or 2.
        head: the head to build, in place of `num_labels`; what of the checkpoint's own
            is of the same kind and size keeps its weights, the rest is fresh.
        seed: of fresh weights.
        custom_objects: name -> class or function of your own that a model saved by
            `save` has. A file may name no others than these, tfopt's and Keras' own
            layers (`model.known_classes`), and none that runs code, such as Lambda.

    Returns:
        The model, as `encoder.build` makes it (or as it was saved by `save`).

    Raises:
        ValueError: the directory holds no checkpoint that can be read, or a broken
            one; the message names the file. Or both `num_labels` and `head` are given.
    """
    if num_labels is not None and head is not None:
        raise ValueError("One of `num_labels` and `head` can be given. Received: "
                         f"num_labels={num_labels}, head={head}")
    if num_labels is not None and num_labels < 1:
        raise ValueError("A classifier needs at least one class. Received: "
                         f"num_labels={num_labels}")
    text = os.fspath(name)
    if text.startswith(RANDOM):
        settings = config.named(text.removeprefix(RANDOM))
        own = registry.all_families()[settings.family].head({})
        return encoder.build(settings, head or own.with_outputs(num_labels), seed)
    path = directory(name)
    if (path / KERAS_FILE).exists():
        return _load_own(path, num_labels, head, seed, custom_objects)
    not_honoured.check_files(path)
    if tensor_files.is_in(path):
        return tensor_files.load(path, num_labels, head, seed)
    raise ValueError(_unreadable(path))


def save(model: keras.Model, path: PathLike) -> None:
    """Saves a model as tfopt's own directory; whole, or not at all.

    Args:
        model: any functional model; a BERT's config is written beside it.
        path: the directory, made if missing; its model files are replaced.

    Raises:
        OSError: the disk is full or not writable; what was there stays.
    """
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    with partial_directory(path) as temporary:
        model.save(os.fspath(temporary / KERAS_FILE), save_format="keras")
        names = [KERAS_FILE]
        if Anatomy.known(model):
            (temporary / CONFIG_FILE).write_text(_about(model), encoding="utf-8")
            names.append(CONFIG_FILE)
        for name in names:
            os.replace(temporary / name, path / name)
        if CONFIG_FILE not in names:  # of a model that was here before
            (path / CONFIG_FILE).unlink(missing_ok=True)


def _unreadable(path: Path) -> str:
    """What is wrong with a directory without a checkpoint that can be read."""
    pickled = sorted(path.glob("pytorch_model*.bin"))
    if pickled:
        return ("Pickled weights can run code and are not read; convert them once with "
                "`AutoModelForSequenceClassification.from_pretrained(DIR)"
                ".save_pretrained(DIR, safe_serialization=True)` in transformers. "
                f"Received: {pickled[0]}")
    return ("A checkpoint directory must hold model.safetensors (or its index and "
            "shards) with config.json, bert_model.ckpt.* or model.ckpt-N.* with "
            "bert_config.json, or tfopt's model.keras; of the hub no other weights are "
            f"fetched. Received: {path} with "
            f"{sorted(file.name for file in path.iterdir())[:12]}")


def _about(model: keras.Model) -> str:
    """What a model is, for a reader of its directory; nothing here reads it."""
    head = heads.head_of(model)
    return to_json({
        **dataclasses.asdict(Anatomy.of(model).config),
        "classifier_dropout": head.dropout, "num_labels": head.outputs,
        "head_reads": head.reads, "head_pooler": head.pooler}, indent=2) + "\n"


def published_labels(name: PathLike) -> list[str] | None:
    """The label words a checkpoint's classifier was trained with.

    Args:
        name: as for `load`.

    Returns:
        The words by class number; None where the checkpoint names none.

    Raises:
        ValueError: the file that names them is not UTF-8.
    """
    if os.fspath(name).startswith(RANDOM):
        return None
    own = directory(name) / "labels.txt"
    if own.exists():
        try:
            lines = own.read_text(encoding="utf-8-sig").split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"A label list must be UTF-8. Received: {own}: {error}"
                             ) from error
        return [line for line in (line.rstrip("\r") for line in lines) if line]
    file = directory(name) / "config.json"
    return tensor_files.labels(file) if file.exists() else None


def _load_own(path: Path, num_labels: int | None, head: Head | None, seed: int,
              custom_objects: Mapping[str, Any] | None) -> keras.Model:
    model = keras_file.load(path / KERAS_FILE, custom_objects)
    checks.check_finite(model, str(path / KERAS_FILE))
    if not Anatomy.known(model):
        return model
    own = heads.head_of(model)
    wanted = head or own.with_outputs(num_labels)
    # Of a head of somebody's own there is nothing that this could make anew.
    asked = head is not None or num_labels not in (None, model.output_shape[-1])
    if asked:
        layer_names.check_known(model)
    if wanted == own or layer_names.unknown(model):
        return model
    fresh = encoder.build(Anatomy.of(model).config, wanted, seed)
    for layer in fresh.layers:
        if heads.keeps(layer.name, own, wanted):
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return fresh
