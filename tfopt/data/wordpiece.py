"""Text -> token ids, by the WordPiece of a checkpoint's own `vocab.txt`."""

from __future__ import annotations

from pathlib import Path

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from tfopt.checkpoint_names import place_of
from tfopt.data.tokenizer_json import VOCABULARY_FILE, JsonTokenizer
from tfopt.data.tokenizer_settings import BERT_TOKENS, Settings, add_tokens
from tfopt.types import PathLike

# Tokens that every vocabulary must hold; [MASK] is for pretraining.
_NEEDED = ("unk_token", "cls_token", "sep_token", "pad_token")


class WordPiece(JsonTokenizer):
    """BERT's tokenizer over one vocabulary, a file with an entry a line.

    Args:
        vocabulary: path of a `vocab.txt`.
        lowercase: whether texts are made lower case; None does so unless a word of the
            vocabulary has an upper case letter.
        settings: what else is not as BERT has it: other special tokens, accents,
            Chinese characters, added tokens.

    Raises:
        ValueError: the file is missing, not UTF-8, or lacks a special token.
    """

    def __init__(self, vocabulary: PathLike, *, lowercase: bool | None = True,
                 settings: Settings | None = None):
        settings = settings or Settings()
        words = _read(Path(vocabulary))
        special = settings.special_tokens(BERT_TOKENS)
        missing = [special[use].content for use in _NEEDED
                   if special[use].content not in set(words)]
        if missing:
            raise ValueError(
                "A vocabulary must hold its special tokens, "
                f"{', '.join(special[use].content for use in _NEEDED)}. Received: "
                f"{vocabulary} without {', '.join(missing)}")
        if lowercase is None:
            lowercase = not any(word != word.lower() for word in words
                                if not (word.startswith("[") and word.endswith("]")))
        tokens = {use: token.content for use, token in special.items()}
        ids = {word: number for number, word in enumerate(words)}
        backend = tokenizers.Tokenizer(models.WordPiece(
            ids, unk_token=tokens["unk_token"], max_input_chars_per_word=100))
        backend.normalizer = normalizers.BertNormalizer(
            clean_text=True, lowercase=lowercase,
            handle_chinese_chars=settings.flag("tokenize_chinese_chars") is not False,
            strip_accents=settings.flag("strip_accents"))
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        first, last = tokens["cls_token"], tokens["sep_token"]
        # Fairseq's models, whose first token is <s>, have two between the texts.
        between = f"{last} {last}" if first == "<s>" else last
        backend.post_processor = processors.TemplateProcessing(
            single=f"{first} $A {last}",
            pair=f"{first} $A {between} $B:1 {last}:1",
            special_tokens=[(token, ids[token]) for token in (first, last)])
        added = add_tokens(backend, special, settings)
        super().__init__(backend, tokens, [*words, *added])

    @classmethod
    def from_directory(cls, directory: PathLike) -> WordPiece:
        """Reads `vocab.txt` and, if there, the settings beside it.

        Where they do not say whether texts are made lower case, they are unless a word
        of the vocabulary has an upper case letter.

        Args:
            directory: of the checkpoint, or a name that `model.load` knows, such as
                "minilm".

        Returns:
            The tokenizer.

        Raises:
            ValueError: as for the class, or for `Settings`.
        """
        directory = place_of(directory)
        settings = Settings(directory)
        settings.check()
        return cls(directory / VOCABULARY_FILE, settings=settings,
                   lowercase=settings.flag("do_lower_case"))


def _read(path: Path) -> list[str]:
    if not path.is_file():
        raise ValueError(f"A vocabulary file is needed. Received: {path}")
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"A vocabulary must be UTF-8. Received: {path}: {error}"
                         ) from error
    # Not splitlines(): an entry may be U+2028 or its like.
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n")
