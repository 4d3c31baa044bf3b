"""The name of a repository of the Hugging Face hub -> a directory with its files.

    fetch("org/name").directory, fetch("org/name@v1").revision

The one door to `huggingface_hub`, which the package tokenizers brings. Its variables
hold: HF_HOME for the cache, HF_HUB_OFFLINE, HF_ENDPOINT, HF_TOKEN. Fetched are weights
as safetensors, configs and tokenizers: nothing that can run code, no pickles and no
.py. Imports no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Collection
from pathlib import Path

from absl import logging

from tfopt import sentence_files, shard_index
from tfopt.types import PathLike

# org/name, org/name@revision; a revision may be a branch, a tag or a commit.
_NAME = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?", re.ASCII)
# All that is fetched, of the repository and of each module of a sentence model.
_FILES = (
    shard_index.WHOLE, shard_index.INDEX, "config.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "adapter_config.json",
    sentence_files.MODULES_FILE, sentence_files.PROMPTS_FILE,
    sentence_files.SETTINGS_FILES)
_UNKNOWN = (401, 404)  # answers to who asks for a repository that is not there
_RULE = "A checkpoint must be a directory, or org/name[@revision] of the hub"


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A repository as it was at one commit.

    Attributes:
        directory: in the cache; not to be written to.
        revision: the commit, in hexadecimal.
    """

    directory: Path
    revision: str


def is_name(name: PathLike) -> bool:
    """Whether a checkpoint's name is one of the hub: of its form, and no file's here.

    A `Path` is never one.
    """
    return (isinstance(name, str) and _NAME.fullmatch(name) is not None
            and not Path(name).exists())


def revision_of(name: PathLike | None) -> str | None:
    """The commit that a name stands for; None for what is no name of the hub.

    Raises:
        ValueError: as `fetch`.
    """
    return fetch(name).revision if isinstance(name, str) and is_name(name) else None


@functools.cache  # one commit in all of a process
def fetch(name: str) -> Snapshot:
    """Fetches a repository, or what of it is not in the cache.

    Args:
        name: org/name, for the branch "main", or org/name@revision.

    Returns:
        Its files and its commit. Without a network, those that the name stood for when
        it was fetched last.

    Raises:
        ValueError: the hub cannot be reached, knows no such repository or revision, or
            gives no access; says which. Or a file that names others is damaged.
        OSError: the cache cannot be written to.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"{_RULE}. Received: {name!r}")
    repository, revision = found.groups()
    asked: set[str] = set()
    wanted = set(_FILES)
    while wanted - asked:  # a file may name others
        asked |= wanted
        directory = _download(name, repository, revision, asked)
        revision = directory.name
        wanted |= _named_in(directory)
    logging.info("%s is of the hub's commit %s", name, revision)
    return Snapshot(directory, directory.name)


def _named_in(directory: Path) -> set[str]:
    """The files that those which were fetched name: of modules, and shards."""
    places = ["", *(place for _, place in sentence_files.modules(directory) if place)]
    found = {f"{place}/{file}" for place in places[1:] for file in _FILES}
    for place in places:
        index = directory / place / shard_index.INDEX
        if index.is_file() and not index.with_name(shard_index.WHOLE).exists():
            found |= {f"{place}/{file}" if place else file
                      for file in shard_index.read(index).values()}
    return found


def _download(name: str, repository: str, revision: str | None,
              files: Collection[str]) -> Path:
    """The directory of a snapshot that has these files, as far as there are any.

    Raises:
        ValueError: as `fetch`.
    """
    import huggingface_hub
    from huggingface_hub import constants

    try:
        return Path(huggingface_hub.snapshot_download(
            repository, revision=revision, allow_patterns=sorted(files)))
    except Exception as error:  # of whichever HTTP library the package uses, too
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk
        raise ValueError(f"{_RULE}, {constants.ENDPOINT}. Received: {name!r}, "
                         f"{_what_is_wrong(error, revision)}") from error


def _what_is_wrong(error: Exception, revision: str | None) -> str:
    """What a failed fetching says of the name."""
    from huggingface_hub import constants, errors

    here = "which is no directory here"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"of which the hub knows no revision {revision!r}"
    if isinstance(error, errors.GatedRepoError):
        return ("which is open to those alone who accept its terms and give a token "
                "(HF_TOKEN)")
    if isinstance(error, errors.HFValidationError):
        return f"{here} and can be no repository's"
    first: BaseException = error
    while first.__cause__ is not None:
        first = first.__cause__
    status = getattr(getattr(first, "response", None), "status_code", None)
    if isinstance(error, errors.RepositoryNotFoundError) or status in _UNKNOWN:
        return f"{here}, and which the hub does not know, or not for this token"
    if constants.HF_HUB_OFFLINE:
        return (f"{here} and not in the cache, and HF_HUB_OFFLINE keeps the hub from "
                "being asked")
    lines = str(first).strip().splitlines() or [type(first).__name__]
    return (f"{here} and not in the cache, and the hub cannot be reached "
            f"({lines[0][:120]})")
