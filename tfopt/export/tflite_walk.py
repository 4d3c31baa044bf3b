"""Bytes of a `.tflite` -> its tables as records, each byte within the file.

What the verifier of FlatBuffers does in C++ (`flatbuffers/verifier.h`), which Python's
has not and LiteRT's interpreter does not call: offsets, sizes and alignment of every
table, vector and string that LiteRT reads are checked before they are followed.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from tfopt.export.tflite_tables import TABLES, UNIONS

IDENTIFIER = b"TFL3"
# A large encoder has 10,000; more is a file that has one table many times over.
_MOST_TABLES = 200_000
_MOST_BYTES = 2 ** 31 - 1  # an offset of FlatBuffers reaches no further
_DTYPES = {letter: np.dtype(f"<{letter}") for letter in "bBhHiIqQfd"}
_DTYPES["?"] = np.dtype(np.uint8)


class Damaged(ValueError):
    """A rule that a file breaks."""


def require(condition: object, rule: str, *received: object) -> None:
    """Raises `Damaged` where a condition does not hold."""
    if not condition:
        raise Damaged(f"{rule}: {', '.join(map(str, received))}" if received else rule)


class Walk:
    """One walk over a file.

    Args:
        data: its bytes; whatever has the buffer protocol.
        tables: that it may have, as of `tflite_tables.TABLES`.
        unions: the same, as of `tflite_tables.UNIONS`.

    Attributes:
        size: how many there are.
    """

    def __init__(self, data, tables: Mapping = TABLES, unions: Mapping = UNIONS):
        self._data, self._known, self._unions = memoryview(data), tables, unions
        self.size = len(self._data)
        self._tables = 0

    def model(self) -> dict[str, Any]:
        """The whole file as a record: field -> value.

        A field that is absent is None where it is a table, a text or a vector, else 0.
        Vectors of scalars are arrays over the file.

        Raises:
            Damaged: something lies outside of the file, or is of no known kind.
        """
        return self.root("Model", IDENTIFIER)

    def root(self, table: str, identifier: bytes) -> dict[str, Any]:
        """The same of a file of another kind, such as metadata.

        Args:
            table: that the file begins with.
            identifier: of the kind.

        Raises:
            Damaged: as of `model`.
        """
        require(8 <= self.size, "it is too short", f"{self.size} bytes")
        require(bytes(self._data[4:8]) == identifier, "its bytes 4 to 8 must be "
                f"{identifier!r}", bytes(self._data[4:8]))
        return self._table(table, self._target(0))

    def _scalar(self, letter: str, place: int) -> Any:
        size = struct.calcsize(f"<{letter}")
        require(0 <= place <= self.size - size and place % size == 0,
                "a number must lie in the file, by a multiple of its size", place)
        return struct.unpack_from(f"<{letter}", self._data, place)[0]

    def _target(self, place: int) -> int:
        """Where an offset leads."""
        offset = self._scalar("I", place)
        require(0 < offset <= _MOST_BYTES and place + offset < self.size,
                "an offset must lead into the file", f"{offset} at {place}")
        return place + offset

    def _table(self, name: str, place: int) -> dict[str, Any]:
        self._tables += 1
        require(self._tables <= _MOST_TABLES, "it has too many tables")
        below = place - self._scalar("i", place)
        size, room = self._scalar("H", below), self._scalar("H", below + 2)
        require(size >= 4 and size % 2 == 0 and below + size <= self.size
                and room >= 4 and place + room <= self.size,
                f"a table, {name}, must lie in the file", place)
        found: dict[str, Any] = {}
        slots = struct.unpack_from(f"<{(size - 4) // 2}H", self._data, below + 4)
        for number, (field, kind) in enumerate(self._known.get(name, ())):
            offset = slots[number] if number < len(slots) else 0
            found[field] = None if len(kind) > 1 else 0
            if not offset or not kind:
                continue
            width = struct.calcsize(f"<{kind}") if len(kind) == 1 else 4
            require(4 <= offset <= room - width, "a field must lie in its table",
                    f"{name}.{field}")
            if kind == "union":
                found[field] = self._union(field, found[f"{field}_type"],
                                           place + offset)
            else:
                found[field] = self._value(kind, place + offset)
        return found

    def _value(self, kind: str, place: int) -> Any:
        if len(kind) == 1:
            return self._scalar(kind, place)
        target = self._target(place)
        if kind == "string":
            return self._text(target)
        if kind[0] == "[":
            return self._vector(kind[1:-1], target)
        return self._table(kind, target)

    def _union(self, field: str, number: int, place: int) -> dict[str, Any] | None:
        names = self._unions.get(field, [""])
        require(number < len(names), f"`{field}` must be of a known kind", number)
        return self._table(names[number], self._target(place)) if number else None

    def _extent(self, place: int, width: int) -> tuple[int, int]:
        """Start and length of a vector, once it is known to lie in the file."""
        count, start = self._scalar("I", place), place + 4
        require(start + count * width <= self.size and start % min(width, 8) == 0,
                "a vector must lie in the file", f"{count} of {width} at {place}")
        return start, count

    def _text(self, place: int) -> str:
        start, count = self._extent(place, 1)
        end = start + count
        require(end < self.size and self._data[end] == 0,
                "a text must end within the file", place)
        return str(bytes(self._data[start:end]), "utf-8", "replace")

    def _vector(self, kind: str, place: int) -> Any:
        dtype = _DTYPES.get(kind)
        start, count = self._extent(place, dtype.itemsize if dtype else 4)
        if dtype is not None:
            return np.frombuffer(self._data, dtype, count, start)
        require(count <= _MOST_TABLES, "it has too many tables", count)
        return [self._value(kind, start + 4 * i) for i in range(count)]
