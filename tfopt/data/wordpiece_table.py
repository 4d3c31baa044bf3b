"""A WordPiece tokenizer -> the one file that `portable_wordpiece` reads, for devices.

docs/portable_wordpiece.md describes the file byte by byte. Where Unicode comes in,
`unicode_facts` asks the tokenizer itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import normalizers

from tfopt.data import portable_wordpiece as portable
from tfopt.data import unicode_facts
from tfopt.data.tokenizer import Tokenizer
from tfopt.data.tokenizer_json import JsonTokenizer
from tfopt.files import to_json
from tfopt.types import shown

_LONGEST_WORD = 1 << 16
_KINDS = {"model": "WordPiece", "normalizer": "BertNormalizer",
          "pre_tokenizer": "BertPreTokenizer"}
# What the normalizer does, a bit each.
_FLAGS = ("lowercase", "strip_accents", "handle_chinese_chars", "clean_text")


def to_bytes(tokenizer: Tokenizer) -> bytes:
    """The table of a tokenizer.

    Args:
        tokenizer: a WordPiece as BERT has it, whatever its vocabulary, special tokens
            and settings.

    Returns:
        The file's contents.

    Raises:
        ValueError: it is of another kind, or has an added token that is found in a way
            which the table has not.
    """
    found = tokenizer.description() if isinstance(tokenizer, JsonTokenizer) else {}
    for part, kind in _KINDS.items():
        received = (found.get(part) or {}).get("type")
        if received != kind:
            raise ValueError("A table can be made of BERT's WordPiece alone, whose "
                             f"{part} is a {kind}. Received: {received}")
    settings, model = dict(found["normalizer"]), found["model"]
    if settings["strip_accents"] is None:
        settings["strip_accents"] = settings["lowercase"]
    longest = model["max_input_chars_per_word"]
    if not 0 < longest <= _LONGEST_WORD:
        raise ValueError(f"A word must have at most {_LONGEST_WORD} letters. Received: "
                         f"max_input_chars_per_word={longest}")
    bare = tokenizers.Tokenizer.from_str(to_json(found | {"added_tokens": []}))
    unknown, *specials = _specials(bare, model["unk_token"], longest)
    facts = unicode_facts.of(**{name: bool(settings[name]) for name in _FLAGS})
    prefix, vocabulary = model["continuing_subword_prefix"], model["vocab"]
    nodes = trie([
        dict(_reachable(vocabulary, facts.kinds, alone=True)),
        dict(_reachable({word.removeprefix(prefix): number for word, number in
                         vocabulary.items() if word.startswith(prefix)}, facts.kinds)),
        *_added(found["added_tokens"], settings)])
    numbers = [
        sum(bool(settings[name]) << bit for bit, name in enumerate(_FLAGS)),
        tokenizer.vocab_size, longest, unknown, *specials[:2], tokenizer.pad_id,
        *specials[2:], len(facts.facts) // portable.BLOCK, len(facts.mapped),
        len(nodes[0]), *facts.blocks, *facts.facts, *facts.mapped,
        *(number for array in nodes for number in array)]
    check = portable.checksum((0, *numbers))
    return portable.MAGIC + struct.pack(f"<I{len(numbers)}i", check, *numbers)


def _specials(backend: tokenizers.Tokenizer, unknown: str, longest: int) -> list[int]:
    """What stands round texts: a text that is too long a word tells it.

    Returns:
        The ids of [UNK], [CLS] and [SEP], how many [SEP] part the texts of a pair, and
        whether the second is a segment of its own.
    """
    number = backend.token_to_id(unknown)
    if number is None:
        raise ValueError("The vocabulary must hold the token for what is unknown. "
                         f"Received: {shown(unknown)}, which is not in it")
    word = "a" * (longest + 1)
    one, two = backend.encode(word), backend.encode(word, f"{word} {word}")
    between = len(two.ids) - 5
    if len(one.ids) == 3 and between in (1, 2):
        first, last = one.ids[0], one.ids[2]
        segments = [0] * (2 + between) + [1] * 3
        expected = [first, number, *[last] * between, number, number, last]
        if (one.ids[1] == number and not any(one.type_ids) and two.ids == expected
                and two.type_ids in (segments, [0] * len(segments))):
            return [number, first, last, between, int(any(two.type_ids))]
    raise ValueError("A table can be made where one token, as [CLS], stands before "
                     "texts, and one, as [SEP], behind and between them. Received: a "
                     f"pair of unknown words that becomes {shown(two.tokens)}")


def _reachable(entries: Mapping[str, int], kinds: Sequence[int], alone: bool = False
               ) -> Iterator[tuple[str, int]]:
    """The entries that a part of a word can be.

    Args:
        entries: text -> id.
        kinds: of code points; all but 0 are cut out of words before.
        alone: whether a single code point may be of any kind.
    """
    for word, number in entries.items():
        if word and (alone and len(word) == 1 or not any(
                kinds[ord(letter)] for letter in word)):
            yield word, number


def _added(tokens: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
           ) -> list[dict[str, int]]:
    """The added tokens that are found in the text as it is, and as it is normalized.

    White space beside a token, which `lstrip` and `rstrip` give to it, is dropped in
    any case.
    """
    # Spaces round Chinese characters are none in the table: they stand alone there.
    normalizer = normalizers.BertNormalizer(**{
        name: settings[name] for name in _FLAGS} | {"handle_chinese_chars": False})
    found: list[dict[str, int]] = [{}, {}]
    for token in tokens:
        content, normalized = token["content"], bool(token["normalized"])
        if normalized:
            content = normalizer.normalize_str(content)
        if token["single_word"] or not content or content != content.strip():
            raise ValueError(
                "For a table, an added token must be found within words, too, and must "
                "not be empty, or begin or end with white space, once it is normalized."
                f" Received: {shown(dict(token))}")
        if content in found[normalized]:
            raise ValueError("For a table, added tokens must differ once they are "
                             f"normalized. Received: {shown(token['content'])}")
        found[normalized][content] = token["id"]
    return found


def trie(roots: Sequence[Mapping[str, int]]) -> tuple[list[int], list[int], list[int]]:
    """The entries below each of some roots, as a trie in three arrays.

    Nodes are numbered level by level, the roots first: those below one node are
    neighbours, sorted by their code points.

    Args:
        roots: of each, text -> id.

    Returns:
        Of each node its code point; where the nodes below it begin, with the number of
        nodes behind all; and the id of the entry that ends there, or -1.
    """
    labels, below, ids = [0] * len(roots), [], [-1] * len(roots)
    # A node is the part of sorted entries that goes through it: from, to.
    level = [(rows, 0, len(rows)) for rows in (
        sorted((tuple(map(ord, word)), number) for word, number in root.items())
        for root in roots)]
    depth = 0
    while level:
        deeper = []
        for rows, start, stop in level:
            below.append(len(labels))
            while start < stop:
                path, number = rows[start]
                end = start + 1
                while end < stop and rows[end][0][depth] == path[depth]:
                    end += 1
                whole = len(path) == depth + 1  # sorted, so that it comes first
                labels.append(path[depth])
                ids.append(number if whole else -1)
                deeper.append((rows, start + whole, end))
                start = end
        level, depth = deeper, depth + 1
    return labels, [*below, len(labels)], ids
