"""The tensors in files of others, under the names that Hugging Face gives them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from tfopt import shard_index
from tfopt.backend import tf
from tfopt.files import MOST_JSON_BYTES, parse_json

# A file that is cut short raises IndexError.
_TENSORFLOW_ERRORS = (tf.errors.OpError, ValueError, RuntimeError, IndexError)
# What Google's training leaves beside the weights.
_OF_TRAINING = re.compile(r"(^|/)(global_step|adam_[mv]|beta[12]_power|loss_scale)$")
_NAMED = 6  # files, in a message
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


class Safetensors:
    """An open `.safetensors`.

    Attributes:
        published: the names of its tensors as they stand in the file.
    """

    def __init__(self, file: Path, tensors):
        self.file = file
        self._tensors = tensors
        # As the first releases called the weights of a LayerNorm.
        self._own = {re.sub(r"(LayerNorm\.)(gamma|beta)$", _renamed, name): name
                     for name in tensors.keys()}
        self.names = set(self._own)
        self.published = set(self._own.values())

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; see `Tensors`."""
        return tuple(self._slice(name).get_shape())

    def read(self, name: str) -> np.ndarray:
        """A tensor, <float32>; see `Tensors`."""
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


class Shards:
    """Several open `.safetensors`, as one.

    Args:
        index: the file that names them.
        shards: name of a file -> it.

    Raises:
        ValueError: a tensor lies in two of them.
    """

    def __init__(self, index: Path, shards: Mapping[str, Safetensors]):
        self.file = index
        self._holders: dict[str, Safetensors] = {}
        for shard in shards.values():
            for name in sorted(shard.names):
                other = self._holders.setdefault(name, shard)
                if other is not shard:
                    raise ValueError(
                        "A tensor must lie in one shard alone. Received: "
                        f"{index}: {name!r} in {other.file.name}, {shard.file.name}")
        self.names = set(self._holders)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; see `Tensors`."""
        return self._holder(name).shape(name)

    def read(self, name: str) -> np.ndarray:
        """A tensor, <float32>; see `Tensors`."""
        return self._holder(name).read(name)

    def _holder(self, name: str) -> Safetensors:
        if name not in self.names:
            raise ValueError("A weight is missing. Received: "
                             f"{self.file} without {name!r}")
        return self._holders[name]


class Google:
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
        """The shape of a tensor; see `Tensors`."""
        own = self._name(name)
        shape = tuple(self._shapes[own])
        return shape[::-1] if own.endswith("/kernel") else shape

    def read(self, name: str) -> np.ndarray:
        """A tensor, <float32>; see `Tensors`."""
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
def open_safetensors(file: Path) -> Iterator[Safetensors]:
    """Opens a `.safetensors`.

    Raises:
        ValueError: it is truncated or damaged.
    """
    from safetensors import SafetensorError, safe_open

    _check_header(file)
    try:
        with safe_open(file, "np") as tensors:
            yield Safetensors(file, tensors)
    except (SafetensorError, OSError) as error:
        raise ValueError("The safetensors file is truncated or damaged. Received: "
                         f"{file}: {error}") from error


@contextlib.contextmanager
def open_shards(index: Path) -> Iterator[Shards]:
    """Opens all files that an index names.

    Args:
        index: a `model.safetensors.index.json`.

    Raises:
        ValueError: it is damaged; a file is missing, damaged, or lacks a tensor that
            it should have. Names the file.
    """
    places = shard_index.read(index)
    names = list(dict.fromkeys(places.values()))
    missing = [name for name in names if not index.with_name(name).is_file()]
    if missing:
        raise ValueError("Every shard must lie beside its index. Received: "
                         f"{index} without {', '.join(missing[:_NAMED])}")
    with contextlib.ExitStack() as opened:
        shards = {name: opened.enter_context(open_safetensors(index.with_name(name)))
                  for name in names}
        for name, file in places.items():
            if name not in shards[file].published:
                raise ValueError("A shard must have the tensors that its index says. "
                                 f"Received: {index.with_name(file)} without {name!r}")
        yield Shards(index, shards)


def _check_header(file: Path) -> None:
    """Refuses a header with a name twice, of which the last would count."""
    with open(file, "rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        parse_json(opened.read(min(size, MOST_JSON_BYTES + 1)), str(file),
                   "The safetensors file is truncated or damaged")
