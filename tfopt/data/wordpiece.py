"""Text -> token ids, by the WordPiece of a checkpoint's own `vocab.txt`.

The `tokenizers` package does the work (normalization, splitting and truncation as
the original BERT does); this module reads what the checkpoint says of itself.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import BertWordPieceTokenizer

from tfopt.files import write_whole
from tfopt.types import PathLike

VOCABULARY_FILE = "vocab.txt"
SETTINGS_FILE = "tokenizer_config.json"
_UNKNOWN = "[UNK]"
_SPECIAL = (_UNKNOWN, "[CLS]", "[SEP]", "[PAD]")
_CONTINUES = "##"  # begins a piece that is not a word's first


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoded:
    """Token ids of N examples.

    Attributes:
        ids: per example, [CLS] first [SEP] (second [SEP]).
        first_lengths: per example, how many of its ids belong to the first segment,
            [CLS] and [SEP] included.
        truncated: how many examples were cut to the maximal length.
    """

    ids: list[list[int]]
    first_lengths: list[int]
    truncated: int = 0


class WordPiece:
    """BERT's tokenizer over one vocabulary.

    Args:
        vocabulary: path of a `vocab.txt`, one entry a line.
        lowercase: whether the vocabulary is uncased.

    Raises:
        ValueError: the file is missing, not UTF-8, or lacks a special token.
    """

    def __init__(self, vocabulary: PathLike, *, lowercase: bool = True):
        path = Path(vocabulary)
        if not path.is_file():
            raise ValueError(f"A vocabulary file is needed. Received: {path}")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"A vocabulary must be UTF-8. Received: {path}: {error}"
                             ) from error
        # Not splitlines(): an entry may be U+2028 or its like.
        self.words = text.removesuffix("\n").split("\n")
        missing = [token for token in _SPECIAL if token not in set(self.words)]
        if missing:
            raise ValueError(f"A BERT vocabulary must hold {', '.join(_SPECIAL)}. "
                             f"Received: {path} without {', '.join(missing)}")
        self.lowercase = lowercase
        self._tokenizer = BertWordPieceTokenizer(str(path), lowercase=lowercase)

    @classmethod
    def from_directory(cls, directory: PathLike) -> WordPiece:
        """Reads `vocab.txt` and, if there, `tokenizer_config.json` of a checkpoint.

        Without the latter a vocabulary counts as cased if a word in it has an upper
        case letter.

        Args:
            directory: of the checkpoint.

        Returns:
            The tokenizer.

        Raises:
            ValueError: as for the class, or the settings are no JSON object.
        """
        vocabulary = Path(directory) / VOCABULARY_FILE
        settings = Path(directory) / SETTINGS_FILE
        lowercase = None
        if settings.exists():
            try:
                lowercase = json.loads(settings.read_text("utf-8")).get("do_lower_case")
            except (ValueError, AttributeError) as error:
                raise ValueError(f"A JSON object was expected. Received: {settings}: "
                                 f"{error}") from error
        if lowercase is None:
            words = cls(vocabulary).words
            lowercase = not any(word != word.lower() for word in words
                                if not (word.startswith("[") and word.endswith("]")))
        return cls(vocabulary, lowercase=bool(lowercase))

    @property
    def vocab_size(self) -> int:
        """Entries of the vocabulary."""
        return len(self.words)

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None, *,
               max_length: int = 512) -> Encoded:
        """Encodes texts, or pairs of texts.

        Args:
            texts: N texts.
            pairs: N second texts, or None.
            max_length: ids an example may have; longer ones are cut, of a pair the
                longer text first, as BERT does.

        Returns:
            The ids of N examples.

        Raises:
            ValueError: texts and pairs differ in number, or no room is left for text.
        """
        specials = 2 if pairs is None else 3
        if max_length <= specials:
            raise ValueError(f"`max_length` must leave room for text beside {specials} "
                             f"special tokens. Received: max_length={max_length}")
        if pairs is not None and len(pairs) != len(texts):
            raise ValueError("Texts and pairs must be equally many. Received: "
                             f"{len(texts)} texts, {len(pairs)} pairs")
        self._tokenizer.enable_truncation(max_length, strategy="longest_first")
        batch = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        encodings = self._tokenizer.encode_batch(batch)
        return Encoded(
            ids=[e.ids for e in encodings],
            first_lengths=[len(e.ids) - sum(e.type_ids) for e in encodings],
            truncated=sum(bool(e.overflowing) for e in encodings),
        )

    def removable(self) -> dict[int, int]:
        """The pieces that the vocabulary can do without.

        Not among them are special tokens, single characters, and pieces that single
        characters do not spell: a word made of others is then spelled out by what
        stays, and is not unknown.

        Returns:
            The id of each -> that of the unknown token, which a model may read in its
            place where a text has been encoded before.
        """
        ids = {word: number for number, word in enumerate(self.words)}
        return {number: ids[_UNKNOWN] for word, number in ids.items()
                if word not in (*_SPECIAL, "[MASK]")
                and len(word.removeprefix(_CONTINUES)) > 1
                and all(letter in ids for letter in _letters(word))}

    def keeping(self, rows: Sequence[int]) -> WordPiece:
        """The tokenizer of a part of the vocabulary.

        A text made of pieces that stay is cut into the same ones: of those that fit,
        WordPiece takes the longest, and there are no new ones.

        Args:
            rows: ids that stay, in their new order; ids beyond the vocabulary, for
                which a model may have rows, are passed over.

        Returns:
            The tokenizer; its ids are places in `rows`.

        Raises:
            ValueError: a special token is not among them.
        """
        words = [self.words[row] for row in rows if row < self.vocab_size]
        missing = [token for token in _SPECIAL if token not in words]
        if missing:
            raise ValueError("The special tokens must stay. Received: rows without "
                             f"{', '.join(missing)}")
        part = copy.copy(self)
        part.words = words
        part._tokenizer = BertWordPieceTokenizer(
            {word: number for number, word in enumerate(words)},
            lowercase=self.lowercase)
        return part

    def save(self, directory: PathLike) -> None:
        """Writes vocabulary and settings, so that `from_directory` gives them back."""
        directory = Path(directory)
        write_whole(directory / VOCABULARY_FILE, "\n".join(self.words) + "\n")
        write_whole(directory / SETTINGS_FILE,
                    json.dumps({"do_lower_case": self.lowercase}) + "\n")


def _letters(word: str) -> list[str]:
    """The pieces of one character that spell a piece."""
    letters = word.removeprefix(_CONTINUES)
    first = letters[0] if letters == word else _CONTINUES + letters[0]
    return [first, *(_CONTINUES + letter for letter in letters[1:])]
