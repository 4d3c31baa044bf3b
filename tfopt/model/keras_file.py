"""A `model.keras` of any origin -> keras.Model, once all in it has been looked at.

The file is a zip of `config.json`, which `saved_config` checks, and of weights in HDF5,
whose sizes bound what the model may allocate.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from tfopt.backend import keras, tf
from tfopt.files import MOST_JSON_BYTES, parse_json
from tfopt.model import saved_config

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_HEADER = struct.Struct("<4s5H3I2H")  # of a member: its last are sizes of what follows
# Beyond the weights that a file has: random states, counters.
_ROOM_BYTES = 1 << 20
_COPY_BYTES = 1 << 22  # at a time


def load(file: Path, custom_objects: Mapping[str, Any] | None = None) -> keras.Model:
    """Loads a saved model, uncompiled.

    Args:
        file: of a name that ends in `.keras`.
        custom_objects: name -> class or function of the user's own.

    Returns:
        The model.

    Raises:
        ValueError: the file is damaged, of Keras 3, has a class that is not known, or
            weights other than its configuration says; names it.
    """
    try:
        with zipfile.ZipFile(file) as parts:
            _check_members(parts, file.stat().st_size)
            version = str(_json(parts, _METADATA).get("keras_version"))
            if not version.startswith("2."):
                raise ValueError("it must be of Keras 2 (tf_keras), saved where "
                                 "TF_USE_LEGACY_KERAS=1 is set before TensorFlow is "
                                 f"imported; it is of Keras {version[:20]}")
            config = _json(parts, _CONFIG)
            saved_config.check(config, custom_objects)
            with open(file, "rb") as whole:
                weights = _Member(whole, parts.getinfo(_WEIGHTS))
                size = _weight_bytes(weights)
                with _allocating_at_most(size + _ROOM_BYTES):
                    loaded = keras.saving.deserialize_keras_object(
                        config | {"compile_config": None}, custom_objects)
                _load_weights(loaded, file, weights)
        return loaded
    except Exception as error:  # zip, HDF5 and Keras each raise their own
        raise ValueError("The saved model cannot be read. Received: "
                         f"{file}: {error}") from error


def _check_members(parts: zipfile.ZipFile, size: int) -> None:
    found = parts.infolist()
    names = sorted(part.filename for part in found)
    if names != sorted([_CONFIG, _METADATA, _WEIGHTS]):
        raise ValueError("it must have a configuration, metadata and weights, once "
                         f"each, and no other files: {names[:6]}")
    # As Keras writes it; what is compressed can be of any size.
    if any(part.compress_type != zipfile.ZIP_STORED for part in found) or sum(
            part.file_size for part in found) > size:
        raise ValueError("its files must be stored as they are")


def _json(parts: zipfile.ZipFile, name: str) -> dict[str, Any]:
    with parts.open(name) as file:
        return parse_json(file.read(MOST_JSON_BYTES + 1), name)


class _Member(io.RawIOBase):
    """A member that is stored as it is, as a file; `zipfile` reads all before a place.

    Args:
        whole: the zip, open.
        about: what it says of the member.

    Attributes:
        size: bytes.
    """

    def __init__(self, whole: BinaryIO, about: zipfile.ZipInfo):
        whole.seek(about.header_offset)
        head = whole.read(_HEADER.size)
        *_, name, extra = _HEADER.unpack(head)
        self._whole, self.size = whole, about.file_size
        self._start = about.header_offset + len(head) + name + extra
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size}
        self._place = base[whence] + offset
        return self._place

    def readinto(self, buffer) -> int:
        count = max(0, min(len(buffer), self.size - self._place))
        self._whole.seek(self._start + self._place)
        found = self._whole.read(count)
        buffer[:len(found)] = found
        self._place += len(found)
        return len(found)


def _weight_bytes(file: _Member) -> int:
    """Bytes of all weights, which must be stored in the file as they are.

    HDF5 can also point to other files, and unpack a little to any size.
    """
    import h5py

    size, total, seen = file.size, 0, set()
    with h5py.File(file, "r") as opened:
        waiting = [opened]
        while waiting:
            group = waiting.pop()
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"its weights must be in it: {name[:60]!r}")
                item = group[name]
                place = h5py.h5o.get_info(item.id).addr
                if place in seen:
                    raise ValueError(f"its weights must be there once: {name[:60]!r}")
                seen.add(place)
                if isinstance(item, h5py.Group):
                    waiting.append(item)
                    continue
                if (item.dtype.kind not in "biuf" or item.is_virtual or item.external
                        or item.chunks or item.nbytes > size):
                    raise ValueError("its weights must be plain arrays of numbers: "
                                     f"{name[:60]!r} {item.shape} {item.dtype}")
                total += item.nbytes
    if total > size:
        raise ValueError(f"its weights must be in it: {total} bytes in {size}")
    return total


def _load_weights(loaded: keras.Model, file: Path, weights: _Member) -> None:
    """Loads them from a copy: within a zip each place is found by reading all before.

    That takes 17 seconds for 90 MB; where no disk has room for a copy it must do.
    """
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory, "model.weights.h5")
        try:
            with copy.open("wb") as target:
                weights.seek(0)
                shutil.copyfileobj(weights, target, _COPY_BYTES)
        except OSError:
            copy = file
        loaded.load_weights(copy)


@contextlib.contextmanager
def _allocating_at_most(size: int) -> Iterator[None]:
    """Refuses variables of more than so many bytes together, before they are made."""
    left = size

    def create(next_creator, **kwargs):
        nonlocal left
        shape = kwargs.get("shape")
        if shape is None:
            shape = getattr(kwargs.get("initial_value"), "shape", ())
        count = tf.TensorShape(shape).num_elements() or 0
        left -= count * tf.as_dtype(kwargs.get("dtype") or tf.float32).size
        if left < 0:
            raise ValueError("its configuration asks for more weights than it has: "
                             f"{list(shape)} is too much")
        return next_creator(**kwargs)

    with tf.variable_creator_scope(create):
        yield
