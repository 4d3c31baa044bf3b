"""Checkpoints as others publish them -> keras.Model: Hugging Face's and Google's.

Only files are read here; what their tensors are is for a family (`model.families`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from absl import logging

from tfopt import checks, shard_index
from tfopt.backend import keras
from tfopt.files import read_json
from tfopt.model import (
    encoder,
    google_files,
    heads,
    left_over,
    not_honoured,
    vocabulary_files,
    weight_shapes,
)
from tfopt.model.families import registry
from tfopt.model.families.base import Source
from tfopt.model.heads import Head
from tfopt.model.layer_names import CLASSIFIER
from tfopt.model.tensors import Google, Tensors, open_safetensors, open_shards


def is_in(path: Path) -> bool:
    """Whether a directory has weights as Hugging Face or Google publish them."""
    return _is_hugging_face(path) or google_files.is_in(path)


def _is_hugging_face(path: Path) -> bool:
    return (path / shard_index.WHOLE).exists() or (path / shard_index.INDEX).exists()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Path, Tensors]]:
    """Opens the weights in a directory.

    `config.json` with `model.safetensors`, whole or in shards (where both are there,
    the whole file counts, as for transformers), or `bert_config.json` with Google's
    files.

    Args:
        path: of which `is_in`.

    Yields:
        The JSON, and the tensors.

    Raises:
        ValueError: a file is missing or damaged.
    """
    if not _is_hugging_face(path):
        _check_files(path, google_files.CONFIG_FILE)
        yield path / google_files.CONFIG_FILE, Google(str(google_files.prefix_in(path)))
        return
    _check_files(path, "config.json")
    whole = path / shard_index.WHOLE
    with (open_safetensors(whole) if whole.exists()
          else open_shards(path / shard_index.INDEX)) as found:
        yield path / "config.json", found


def load(path: Path, num_labels: int | None, head: Head | None, seed: int
         ) -> keras.Model:
    """Loads what is in a directory; as `checkpoint.load`."""
    with opened(path) as (about, tensors):
        return _load(about, tensors, num_labels, head, seed)


def labels(file: Path) -> list[str] | None:
    """The words of `id2label` in a `config.json`; None where it names none.

    Raises:
        ValueError: the file is no JSON object, or maps not all numbers from 0 to words.
    """
    words = read_json(file).get("id2label") or {}
    try:
        found = [words[key] for key in sorted(words, key=int)]
        if not all(isinstance(word, str) for word in found):
            raise TypeError
        if sorted(map(int, words)) != list(range(len(words))):
            raise ValueError("numbers must be 0, 1, 2 ...")
    except (ValueError, TypeError) as error:
        raise ValueError("`id2label` must map class numbers to words. Received: "
                         f"{file}: {str(words)[:200]}") from error
    if all(label == f"LABEL_{i}" for i, label in enumerate(found)):
        return None
    return found


def _load(about: Path, tensors: Tensors, num_labels: int | None, head: Head | None,
          seed: int) -> keras.Model:
    fields = read_json(about)
    not_honoured.check_fields(about, fields)
    with _naming(about):
        family = registry.of(fields)
        config = family.config(fields)
    vocabulary_files.check(about.parent, config.vocab_size)
    with _naming(tensors.file):
        sources = family.weights(config, tensors.names)
    asked = num_labels is not None or head is not None
    left_over.check(tensors.file, family.left_over(
        sources, tensors.names, config.num_layers), asked or CLASSIFIER in sources)
    trained = _outputs(tensors, sources.get(CLASSIFIER))
    _check_shapes(tensors, sources, weight_shapes.of_encoder(config)
                  | weight_shapes.of_head(config.hidden_size, trained))
    if trained and not asked:
        _check_trained(about, fields, trained)
    elif not trained and not asked:
        logging.warning("%s: no classifier; a fresh one is made", tensors.file)
    with _naming(about):
        own = family.head(fields, trained)
    wanted = head or own.with_outputs(num_labels)
    if trained and not heads.keeps(CLASSIFIER, own, wanted):
        asked_for = f"a fresh one of {wanted.outputs}" if wanted.outputs else "none"
        logging.warning("%s: a trained classifier of %d outputs is not read; asked for "
                        "is %s", tensors.file, trained, asked_for)
    model = encoder.build(config, wanted, seed)
    _assign(model, {name: _read(tensors, name, source)
                    for name, source in sources.items()
                    if heads.keeps(name, own, wanted)}, tensors.file)
    return model


@contextlib.contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Names a file in errors of what it holds."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: {error}") from error


def _check_shapes(tensors: Tensors, sources: Mapping[str, Source],
                  expected: Mapping[str, list]) -> None:
    """Holds the config against the file, before anything of its sizes is made."""
    for name, source in sources.items():
        wanted = expected.get(name, [])
        if name == CLASSIFIER:  # which may be missing, or its bias
            there = [part in tensors.names for part in source.tensors]
            wanted = [shape for shape, has in zip(wanted, there, strict=False) if has]
        found = [tensors.shape(part) for part in source.tensors[:len(wanted)]]
        received = [shape if i else _as_ours(shape, source)
                    for i, shape in enumerate(found)]
        if received != wanted:
            raise ValueError(
                f"The weights of layer {name!r} must have the shapes {wanted} "
                f"that the config gives. Received: {received} in {tensors.file}")


def _as_ours(shape: tuple[int, ...], source: Source) -> tuple[int, ...]:
    """The shape that the first tensor of a source has as a weight of ours."""
    if source.transposed:
        return shape[::-1]
    return (shape[0] - source.skipped, *shape[1:]) if source.skipped else shape


def _read(tensors: Tensors, layer: str, source: Source) -> list[np.ndarray]:
    first = finite(tensors, source.tensors[0])[source.skipped:]
    if source.added:
        first = first + finite(tensors, source.added)[0]
    others = [np.zeros(len(first), np.float32)  # a Dense without bias computes the same
              if layer == CLASSIFIER and name not in tensors.names
              else finite(tensors, name) for name in source.tensors[1:]]
    return [first.T if source.transposed else first, *others]


def finite(tensors: Tensors, name: str) -> np.ndarray:
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
        ValueError: it has other classes, or is no classifier of texts.
    """
    not_honoured.check_head(about, fields)
    words = labels(about)
    if words is not None and len(words) != outputs:
        raise ValueError(f"`id2label` must name the classifier's {outputs} classes. "
                         f"Received: {about}: {words}")


def _assign(model: keras.Model, values: Mapping[str, list], source: Path) -> None:
    for name, arrays in values.items():
        model.get_layer(name).set_weights(arrays)
    fresh = [layer.name for layer in model.layers
             if layer.weights and layer.name not in values]
    if fresh:  # beneath a classifier that was trained, they give it other numbers
        say = logging.warning if CLASSIFIER in values else logging.info
        say("%s: fresh weights for %s", source, ", ".join(fresh))


def _check_files(path: Path, *names: str) -> None:
    for name in names:
        if not (path / name).exists():
            raise ValueError(f"A checkpoint's {name} is missing. Received: {path}")
