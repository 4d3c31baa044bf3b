"""Checkpoints as others publish them -> keras.Model: Hugging Face's and Google's.

Only files are read here; what their tensors are is for a family (`model.families`).
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from absl import logging

from tfopt import checks
from tfopt.backend import keras, tf
from tfopt.model import encoder, heads, left_over
from tfopt.model.config import EncoderConfig
from tfopt.model.families import registry
from tfopt.model.families.base import Source
from tfopt.model.heads import Head
from tfopt.model.layer_names import CLASSIFIER

# A file that is cut short raises IndexError.
_TENSORFLOW_ERRORS = (tf.errors.OpError, ValueError, RuntimeError, IndexError)
# What Google's training leaves beside the weights.
_OF_TRAINING = re.compile(r"(^|/)(global_step|adam_[mv]|beta[12]_power|loss_scale)$")
_SEVERAL_AT_ONCE = "multi_label_classification"


class Tensors(Protocol):
    """The tensors of a file, under the names that Hugging Face gives them.

    Attributes:
        file: whose they are.
        names: of all.
    """

    file: Path
    names: set[str]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""

    def read(self, name: str) -> np.ndarray:
        """A tensor, <float32>.

        Raises:
            ValueError: it is missing or damaged.
        """


def load_hugging_face(path: Path, num_labels: int | None, head: Head | None, seed: int
                      ) -> keras.Model:
    """Loads `config.json` with `model.safetensors`; as `checkpoint.load` says."""
    _check_files(path, "config.json")
    with _safetensors(path / "model.safetensors") as tensors:
        return _load(path / "config.json", tensors, num_labels, head, seed)


def load_google(path: Path, num_labels: int | None, head: Head | None, seed: int
                ) -> keras.Model:
    """Loads `bert_config.json` with `*.ckpt.*`; as `checkpoint.load` says."""
    prefix = str(sorted(path.glob("*.ckpt.index"))[0]).removesuffix(".index")
    return _load(path / "bert_config.json", _Google(prefix), num_labels, head, seed)


def labels(file: Path) -> list[str] | None:
    """The words of `id2label` in a `config.json`; None where it names none.

    Raises:
        ValueError: the file is no JSON object, or maps not all numbers from 0 to words.
    """
    words = _read_json(file).get("id2label") or {}
    try:
        found = [words[key] for key in sorted(words, key=int)]
        if sorted(map(int, words)) != list(range(len(words))):
            raise ValueError("numbers must be 0, 1, 2 ...")
    except (ValueError, TypeError) as error:
        raise ValueError("`id2label` must map class numbers to words. Received: "
                         f"{file}: {words}") from error
    if all(label == f"LABEL_{i}" for i, label in enumerate(found)):
        return None
    return found


def _load(about: Path, tensors: Tensors, num_labels: int | None, head: Head | None,
          seed: int) -> keras.Model:
    fields = _read_json(about)
    try:
        family = registry.of(fields)
        config = family.config(fields)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{about}: {error}") from error
    _check_vocabulary(about.parent, config)
    try:
        sources = family.weights(config, tensors.names)
    except ValueError as error:
        raise ValueError(f"{tensors.file}: {error}") from error
    asked = num_labels is not None or head is not None
    left_over.check(tensors.file, family.left_over(
        sources, tensors.names, config.num_layers), asked or CLASSIFIER in sources)
    trained = _outputs(tensors, sources.get(CLASSIFIER))
    if trained and not asked:
        _check_trained(about, fields, trained)
    elif not trained and not asked:
        logging.warning("%s: no classifier; a fresh one is made", tensors.file)
    own = family.head(fields, trained)
    wanted = head or own.with_outputs(num_labels)
    model = encoder.build(config, wanted, seed)
    _assign(model, {name: _read(tensors, name, source)
                    for name, source in sources.items()
                    if heads.keeps(name, own, wanted)}, tensors.file)
    return model


def _read(tensors: Tensors, layer: str, source: Source) -> list[np.ndarray]:
    first = _finite(tensors, source.tensors[0])
    others = [np.zeros(len(first), np.float32)  # a Dense without bias computes the same
              if layer == CLASSIFIER and name not in tensors.names
              else _finite(tensors, name) for name in source.tensors[1:]]
    return [first.T if source.transposed else first, *others]


def _finite(tensors: Tensors, name: str) -> np.ndarray:
    """A tensor.

    Raises:
        ValueError: it is missing, damaged, or holds NaN or infinity.
    """
    found = tensors.read(name)
    if not np.all(np.isfinite(found)):
        raise checks.not_finite(name, found, str(tensors.file))
    return found


def _outputs(tensors: Tensors, source: Source | None) -> int | None:
    """Of the classifier that was trained; None for none."""
    weight = source and source.tensors[0]
    if not weight or weight not in tensors.names:
        return None
    shape = tensors.shape(weight)
    return shape[0] if len(shape) == 2 else None


def _check_trained(about: Path, fields: Mapping, outputs: int) -> None:
    """Checks what a config says of the classifier that is loaded with it.

    Raises:
        ValueError: it has other classes, or is no classifier of one class.
    """
    if fields.get("problem_type") == _SEVERAL_AT_ONCE:
        raise ValueError(
            "A classifier must tell one class of a text; `num_labels` asks for a fresh "
            f"one. Received: {about} with problem_type={_SEVERAL_AT_ONCE!r}")
    words = labels(about)
    if words is not None and len(words) != outputs:
        raise ValueError(f"`id2label` must name the classifier's {outputs} classes. "
                         f"Received: {about}: {words}")


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


class _Safetensors:
    """An open `.safetensors`."""

    def __init__(self, file: Path, tensors):
        self.file = file
        self._tensors = tensors
        # As the first releases called the weights of a LayerNorm.
        self._own = {re.sub(r"(LayerNorm\.)(gamma|beta)$", _renamed, name): name
                     for name in tensors.keys()}
        self.names = set(self._own)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors.get_slice(self._own[name]).get_shape())

    def read(self, name: str) -> np.ndarray:
        if name not in self.names:
            raise ValueError("A weight is missing. Received: "
                             f"{self.file} without {name!r}")
        return np.asarray(self._tensors.get_tensor(self._own[name])).astype(np.float32)


class _Google:
    """A TensorFlow checkpoint, whose kernels are [in, out].

    Args:
        prefix: of its files.
    """

    def __init__(self, prefix: str):
        self.file = Path(prefix)
        try:
            self._reader = tf.train.load_checkpoint(prefix)
            self._shapes = self._reader.get_variable_to_shape_map()
        except _TENSORFLOW_ERRORS as error:
            raise ValueError("The TensorFlow checkpoint cannot be read. Received: "
                             f"{prefix}: {error}") from error
        self._own = {_as_hugging_face(name): name for name in self._shapes
                     if not _OF_TRAINING.search(name)}
        self.names = set(self._own)

    def shape(self, name: str) -> tuple[int, ...]:
        own = self._own[name]
        shape = tuple(self._shapes[own])
        return shape[::-1] if own.endswith("/kernel") else shape

    def read(self, name: str) -> np.ndarray:
        if name not in self.names:
            raise ValueError("A weight is missing, which Hugging Face calls so. "
                             f"Received: {self.file} without {name!r}")
        own = self._own[name]
        try:
            tensor = self._reader.get_tensor(own)
        except _TENSORFLOW_ERRORS as error:
            raise ValueError("The TensorFlow checkpoint is damaged. Received: "
                             f"{self.file}: {own}: {error}") from error
        return tensor.T if own.endswith("/kernel") else tensor


def _as_hugging_face(name: str) -> str:
    """The name of a variable of Google's checkpoint as Hugging Face has it."""
    name = {"output_weights": "classifier/weight",
            "output_bias": "classifier/bias"}.get(name, name)
    name = re.sub(r"(LayerNorm/)(gamma|beta)$", _renamed, name)
    name = re.sub(r"(/\w+_embeddings|/kernel)$",
                  lambda match: match[1].replace("/kernel", "") + "/weight", name)
    return re.sub(r"/layer_(\d+)/", r"/layer/\1/", name).replace("/", ".")


def _renamed(match: re.Match) -> str:
    return match[1] + {"gamma": "weight", "beta": "bias"}[match[2]]


@contextlib.contextmanager
def _safetensors(file: Path) -> Iterator[_Safetensors]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as tensors:
            yield _Safetensors(file, tensors)
    except (SafetensorError, OSError) as error:
        raise ValueError("The safetensors file is truncated or damaged. Received: "
                         f"{file}: {error}") from error
