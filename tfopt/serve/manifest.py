"""`bundle.json`: what a bundle's directory says of itself, written and checked.

    {"format": 2, "task": {"task": "classification", "labels": [...]},
     "max_length": 128, "scheme": "dynamic_wi8_afp32",
     "files": {"model.tflite": "<sha256>", ...}, "figures": {...}, "source": {...}}

Directories of the first edition have none; theirs is made up from the files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfopt.data import corpus, tokenizer
from tfopt.files import digest, read_json, to_json, write_whole
from tfopt.tasks.classification import Classification
from tfopt.types import shown

FORMAT = 2
MANIFEST_FILE = "bundle.json"
MODEL_FILE = "model.tflite"
REFERENCE_FILE = "reference.json"
# What every directory of the first edition was made for, and cut texts to.
_FIRST_TASK, _FIRST_LENGTH = Classification, 128
_FIELDS: dict[str, type] = {"task": dict, "max_length": int, "files": dict}


def write(directory: Path, fields: Mapping[str, Any], figures: Mapping[str, float]
          ) -> None:
    """Writes `bundle.json`, with the format and the hashes of the bundle's files.

    Args:
        directory: has these files.
        fields: what else is to be in it, JSON values.
        figures: name -> value; those that are no finite number are left out.
    """
    names = [MODEL_FILE, *tokenizer.FILES, REFERENCE_FILE]
    found = {
        "format": FORMAT, **fields,
        "files": {name: digest(directory / name) for name in names
                  if (directory / name).is_file()},
        "figures": {name: float(value) for name, value in figures.items()
                    if math.isfinite(value)}}
    write_whole(directory / MANIFEST_FILE,
                to_json(found, ensure_ascii=False, indent=1) + "\n")


def read(directory: Path) -> dict[str, Any]:
    """Reads and checks `bundle.json`, or what stands for it in the first edition.

    Args:
        directory: of the bundle.

    Returns:
        Its fields.

    Raises:
        ValueError: there is no such directory, it holds no bundle, a newer one, or a
            file is missing, damaged or another than the one written.
    """
    path = directory / MANIFEST_FILE
    if not directory.is_dir():
        raise ValueError(f"A bundle must be a directory. Received: {directory}")
    if not path.is_file():
        return _of_first_edition(directory)
    found = read_json(path, "A bundle's file must be a JSON object")
    if not _is_number(found.get("format")):
        raise ValueError("A bundle's file must be an object with the number `format`. "
                         f"Received: {path}")
    if found["format"] > FORMAT:
        raise ValueError(f"Bundles up to format {FORMAT} can be read; a newer tfopt "
                         f"reads others. Received: {path} of format {found['format']}")
    for name, kind in _FIELDS.items():
        value = found.get(name)
        if not isinstance(value, kind) or kind is int and not _is_number(value):
            raise ValueError(f"A bundle's `{name}` must be of type {kind.__name__}. "
                             f"Received: {path} with {name}={shown(value)}")
    for name in found["files"]:
        if not name or Path(name).name != name or "\0" in name:
            raise ValueError("A bundle's `files` must be named without a directory. "
                             f"Received: {path} with {shown(name)}")
    for name in {MODEL_FILE: None, **found["files"]}:
        _check_file(directory / name, found["files"].get(name))
    return found


def _is_number(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)
            and 0 < value < 1 << 31)


def _check_file(path: Path, expected: str | None) -> None:
    if not path.is_file():
        raise ValueError(f"A bundle's file is missing. Received: {path}")
    if digest(path) != expected:
        raise ValueError("A bundle's files must be those it was written with; this one "
                         f"is damaged, or of another. Received: {path}")


def _of_first_edition(directory: Path) -> dict[str, Any]:
    missing = [name for name in (MODEL_FILE, corpus.LABELS_FILE)
               if not (directory / name).is_file()]
    if not tokenizer.is_in(directory):
        missing.append(f"a tokenizer ({tokenizer.kinds()})")
    if missing:
        raise ValueError(
            f"A bundle must have {MANIFEST_FILE}, or as in the first edition "
            f"{MODEL_FILE}, {corpus.LABELS_FILE} and a tokenizer. Received: "
            f"{directory} without {', '.join(missing)}")
    labels = corpus.read_labels(directory / corpus.LABELS_FILE)
    return {"format": 1, "max_length": _FIRST_LENGTH, "files": {}, "figures": {},
            "task": _FIRST_TASK(labels=tuple(labels)).to_fields()}
