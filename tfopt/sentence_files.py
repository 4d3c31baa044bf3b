"""A directory of sentence-transformers -> its encoder, and how vectors are made of it.

`modules.json` names what a text goes through: an encoder (`Transformer`), `Pooling`
over its tokens, and perhaps `Normalize`. After Reimers and Gurevych 2019,
"Sentence-BERT", arXiv:1908.10084. Imports no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfopt.files import read_json
from tfopt.types import PathLike, shown

MODULES_FILE = "modules.json"
PROMPTS_FILE = "config_sentence_transformers.json"
SETTINGS_FILES = "sentence_*_config.json"  # of each kind of encoder, its own
_CONFIG = "config.json"
_LIST = "Modules must be a list of JSON objects with `path` and `type`"
_ENCODER, _POOLING, _NORMALIZE = "Transformer", "Pooling", "Normalize"
# A place below the directory: none within a hidden one, none above.
_PLACE = re.compile(r"(?:\w[\w.-]*(?:/\w[\w.-]*)*)?", re.ASCII)
_MODE = "pooling_mode"
# What the files call a pooling -> what `heads.Head` calls the tokens that it reads.
_READS = {"cls": "first", "mean": "mean"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pooling:
    """How a vector is made of an encoder's last states.

    Attributes:
        reads: the tokens: "first", or "mean" of the visible ones.
        normalize: whether the vector is divided by its L2 norm.
        max_length: tokens to which texts are cut; None where the files do not say.
        lowercase: whether texts are made lower case before the tokenizer has them.
    """

    reads: str
    normalize: bool = False
    max_length: int | None = None
    lowercase: bool = False


def modules(directory: Path) -> list[tuple[str, str]]:
    """The modules of a directory, in the order in which a text goes through them.

    Args:
        directory: of a model of sentence-transformers, or of another.

    Returns:
        For each its kind, such as "Pooling", and its place below the directory ("" for
        the directory itself); nothing where no `modules.json` is.

    Raises:
        ValueError: the file is damaged, or a place is not below the directory.
    """
    path = directory / MODULES_FILE
    if not path.is_file():
        return []
    found = []
    for module in read_json(path, _LIST, list):
        place, kind = (module.get(name) if isinstance(module, dict) else None
                       for name in ("path", "type"))
        if not isinstance(place, str) or not isinstance(kind, str):
            raise ValueError(f"{_LIST}. Received: {path}: {shown(module)}")
        if not _PLACE.fullmatch(place):
            raise ValueError("A module must lie below the directory of its "
                             f"{MODULES_FILE}. Received: {path}: path={shown(place)}")
        found.append((kind.rpartition(".")[2], place))
    return found


def encoder_in(directory: Path) -> Path:
    """Where the encoder of a directory lies: in it, or in `0_Transformer` below.

    Raises:
        ValueError: as `modules`.
    """
    if (directory / _CONFIG).is_file():
        return directory
    first = next(iter(modules(directory)), None)
    if first is None or first[0] != _ENCODER:
        return directory
    return directory / first[1]


def pooling_of(directory: PathLike) -> Pooling | None:
    """How vectors are made, as the files of a directory say.

    Args:
        directory: of a model of sentence-transformers, or of the encoder in it.

    Returns:
        The pooling; None where no `modules.json` tells of one.

    Raises:
        ValueError: a file is damaged, or says what is not honoured: another pooling, a
            module of another kind, a prompt before each text. Names it.
    """
    directory = Path(directory)
    found = modules(directory)
    if not found and directory.name in {
            place for _, place in modules(directory.parent)[:1]}:
        directory = directory.parent
        found = modules(directory)
    if not found:
        return None
    kinds = [kind for kind, _ in found]
    if kinds not in ([_ENCODER, _POOLING], [_ENCODER, _POOLING, _NORMALIZE]):
        raise ValueError(
            f"Modules must be {_ENCODER}, {_POOLING} and, if need be, {_NORMALIZE}; "
            f"others are not honoured. Received: {directory / MODULES_FILE} with "
            f"{', '.join(kinds)}")
    _check_prompts(directory / PROMPTS_FILE)
    max_length, lowercase = _settings(directory / found[0][1])
    return Pooling(reads=_reads(directory / found[1][1] / _CONFIG),
                   normalize=len(kinds) > 2, max_length=max_length, lowercase=lowercase)


def _reads(path: Path) -> str:
    """The tokens that a pooling reads."""
    fields = read_json(path)
    modes = fields.get(_MODE)
    if modes is None:  # one flag a mode, as all files had it to sentence-transformers 5
        modes = [re.sub("_tokens?$", "", name.removeprefix(f"{_MODE}_"))
                 for name, on in fields.items()
                 if name.startswith(f"{_MODE}_") and on is not False]
    modes = modes if isinstance(modes, list) else [modes]
    if len(modes) != 1 or not isinstance(modes[0], str) or modes[0] not in _READS:
        raise ValueError("A pooling must be of the mean of tokens, or of the first; no "
                         f"other is honoured. Received: {path}: {shown(modes)}")
    return _READS[modes[0]]


def _settings(directory: Path) -> tuple[int | None, bool]:
    """The length to which texts are cut, and whether they are made lower case."""
    file = next(iter(sorted(directory.glob(SETTINGS_FILES))), None)
    fields: Mapping[str, Any] = {} if file is None else read_json(file)
    length, lower = fields.get("max_seq_length"), fields.get("do_lower_case") or False
    if length is not None and (type(length) is not int or not 0 < length < 1 << 31):
        raise ValueError("`max_seq_length` must be a whole number from 1, or null. "
                         f"Received: {file}: max_seq_length={shown(length)}")
    if type(lower) is not bool:
        raise ValueError("`do_lower_case` must be true or false. Received: "
                         f"{file}: do_lower_case={shown(lower)}")
    return length, lower


def _check_prompts(file: Path) -> None:
    name = read_json(file).get("default_prompt_name") if file.is_file() else None
    if name is not None:
        raise ValueError("A prompt that stands before each text is not honoured. "
                         f"Received: {file}: default_prompt_name={shown(name)}")
