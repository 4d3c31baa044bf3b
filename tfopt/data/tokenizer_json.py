"""Text -> token ids, by whatever a `tokenizer.json` can describe.

The `tokenizers` package does the work: normalization, splitting, truncation. The files
of a checkpoint, of whichever kind, become its description of a tokenizer; by that
description texts are encoded here, a part of the vocabulary is taken, and files are
written.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from tfopt.data import tokenizer_cut
from tfopt.data.places import Places
from tfopt.data.tokenizer_backend import by_id, encodings, refusing_panics
from tfopt.data.tokenizer_settings import (
    BERT_TOKENS,
    ROBERTA_TOKENS,
    SETTINGS_FILE,
    plain_flags,
)
from tfopt.files import to_json, write_whole
from tfopt.types import PathLike, shown

JSON_FILE = "tokenizer.json"
VOCABULARY_FILE = "vocab.txt"
_SHOWN = 40  # letters of a text, in an error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoded:
    """Token ids of N examples.

    Attributes:
        ids: per example, special tokens included: of BERT [CLS] first [SEP], and
            second [SEP] behind them where there is a second text.
        first_lengths: per example, how many of its ids belong to the first segment,
            special tokens included; all, where the tokenizer knows no segments.
        truncated: how many examples were cut to the maximal length.
        pad_id: the tokenizer's, which stands behind shorter texts of a batch.
        places: per example, where its tokens stand in the text; None where nobody asked
            for it.
    """

    ids: list[list[int]]
    first_lengths: list[int]
    truncated: int = 0
    pad_id: int = 0
    places: list[Places] | None = None


class JsonTokenizer:
    """A tokenizer that has a description.

    Args:
        backend: does the work; truncation and padding of its own are switched off.
        tokens: what the special tokens are for -> the token ("pad_token" -> "[PAD]");
            those for padding and for the unknown are found without, by their names.
        words: the vocabulary by id, if the backend's is not all of it (a file may have
            an entry twice).

    Attributes:
        words: the vocabulary by id, added tokens included.
        pad_id: stands behind shorter texts of a batch.
        unknown_id: stands for what the vocabulary cannot spell; None where there is no
            such token.
        mask_id: stands for a word that a masked language model is to find; or None.

    Raises:
        ValueError: no token for padding is known, or it is not in the vocabulary.
    """

    def __init__(self, backend: tokenizers.Tokenizer,
                 tokens: Mapping[str, str] | None = None,
                 words: Sequence[str] | None = None):
        named = dict(tokens or {})
        padding = _id_of("pad_token", backend, named,
                         (backend.padding or {}).get("pad_token"))
        if padding is None:
            raise ValueError("The vocabulary must hold a token for padding. Received: "
                             f"pad_token={named.get('pad_token')}")
        self.pad_id = padding
        self.unknown_id = _id_of("unk_token", backend, named,
                                 getattr(backend.model, "unk_token", None))
        self.mask_id = _id_of("mask_token", backend, named, None)
        backend.no_padding()
        backend.no_truncation()
        self.words = list(words) if words is not None else by_id(backend)
        self._backend = backend
        self._tokens = named
        self._cut_to: int | None = None
        # Truncation is a state of the backend; texts may come from several threads.
        self._lock = threading.Lock()

    @property
    def vocab_size(self) -> int:
        """Entries of the vocabulary, added tokens included."""
        return len(self.words)

    @property
    def lowercase(self) -> bool:
        """Whether texts are made lower case."""
        normalizers = [self.description()["normalizer"] or {}]
        normalizers += normalizers[0].get("normalizers", [])
        return any(part.get("lowercase") or part.get("type") == "Lowercase"
                   for part in normalizers)

    def description(self) -> dict[str, Any]:
        """What a `tokenizer.json` holds, with no truncation or padding."""
        return {**json.loads(self._backend.to_str()),
                "truncation": None, "padding": None}

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None, *,
               max_length: int = 512, places: bool = False) -> Encoded:
        """Encodes texts, or pairs of texts; from several threads, if need be.

        Args:
            texts: N texts.
            pairs: N second texts, or None.
            max_length: ids an example may have; longer ones are cut, of a pair the
                longer text first, as BERT does.
            places: whether to tell where the tokens stand in their texts.

        Returns:
            The ids of N examples.

        Raises:
            ValueError: what should be lists of texts is not, texts and pairs differ in
                number, one is no valid Unicode, no room is left for text, or places are
                asked for of pairs.
        """
        texts = _checked("texts", texts)
        if places and pairs is not None:
            raise ValueError("Places are of the tokens of one text. Received: pairs of "
                             "texts")
        specials = self._backend.num_special_tokens_to_add(pairs is not None)
        if max_length <= specials:
            raise ValueError(f"`max_length` must leave room for text beside {specials} "
                             f"special tokens. Received: max_length={max_length}")
        batch: list = texts
        if pairs is not None:
            pairs = _checked("pairs", pairs)
            if len(pairs) != len(texts):
                raise ValueError("Texts and pairs must be equally many. Received: "
                                 f"{len(texts)} texts, {len(pairs)} pairs")
            batch = list(zip(texts, pairs, strict=True))
        with self._lock, refusing_panics(f"{len(texts)} texts"):
            if max_length != self._cut_to:
                self._backend.enable_truncation(max_length, strategy="longest_first")
                self._cut_to = max_length
            found = Encoded(ids=[], first_lengths=[], pad_id=self.pad_id,
                            places=[] if places else None)
            cut = 0
            for text, encoding in zip(texts, encodings(self._backend, batch),
                                      strict=True):
                found.ids.append(encoding.ids)
                found.first_lengths.append(len(encoding.ids) - sum(encoding.type_ids))
                cut += bool(encoding.overflowing)
                if found.places is not None:
                    found.places.append(Places.of(text, encoding))
        return dataclasses.replace(found, truncated=cut)

    def removable(self) -> dict[int, int]:
        """The pieces that the vocabulary can do without.

        Of WordPiece alone. Not among them are added and special tokens, single
        characters, and pieces that single characters do not spell: a word made of
        others is then spelled out by what stays, and is not unknown.

        Returns:
            The id of each -> that of the unknown token, which a model may read in its
            place where a text has been encoded before; nothing for other tokenizers.
        """
        if not self._is_wordpiece or self.unknown_id is None:
            return {}
        found = self.description()
        return dict.fromkeys(tokenizer_cut.removable(found, self._needed(found)),
                             self.unknown_id)

    def keeping(self, rows: Sequence[int]) -> JsonTokenizer:
        """The tokenizer of a part of the vocabulary.

        A text made of pieces that stay is cut into the same ones: of those that fit,
        WordPiece takes the longest, and there are no new ones.

        Args:
            rows: ids that stay, in their new order; ids beyond the vocabulary, for
                which a model may have rows, are passed over.

        Returns:
            The tokenizer; its ids are places in `rows`.

        Raises:
            ValueError: a special token is not among them, or the tokenizer is no
                WordPiece.
        """
        words = [self.words[row] for row in rows if row < self.vocab_size]
        if words == self.words:
            return self
        if not self._is_wordpiece:
            raise ValueError("Of WordPiece alone the vocabulary can be cut. Received: "
                             f"a tokenizer of {type(self._backend.model).__name__}")
        found = self.description()
        stay = set(words)
        missing = [token for token in self._needed(found) if token not in stay]
        if missing:
            raise ValueError("The special tokens must stay. Received: rows without "
                             f"{', '.join(missing)}")
        return JsonTokenizer(
            tokenizers.Tokenizer.from_str(to_json(tokenizer_cut.cut(found, words))),
            {use: token for use, token in self._tokens.items() if token in stay}, words)

    def save(self, directory: PathLike) -> None:
        """Writes the tokenizer's files, so that `from_directory` gives it back.

        Of a WordPiece there is a `vocab.txt` too, for programs that read no other.
        """
        directory = Path(directory)
        found = self.description()
        write_whole(directory / JSON_FILE, to_json(found, ensure_ascii=False) + "\n")
        write_whole(directory / SETTINGS_FILE, to_json(self._settings(found)) + "\n")
        if self._is_wordpiece:
            write_whole(directory / VOCABULARY_FILE, "\n".join(self.words) + "\n")
        else:  # of a tokenizer that was here before
            (directory / VOCABULARY_FILE).unlink(missing_ok=True)

    @property
    def _is_wordpiece(self) -> bool:
        return isinstance(self._backend.model, tokenizers.models.WordPiece)

    def _needed(self, found: Mapping) -> list[str]:
        """The tokens that stand for padding and the unknown, and round a text."""
        unknown = [] if self.unknown_id is None else [self.words[self.unknown_id]]
        return list(dict.fromkeys([
            *unknown, *tokenizer_cut.placed(found["post_processor"]),
            self.words[self.pad_id]]))

    def _settings(self, found: Mapping) -> dict[str, Any]:
        """What `tokenizer_config.json` says beside `vocab.txt`: what is not usual."""
        usual = BERT_TOKENS if self._is_wordpiece else ROBERTA_TOKENS
        fields: dict[str, Any] = {"do_lower_case": self.lowercase}
        normalizer = found["normalizer"] or {}
        if normalizer.get("strip_accents") is not None:
            fields["strip_accents"] = normalizer["strip_accents"]
        if not normalizer.get("handle_chinese_chars", True):
            fields["tokenize_chinese_chars"] = False
        fields |= {use: token for use, token in self._tokens.items()
                   if token != usual.get(use)}
        named, added = {*usual.values(), *self._tokens.values()}, {}
        for token in found[tokenizer_cut.ADDED]:
            flags = {name: token[name] for name in token if name != "id"}
            if token["content"] not in named or flags != plain_flags(token["content"]):
                added[str(token["id"])] = flags
        return fields | ({"added_tokens_decoder": added} if added else {})


def _id_of(use: str, backend: tokenizers.Tokenizer, named: Mapping[str, str],
           own: str | None) -> int | None:
    """The id of the token for a use: as named, else the backend's own, else usual."""
    usual = [tokens[use] for tokens in (BERT_TOKENS, ROBERTA_TOKENS)]
    for token in [named[use]] if use in named else [own, *usual]:
        found = None if token is None else backend.token_to_id(token)
        if found is not None:
            return found
    return None


def _checked(name: str, values: Any) -> list[str]:
    """The texts as a list.

    Raises:
        ValueError: there is one text alone, or something that is no text.
    """
    if isinstance(values, str):
        raise ValueError(f"`{name}` must be a list of texts, not one text. Received: "
                         f"{name}={shown(values, _SHOWN)}")
    values = list(values)
    for number, text in enumerate(values):
        if not isinstance(text, str):
            raise ValueError(f"`{name}` must be a list of texts. Received: "
                             f"{name}[{number}]={shown(text, _SHOWN)}")
    return values
