"""What a checkpoint's files say of its tokenizer, beside the vocabulary.

`tokenizer_config.json`, and of older checkpoints `special_tokens_map.json` and
`added_tokens.json`, as Hugging Face's transformers writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from tfopt.files import read_json
from tfopt.types import PathLike

SETTINGS_FILE = "tokenizer_config.json"
TOKENS_FILE = "special_tokens_map.json"
ADDED_FILE = "added_tokens.json"
# What a special token is for -> the token, where the files do not say.
BERT_TOKENS = {"unk_token": "[UNK]", "sep_token": "[SEP]", "cls_token": "[CLS]",
               "pad_token": "[PAD]", "mask_token": "[MASK]"}
ROBERTA_TOKENS = {"unk_token": "<unk>", "sep_token": "</s>", "cls_token": "<s>",
                  "pad_token": "<pad>", "mask_token": "<mask>"}
# Settings that change the ids, and the values that are honoured.
_HONOURED: dict[str, tuple] = {
    "do_basic_tokenize": (True, None),
    "word_tokenizer_type": ("basic", None),
    "subword_tokenizer_type": ("wordpiece", None),
}
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class Settings:
    """The settings in a directory.

    Args:
        directory: may have each of the three files, or none; None says nothing.

    Attributes:
        tokens: what special tokens are for -> the token, as far as the files say.

    Raises:
        ValueError: a file is no JSON object, a token none, or a setting asks for what
            is not honoured.
    """

    def __init__(self, directory: PathLike | None = None):
        self._file = Path(directory or "") / SETTINGS_FILE
        self._fields, named, self._added = (
            {} if directory is None else _read(self._file.with_name(name))
            for name in (SETTINGS_FILE, TOKENS_FILE, ADDED_FILE))
        named = named | self._fields
        self._special = {use: _token(named[use], self._file)
                         for use in BERT_TOKENS if named.get(use) is not None}
        self.tokens = {use: token.content for use, token in self._special.items()}
        self._more = {
            token.content: token for token in (
                _token(value, self._file)
                for value in named.get("additional_special_tokens") or [])}

    def flag(self, name: str) -> bool | None:
        """A setting that is on, off or left open (null).

        Raises:
            ValueError: it is something else.
        """
        value = self._fields.get(name)
        if value is not None and not isinstance(value, bool):
            raise ValueError(f"`{name}` must be true, false or null. Received: "
                             f"{self._file}: {name}={value!r}")
        return value

    def check(self) -> None:
        """Checks that nothing is set that would change ids and is not honoured.

        Raises:
            ValueError: something is.
        """
        for name, values in _HONOURED.items():
            if self._fields.get(name) not in values:
                raise ValueError(
                    f"Of `{name}` {values[0]!r} is honoured alone; a tokenizer.json "
                    f"can say more. Received: {self._file}: "
                    f"{name}={self._fields[name]!r}")

    def special_tokens(self, defaults: Mapping[str, str]) -> dict[str, AddedToken]:
        """What special tokens are for -> the token, with its flags.

        Args:
            defaults: for those that the files do not name.
        """
        found = {use: AddedToken(**plain_flags(token))
                 for use, token in defaults.items()} | self._special
        flags = {token.content: token for token in self._declared().values()}
        return {use: flags.get(token.content, token) for use, token in found.items()}

    def added_tokens(self) -> dict[int, AddedToken]:
        """Id -> token, of those added to a vocabulary, in the order of ids."""
        found = {number: self._more.get(content, AddedToken(content))
                 for content, number in self._added.items()} | self._declared()
        return dict(sorted(found.items()))

    def _declared(self) -> dict[int, AddedToken]:
        declared = self._fields.get("added_tokens_decoder") or {}
        try:
            return {int(number): _token(token, self._file, special=False)
                    for number, token in declared.items()}
        except (AttributeError, ValueError) as error:
            raise ValueError("`added_tokens_decoder` must give tokens by their ids. "
                             f"Received: {self._file}: {error}") from error


def plain_flags(token: str) -> dict[str, Any]:
    """A special token with its flags, as published where the files do not say."""
    return {"content": token, "single_word": False, "lstrip": token == "<mask>",
            "rstrip": False, "normalized": False, "special": True}


def add_tokens(backend: Tokenizer, special: Mapping[str, AddedToken],
               settings: Settings) -> list[str]:
    """Adds special and added tokens to a tokenizer.

    Args:
        backend: has the vocabulary.
        special: what special tokens are for -> the token.
        settings: name those that were added.

    Returns:
        Those of the added that were not in the vocabulary, in the order of ids.

    Raises:
        ValueError: an added token's id does not follow the vocabulary's.
    """
    size = backend.get_vocab_size()
    backend.add_special_tokens([token for token in special.values()
                                if backend.token_to_id(token.content) is not None])
    added = settings.added_tokens()
    for number, token in added.items():
        (backend.add_special_tokens if token.special else backend.add_tokens)([token])
        found = backend.token_to_id(token.content)
        if found != number:
            raise ValueError("The ids of added tokens must follow the vocabulary's, of "
                             f"{size} entries. Received: {token.content!r} with id "
                             f"{number}, where {found} is next")
    return [token.content for number, token in added.items() if number >= size]


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    return read_json(file)


def _token(value: Any, file: Path, special: bool = True) -> AddedToken:
    """A token of a text, or of a JSON object with its flags."""
    if isinstance(value, str):
        return AddedToken(value, special=special)
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise ValueError("A token must be a text, or an object with `content`. "
                         f"Received: {file}: {value!r}")
    flags = {name: bool(value[name]) for name in _FLAGS if name in value}
    return AddedToken(value["content"], **({"special": special} | flags))
