"""Checkpoints as others publish them -> keras.Model: Hugging Face's and Google's.

Only files are read here; what their tensors are is for a family (`model.families`).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from absl import logging

from tfopt.backend import keras, tf
from tfopt.files import MOST_JSON_BYTES, parse_json, read_json
from tfopt.model import encoder, heads, weight_shapes
from tfopt.model.config import EncoderConfig
from tfopt.model.families import registry
from tfopt.model.families.base import Source
from tfopt.model.heads import Head
from tfopt.model.layer_names import CLASSIFIER

# A file that is cut short raises IndexError.
_TENSORFLOW_ERRORS = (tf.errors.OpError, ValueError, RuntimeError, IndexError)
# Of tensors that a classifier may be in, which a family must not pass over in silence.
_LIKE_A_CLASSIFIER = re.compile(r"classif|out_proj|scor(e|er)\b|logits|qa_outputs")


# As safetensors calls them.
_FLOATS = ("F32", "F16", "BF16", "F64")


class Tensors(Protocol):
    """The tensors of a file, under the names that Hugging Face gives them.

    Attributes:
        file: whose they are.
        names: of all.
    """

    file: Path
    names: set[str]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor.

        Raises:
            ValueError: it is missing.
        """

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
        ValueError: the file is no JSON object, or maps no numbers to words.
    """
    words = read_json(file).get("id2label") or {}
    try:
        found = [words[key] for key in sorted(words, key=int)]
        if not all(isinstance(word, str) for word in found):
            raise TypeError
    except (ValueError, TypeError) as error:
        raise ValueError("`id2label` must map class numbers to words. Received: "
                         f"{file}: {str(words)[:200]}") from error
    if all(label == f"LABEL_{i}" for i, label in enumerate(found)):
        return None
    return found


def _load(about: Path, tensors: Tensors, num_labels: int | None, head: Head | None,
          seed: int) -> keras.Model:
    fields = read_json(about)
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
    _warn_of_other_classifiers(tensors, sources)
    trained = _outputs(tensors, sources.get(CLASSIFIER))
    _check_shapes(tensors, sources, weight_shapes.of_encoder(config)
                  | weight_shapes.of_head(config.hidden_size, trained))
    own = family.head(fields, trained)
    wanted = head or own.with_outputs(num_labels)
    model = encoder.build(config, wanted, seed)
    _assign(model, {name: _read(tensors, source) for name, source in sources.items()
                    if heads.keeps(name, own, wanted)}, tensors.file)
    return model


def _outputs(tensors: Tensors, classifier: Source | None) -> int | None:
    """C of the classifier that was trained; None where there is none."""
    if classifier is None:
        return None
    shape = tensors.shape(classifier.tensors[-1])
    if len(shape) != 1 or not shape[0]:
        raise ValueError("The bias of a classifier must have a number for each class. "
                         f"Received: {tensors.file} with {classifier.tensors[-1]!r} of "
                         f"the shape {shape}")
    return shape[0]


def _check_shapes(tensors: Tensors, sources: Mapping[str, Source],
                  expected: Mapping[str, list]) -> None:
    """Holds the config against the file, before anything of its sizes is made."""
    for name, source in sources.items():
        first, *others = map(tensors.shape, source.tensors)
        received = [first[::-1] if source.transposed else first, *others]
        if received != expected[name]:
            raise ValueError(
                f"The weights of layer {name!r} must have the shapes {expected[name]} "
                f"that the config gives. Received: {received} in {tensors.file}")


def _read(tensors: Tensors, source: Source) -> list[np.ndarray]:
    first, *others = map(tensors.read, source.tensors)
    return [first.T if source.transposed else first, *others]


def _warn_of_other_classifiers(tensors: Tensors, sources: Mapping[str, Source]) -> None:
    known = {name for source in sources.values() for name in source.tensors}
    others = sorted(name for name in tensors.names - known
                    if _LIKE_A_CLASSIFIER.search(name))
    if others:
        logging.warning("%s: a head that is not read: %s", tensors.file,
                        ", ".join(others))


def _assign(model: keras.Model, values: Mapping[str, list], source: Path) -> None:
    for name, arrays in values.items():
        model.get_layer(name).set_weights(arrays)
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
        return tuple(self._slice(name).get_shape())

    def read(self, name: str) -> np.ndarray:
        dtype = self._slice(name).get_dtype()
        if dtype not in _FLOATS:
            raise ValueError(f"Weights must be of one of the dtypes {_FLOATS}. "
                             f"Received: {self.file} with {name!r} of {dtype}")
        return np.asarray(self._tensors.get_tensor(self._own[name])).astype(np.float32)

    def _slice(self, name: str):
        if name not in self.names:
            raise ValueError("A weight is missing. Received: "
                             f"{self.file} without {name!r}")
        return self._tensors.get_slice(self._own[name])


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
        self._own = {_as_hugging_face(name): name for name in self._shapes}
        self.names = set(self._own)

    def shape(self, name: str) -> tuple[int, ...]:
        own = self._name(name)
        shape = tuple(self._shapes[own])
        return shape[::-1] if own.endswith("/kernel") else shape

    def read(self, name: str) -> np.ndarray:
        own = self._name(name)
        try:
            tensor = self._reader.get_tensor(own)
        except _TENSORFLOW_ERRORS as error:
            raise ValueError("The TensorFlow checkpoint is damaged. Received: "
                             f"{self.file}: {own}: {error}") from error
        if getattr(tensor, "dtype", None) not in (np.float32, np.float16, np.float64):
            raise ValueError("Weights must be of float numbers. Received: "
                             f"{self.file}: {own}")
        tensor = tensor.astype(np.float32, copy=False)
        return tensor.T if own.endswith("/kernel") else tensor

    def _name(self, name: str) -> str:
        if name not in self.names:
            raise ValueError("A weight is missing, which Hugging Face calls so. "
                             f"Received: {self.file} without {name!r}")
        return self._own[name]


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

    _check_header(file)
    try:
        with safe_open(file, "np") as tensors:
            yield _Safetensors(file, tensors)
    except (SafetensorError, OSError) as error:
        raise ValueError("The safetensors file is truncated or damaged. Received: "
                         f"{file}: {error}") from error


def _check_header(file: Path) -> None:
    """Refuses a header with a name twice, of which the last would count."""
    with open(file, "rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        parse_json(opened.read(min(size, MOST_JSON_BYTES + 1)), str(file),
                   "The safetensors file is truncated or damaged")
