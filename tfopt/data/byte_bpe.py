"""Text -> token ids, by the byte-level BPE of `vocab.json` and `merges.txt`.

As RoBERTa has it, after Radford et al. 2019 (GPT-2): a text's bytes are merged pair by
pair, so that none is unknown. First and last stand <s> and </s>, and two </s> between
the texts of a pair.
"""

from __future__ import annotations

from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors

from tfopt.data.tokenizer_json import JsonTokenizer
from tfopt.data.tokenizer_settings import ROBERTA_TOKENS, Settings, add_tokens
from tfopt.files import read_json
from tfopt.types import PathLike

VOCABULARY_FILE = "vocab.json"
MERGES_FILE = "merges.txt"
_VERSION = "#version"  # begins a first line that is no merge


def from_directory(directory: PathLike) -> JsonTokenizer:
    """Reads vocabulary, merges and, if there, the settings beside them.

    Args:
        directory: of the checkpoint.

    Returns:
        The tokenizer.

    Raises:
        ValueError: a file is missing, damaged, or the vocabulary lacks a special token.
    """
    directory = Path(directory)
    settings = Settings(directory)
    ids, merges = _vocabulary(directory), _merges(directory / MERGES_FILE)
    special = settings.special_tokens(ROBERTA_TOKENS)
    missing = [token.content for token in special.values() if token.content not in ids]
    if missing:
        raise ValueError("A vocabulary must hold its special tokens. Received: "
                         f"{directory / VOCABULARY_FILE} without {', '.join(missing)}")
    try:
        backend = tokenizers.Tokenizer(models.BPE(
            ids, merges, continuing_subword_prefix="", end_of_word_suffix=""))
    except Exception as error:  # tokenizers raises no kind of its own
        raise ValueError(f"Vocabulary and merges do not fit. Received: {directory}: "
                         f"{error}") from error
    spaced = bool(settings.flag("add_prefix_space"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    backend.decoder = decoders.ByteLevel()
    tokens = {use: token.content for use, token in special.items()}
    backend.post_processor = processors.RobertaProcessing(
        (tokens["sep_token"], ids[tokens["sep_token"]]),
        (tokens["cls_token"], ids[tokens["cls_token"]]), add_prefix_space=spaced)
    add_tokens(backend, special, settings)
    return JsonTokenizer(backend, tokens)


def _vocabulary(directory: Path) -> dict[str, int]:
    path = directory / VOCABULARY_FILE
    found = read_json(path, "A vocabulary must be a JSON object")
    if not all(type(number) is int for number in found.values()):
        raise ValueError("A vocabulary must be a JSON object of ids. Received: "
                         f"{path}")
    return found


def _merges(path: Path) -> list[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"Merges must be a file of UTF-8. Received: {path}: {error}"
                         ) from error
    found = []
    for number, line in enumerate(lines, start=1):
        if line and not (number == 1 and line.startswith(_VERSION)):
            parts = line.split(" ")
            if len(parts) != 2:
                raise ValueError(f"{path}:{number}: a merge must be two pieces. "
                                 f"Received: {line!r}")
            found.append((parts[0], parts[1]))
    return found
