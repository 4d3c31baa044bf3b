"""What a run is made of, as JSON: contents of files by their hashes, and all options.

Two runs of one identity compute the same, so that the second goes on where the first
was stopped; `difference` says in words what makes them two.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from tfopt.files import read_json, to_json
from tfopt.types import PathLike

RUN_FILE = "run.json"
_BLOCK = 1 << 20
# What a checkpoint of any kind is read from: weights, configs, and how texts are read.
_READ = ("*.keras", "*.safetensors", "*.safetensors.index.json", "*.ckpt[.-]*",
         "checkpoint", "config.json", "bert_config.json", "encoder.json", "bert.json",
         "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
         "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt", "labels.txt",
         "task.json", "text.json")
# What the identity of contents may say beside: where they are from.
_BESIDE = {"revision", "made_of"}
# Options that do not change what is computed.
_FREE = {"num_threads", "wait_s", "out_dir", "trackers"}


def of_file(path: PathLike | None) -> dict[str, str] | None:
    """Name and SHA-256 of a file, read in parts; None for none.

    Raises:
        ValueError: it cannot be read.
    """
    if path is None:
        return None
    return {"name": str(path), "sha256": _hash([Path(path)])}


def of_checkpoint(name: PathLike | None, directory: Path | None = None,
                  revision: str | None = None) -> dict[str, str] | None:
    """Name of a checkpoint, and the hash of all files that are read of it.

    Args:
        name: as it was given; None for no checkpoint.
        directory: where it is; None for one without files.
        revision: the commit of the hub that it is of, if it is.
    """
    if name is None:
        return None
    files = [] if directory is None else sorted(
        {file for pattern in _READ for file in directory.glob(pattern)
         if file.is_file()})
    beside = {"revision": revision, "made_of": directory and _made_of(directory)}
    return {"name": str(name), "sha256": _hash(files),
            **{key: value for key, value in beside.items() if value}}


def _made_of(directory: Path) -> str | None:
    """The repository of the hub, and its commit, that a run left a directory from.

    Args:
        directory: of `finetune`, or a baseline in that of `compress`.
    """
    for place in (directory, directory.parent):
        try:
            found = read_json(place / RUN_FILE)
        except ValueError:  # none, or of another program
            continue
        model, baseline = found.get("model"), found.get("baseline")
        if _is_contents(model) and "revision" in model:
            return f"{model['name'].partition('@')[0]}@{model['revision']}"
        return baseline.get("made_of") if _is_contents(baseline) else None
    return None


def of_options(record: Any, leave: frozenset[str] | set[str] = frozenset()
               ) -> dict[str, Any]:
    """The fields of a record that change what is computed, as JSON has them."""
    return {field.name: _plain(getattr(record, field.name))
            for field in dataclasses.fields(record)
            if field.name not in _FREE | leave}


def digest(identity: Mapping[str, Any]) -> str:
    """A hash of an identity, but for the names of what is known by its contents."""
    return hashlib.sha256(to_json(
        {key: value["sha256"] if _is_contents(value) else value
         for key, value in identity.items()},
        sort_keys=True, default=str).encode()).hexdigest()


def difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Says what two identities differ in; "" where they are one.

    Args:
        there: of the run that a directory holds.
        here: of the one that wants it.
    """
    said = []
    for key in dict.fromkeys([*there, *here]):
        one: Any = there.get(key)
        other: Any = here.get(key)
        if one == other:
            continue
        if _is_contents(one) and _is_contents(other):
            if one["sha256"] != other["sha256"]:
                said.append(
                    f"{key} differs: {Path(other['name']).name} was changed since"
                    if one["name"] == other["name"] else
                    f"{key} differs: {one['name']} there, {other['name']} here")
        else:
            said.append(f"{key} {_short(one)} there, {_short(other)} here")
    return "; ".join(said)


def _short(value: Any) -> str:
    text = value["name"] if _is_contents(value) else to_json(value, default=str)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _is_contents(value: Any) -> TypeGuard[Mapping[str, str]]:
    return (isinstance(value, Mapping) and set(value) - _BESIDE == {"name", "sha256"}
            and all(isinstance(text, str) for text in value.values()))


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _hash(files: list[Path]) -> str:
    found = hashlib.sha256()
    for file in files:
        found.update(f"{file.name}\0".encode() if len(files) > 1 else b"")
        try:
            with file.open("rb") as stream:
                while block := stream.read(_BLOCK):
                    found.update(block)
        except OSError as error:
            raise ValueError(f"A file cannot be read: {error.strerror}. Received: "
                             f"{file}") from error
    return found.hexdigest()
