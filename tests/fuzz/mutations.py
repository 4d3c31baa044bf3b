"""Seeded damage to files: bytes, lines, values of a JSON, members of a zip.

Each function takes a `random.Random` and a file's contents, and gives others. All but
`of_bytes` keep the outer form, so that what lies within is damaged, not the wrapping.
"""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

Mutation = Callable[[random.Random, bytes], bytes]

_WORDS = [0, 1, 2, 7, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff]
_TEXTS = [b"", b"\0", b"\xff\xfe", b"\xed\xa0\xbd", b"\xef\xbb\xbf", b"\r", b"\n\n",
          b"\t\t\t", b'"', b"'", b"\\", b"\\ud83d", b"{", b"}", b"[", b"NaN", b"-1",
          b"1e999", b"[" * 50_000, b'{"a":' * 50_000, b"9" * 5000, b"\xf0\x9f\x98\x80"]
_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3.5, 1e-300, 1e300, 2 ** 31, 2 ** 63, -2 ** 63,
    10 ** 30, float("nan"), float("inf"), float("-inf"), "", "x", "0", "relu",
    "\ud83d", "\0", "../../x", "x" * 5000, [], [[]], [0], [None], [-1], ["x"],
    [1e300], {}, {"": {}}, {"0": ["bad"]}, {"class_name": "Lambda", "config": {}}]
_MOST_CHANGES = 3


def of_bytes(source: random.Random, contents: bytes) -> bytes:
    """Overwrites, cuts out, doubles, or puts in, a few times."""
    changed = bytearray(contents)
    for _ in range(source.randint(1, _MOST_CHANGES)):
        place = source.randrange(len(changed) + 1)
        kind = source.randrange(8)
        if kind == 0:
            changed = changed[:place]
        elif kind == 1:
            del changed[place:place + source.randint(1, 16)]
        elif kind == 2:
            changed[place:place] = source.choice(_TEXTS)
        elif kind == 3:
            part = changed[place:place + source.randint(1, 64)]
            changed[place:place] = part
        elif kind == 4 and changed:
            changed[place % len(changed)] ^= 1 << source.randrange(8)
        else:
            _overwrite(source, changed, place)
    return bytes(changed)


def _overwrite(source: random.Random, changed: bytearray, place: int) -> None:
    """Overwrites a word, as fields of binary formats lie."""
    place -= place % 4
    if place + 4 <= len(changed):
        old = struct.unpack_from("<I", changed, place)[0]
        new = source.choice([*_WORDS, old + 1, old - 1, old * 2, 256 * old])
        struct.pack_into("<I", changed, place, new & 0xffffffff)


def of_words(source: random.Random, contents: bytes) -> bytes:
    """Overwrites words and bytes of a binary file, whose parts stay where they are."""
    if source.random() < 0.1:
        return of_bytes(source, contents)
    changed = bytearray(contents)
    for _ in range(source.randint(1, _MOST_CHANGES)):
        place = source.randrange(len(changed))
        if source.random() < 0.3:
            changed[place] = source.choice([0, 1, 2, 0x7f, 0x80, 0xff,
                                            source.randrange(256)])
        else:
            _overwrite(source, changed, place)
    return bytes(changed)


def of_lines(source: random.Random, contents: bytes) -> bytes:
    """Drops, doubles, joins or swaps lines, or puts an odd text into one."""
    lines = contents.split(b"\n")
    for _ in range(source.randint(1, _MOST_CHANGES)):
        place = source.randrange(len(lines))
        kind = source.randrange(5)
        if kind == 0 and len(lines) > 1:
            del lines[place]
        elif kind == 1:
            lines.insert(place, source.choice(lines))
        elif kind == 2:
            other = source.randrange(len(lines))
            lines[place], lines[other] = lines[other], lines[place]
        else:
            at = source.randrange(len(lines[place]) + 1)
            lines[place] = (lines[place][:at] + source.choice(_TEXTS)
                            + lines[place][at:])
    return b"\n".join(lines)


