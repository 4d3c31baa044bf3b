"""Checkpoints as others publish them -> keras.Model: Hugging Face's and Google's."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from absl import logging

from tfopt.backend import keras, tf
from tfopt.model import anatomy, encoder, heads
from tfopt.model.anatomy import layer_name
from tfopt.model.config import EncoderConfig
from tfopt.model.heads import Head

# A file that is cut short raises IndexError.
_TENSORFLOW_ERRORS = (tf.errors.OpError, ValueError, RuntimeError, IndexError)

# Role in a layer -> names in the Hugging Face and in the Google checkpoint, alike.
LAYER_NAMES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_output": "attention.output.dense",
    anatomy.ATTENTION_NORM: "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "ffn_output": "output.dense",
    anatomy.FFN_NORM: "output.LayerNorm",
}


def load_hugging_face(path: Path, num_labels: int | None, head: Head | None, seed: int
                      ) -> keras.Model:
    """Loads `config.json` with `model.safetensors`; as `checkpoint.load` says."""
    _check_files(path, "config.json")
    with _safetensors(path / "model.safetensors") as tensors:
        return _read_hugging_face(path, tensors, num_labels, head, seed)


def labels(file: Path) -> list[str] | None:
    """The words of `id2label` in a `config.json`; None where it names none.

    Raises:
        ValueError: the file is no JSON object, or maps no numbers to words.
    """
    words = _read_json(file).get("id2label") or {}
    try:
        found = [words[key] for key in sorted(words, key=int)]
    except (ValueError, TypeError) as error:
        raise ValueError("`id2label` must map class numbers to words. Received: "
                         f"{file}: {words}") from error
    if all(label == f"LABEL_{i}" for i, label in enumerate(found)):
        return None
    return found


def _read_hugging_face(path, tensors, num_labels, head, seed) -> keras.Model:
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
    settings = _config(path / "config.json", fields)
    _check_vocabulary(path, settings)
    own = _head(fields, trained)
    wanted = head or own.with_outputs(num_labels)
    model = encoder.build(settings, wanted, seed)

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
        for role, published in LAYER_NAMES.items():
            name = f"{prefix}encoder.layer.{i}.{published}"
            values[layer_name(i, role)] = norm(name) if "Norm" in published else [
                kernel(name), read(f"{name}.bias")]
    if f"{prefix}pooler.dense.weight" in names and heads.keeps(
            anatomy.POOLER, own, wanted):
        values[anatomy.POOLER] = [kernel(f"{prefix}pooler.dense"),
                                  read(f"{prefix}pooler.dense.bias")]
    if trained and heads.keeps(anatomy.CLASSIFIER, own, wanted):
        values[anatomy.CLASSIFIER] = [kernel("classifier"), read("classifier.bias")]
    _assign(model, values, path / "model.safetensors")
    return model


def load_google(path: Path, num_labels: int | None, head: Head | None, seed: int
                ) -> keras.Model:
    """Loads `bert_config.json` with `*.ckpt.*`; as `checkpoint.load` says."""
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
    fields = _read_json(file)
    settings = _config(file, fields)
    _check_vocabulary(path, settings)
    own = _head(fields, trained)
    wanted = head or own.with_outputs(num_labels)
    model = encoder.build(settings, wanted, seed)

    def norm(name):
        return [read(f"{name}/gamma"), read(f"{name}/beta")]

    def dense(name):
        return [read(f"{name}/kernel"), read(f"{name}/bias")]

    values = {
        anatomy.TOKEN_EMBEDDING: [read("bert/embeddings/word_embeddings")],
        anatomy.SEGMENT_EMBEDDING: [read("bert/embeddings/token_type_embeddings")],
        anatomy.POSITION_EMBEDDING: [read("bert/embeddings/position_embeddings")],
        anatomy.EMBEDDING_NORM: norm("bert/embeddings/LayerNorm"),
    }
    if heads.keeps(anatomy.POOLER, own, wanted):
        values[anatomy.POOLER] = dense("bert/pooler/dense")
    for i in range(settings.num_layers):
        for role, published in LAYER_NAMES.items():
            name = f"bert/encoder/layer_{i}/{published.replace('.', '/')}"
            values[layer_name(i, role)] = (
                norm(name) if "Norm" in published else dense(name))
    if trained and heads.keeps(anatomy.CLASSIFIER, own, wanted):
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


def _head(fields: Mapping, trained: int) -> Head:
    """The checkpoint's own head, of as many classes as were trained, or 2."""
    dropout = fields.get("classifier_dropout")
    if dropout is None:
        dropout = fields.get("hidden_dropout_prob", 0.1)
    return Head(outputs=trained or 2, dropout=dropout)


def _config(file: Path, fields: Mapping) -> EncoderConfig:
    try:
        return EncoderConfig.from_published(fields)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: {error}") from error


def _check_files(path: Path, *names: str) -> None:
    for name in names:
        if not (path / name).exists():
            raise ValueError(f"A checkpoint's {name} is missing. Received: {path}")


def _check_vocabulary(path: Path, settings: EncoderConfig) -> None:
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