def of_json(source: random.Random, contents: bytes) -> bytes:
    """Changes values, keys and nesting; now and then the text itself."""
    if source.random() < 0.15:
        return of_bytes(source, contents)
    try:
        value = json.loads(contents)
    except ValueError:
        return of_bytes(source, contents)
    for _ in range(source.randint(1, _MOST_CHANGES)):
        value = _changed(source, value)
    text = json.dumps(value)
    if source.random() < 0.1 and text.startswith("{") and len(text) > 2:
        text = f'{{{text[1:-1]}, {text[1:-1]}}}'  # each key twice
    return text.encode()


def of_jsonl(source: random.Random, contents: bytes) -> bytes:
    """Changes a line of JSON, or the lines."""
    if source.random() < 0.5:
        return of_lines(source, contents)
    lines = contents.split(b"\n")
    place = source.randrange(len(lines))
    lines[place] = of_json(source, lines[place])
    return b"\n".join(lines)


def of_safetensors(source: random.Random, contents: bytes) -> bytes:
    """Changes the header, a JSON behind its length, or any byte."""
    if source.random() < 0.4:
        return of_bytes(source, contents)
    size = struct.unpack_from("<Q", contents)[0]
    header = of_json(source, contents[8:8 + size])
    return struct.pack("<Q", len(header)) + header + contents[8 + size:]


def of_zip(source: random.Random, contents: bytes) -> bytes:
    """Changes a member, its checksum made anew; or the members; or any byte."""
    if source.random() < 0.1:
        return of_bytes(source, contents)
    with zipfile.ZipFile(io.BytesIO(contents)) as parts:
        members = {name: parts.read(name) for name in parts.namelist()}
    name = source.choice(sorted(members))
    kind = source.randrange(20)
    if kind == 0:
        del members[name]
    elif kind == 1:
        members["../" + name] = members[name]
    else:
        change = of_json if name.endswith(".json") else of_bytes
        members[name] = change(source, members[name])
    made = io.BytesIO()
    packed = zipfile.ZIP_DEFLATED if kind == 2 else zipfile.ZIP_STORED
    with zipfile.ZipFile(made, "w", packed) as parts:
        for name, data in members.items():
            parts.writestr(name, data)
    return made.getvalue()


def _changed(source: random.Random, value: Any) -> Any:
    """A copy of a JSON value, other in one place."""
    places = [(value, key) for value, key in _places([value])]
    holder, key = source.choice(places)
    kind = source.randrange(6)
    if holder is places[0][0] and kind < 5 and len(places) > 1:  # seldom all of it
        holder, key = source.choice(places[1:])
    if kind == 0 and isinstance(holder, dict):
        del holder[key]
    elif kind == 1 and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    elif kind == 2 and isinstance(holder, dict):
        holder[source.choice(["", "x", "0", str(key).upper()])] = copy.deepcopy(
            holder[key])
    elif kind == 3:
        other = source.choice(places)[0]
        holder[key] = None if _within(holder, other) else copy.deepcopy(other)
    elif kind == 4 and isinstance(holder[key], int) and not isinstance(
            holder[key], bool):
        holder[key] = source.choice([holder[key] + 1, holder[key] * 1000, -holder[key]])
    else:
        holder[key] = copy.deepcopy(source.choice(_VALUES))  # changed later itself
    root = places[0][0]
    return root[0] if root else None


def _places(root: list):
    """Every (list or dict, key) under a list of one, that first."""
    waiting: list = [root]
    while waiting:
        holder = waiting.pop()
        keys = holder if isinstance(holder, dict) else range(len(holder))
        for key in list(keys):
            yield holder, key
            if isinstance(holder[key], list | dict):
                waiting.append(holder[key])


def _within(part: Any, whole: Any) -> bool:
    return part is whole or any(holder is part for holder, _ in _places([whole]))
