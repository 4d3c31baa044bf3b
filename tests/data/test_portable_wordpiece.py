"""The WordPiece that is to be ported: the ids of `tokenizers`, its file, refusals."""

from __future__ import annotations

import ast
import functools
import json
import random
import struct
from pathlib import Path

import pytest
import tokenizers
from scripts import run

from tfopt import data
from tfopt.checkpoint_names import place_of
from tfopt.data import portable_wordpiece, wordpiece_table
from tfopt.data.portable_wordpiece import HEADER, MAGIC, PortableWordPiece, checksum
from tfopt.data.tokenizer_settings import Settings

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##b", "ab", "abc",
         "Hello", "hello", "Café", "cafe", "##s", "##é", ".", "#", "##", "中", "中国",
         "##中", "x中", "²", "!", "²!", "ᄀ", "##ᅡ", "가", "i", "##̇", "ß", "ss",
         "<", ">", "e", "##́", "café", "s",
         # Marks that stay, by whose ids their order is seen.
         "\U0001d165", "##\U0001d165", "\U0001d16d", "##\U0001d16d"]
# Texts at which tokenizers differ from one another.
HARD = [
    "", " ", "\n\t\r", "a", "A b", "ab abc abb abx", "Hello HELLO hello", "it's 3.5%!",
    "café cafe\u0301 CAFÉ Café", "İstanbul ıi İ", "straße STRASSE ẞ", "ΑΣΑΣ ς σ",
    "中国 a中b ㍿ 豈 \U0002f800 \U00020000", "안녕하세요 각 \u1100\u1161\u11a8 힣",
    "a\u0301\u0323 a\u0323\u0301", "\u0344 \u0f73 \u0958 \u2126 \u212b \u1e9b\u0323",
    "\U0001d165\U0001d16d \U0001d16d\U0001d165 a\U0001d16d\u05b0\U0001d165",
    "\U0001d16d\u0300\u093a\U0001d165 \u302f\u0334\u302e \U0001d15e",
    "e\u200be\u200d \u00ad \ufeff \x00 \x7f \x85 \ufffd \ue000 \u2028 \u3000 \xa0",
    "👩‍👩‍👧‍👦 👍🏽 ❤️ 🇩🇪", "ﬁ ½ ² ① ™ Ⅷ", "«a» „b“ –—… ‽ ¿ 。、 ･ ^`~$+<=>|",
    "[CLS] [SEP] [PAD] [MASK] [UNK] [cls] [SEP", "a[SEP]b", "[[MASK]]", "[ MASK ]",
    "a" * 100, "a" * 101, "é" * 100, "e\u0301" * 100, "가" * 34, "##s ##中 # ##",
    "नमस्ते कि क़", "שָׁלוֹם", "ไทย ภาษาไทย", "\U000e0041 \U0010ffff \u0378", "ⅰⅱ ǅ ŉ ΐ"]
ROWS = {
    "uncased": {}, "cased": {"do_lower_case": False},
    "accents stay": {"strip_accents": False},
    "no Chinese": {"do_lower_case": False, "tokenize_chinese_chars": False}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Settings, and whether the words are MiniLM's -> tokenizer and table."""
    place = tmp_path_factory.mktemp("words")
    (place / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")

    @functools.cache
    def of(row: str, large: bool = True):
        directory = place_of("minilm") if large else place
        kept = place / row.replace(" ", "_")
        kept.mkdir(exist_ok=True)
        (kept / "tokenizer_config.json").write_text(json.dumps(ROWS[row]))
        settings = Settings(kept)
        tokenizer = data.WordPiece(directory / "vocab.txt", settings=settings,
                                   lowercase=ROWS[row].get("do_lower_case", True))
        return tokenizer, PortableWordPiece(wordpiece_table.to_bytes(tokenizer))

    return of


def check_same(tokenizer, table, texts, pairs=None, max_length=512):
    """Holds that ids and segments are the same."""
    expected = tokenizer.encode(texts, pairs, max_length=max_length)
    for text, pair, *of_both in zip(texts, pairs or [None] * len(texts), expected.ids,
                                    expected.first_lengths, strict=True):
        assert [*table.encode(text, pair, max_length)] == of_both, (text, pair)


def random_texts(count: int) -> list[str]:
    chance = random.Random(0)
    ranges = [range(0x20, 0x7f), range(0x300), range(0x300, 0x370), range(0x590, 0xe00),
              range(0x1100, 0x1200), range(0x2000, 0x3100), range(0x4e00, 0x9fff),
              range(0xac00, 0xd7a4), range(0xf900, 0x10000), range(0x1d000, 0x1d200),
              range(0x1f000, 0x20000), range(0xe000, 0x110000)]
    return ["".join(chr(chance.choice(chance.choice(ranges)))
                    for _ in range(chance.randint(1, 24))) for _ in range(count)]


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("large", [True, False], ids=["minilm", "small"])
def test_ids_are_those_of_tokenizers(made, row, large):
    check_same(*made(row, large), [*HARD, *random_texts(250)])


@pytest.mark.parametrize("row", ["uncased", "cased"])
def test_ids_of_messages_are_too(made, row, token_ids):
    texts = data.read(data.DEMO_DEV_FILE).texts[::2] + token_ids["texts"]
    check_same(*made(row), texts)
    assert len(texts) > 200


@pytest.mark.parametrize("max_length", [4, 5, 6, 7, 8, 12, 33])
def test_pairs_are_cut_as_tokenizers_cuts_them(made, max_length):
    lengths = [(one, other) for one in range(0, 14) for other in range(0, 14)]
    check_same(*made("uncased"), ["a " * one for one, _ in lengths],
               ["b " * other for _, other in lengths], max_length)
    check_same(*made("uncased"), HARD, max_length=max_length)
    check_same(*made("uncased"), HARD, HARD[::-1], max_length=max_length)


def described(change=lambda found: None) -> tokenizers.Tokenizer:
    """A tokenizer of the tiny checkpoint's kind, its description changed."""
    ids = {word: number for number, word in enumerate(WORDS)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece(
        ids, unk_token="[UNK]", max_input_chars_per_word=100))
    backend.normalizer = tokenizers.normalizers.BertNormalizer()
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    backend.post_processor = tokenizers.processors.BertProcessing(
        ("[SEP]", 3), ("[CLS]", 2))
    found = json.loads(backend.to_str())
    change(found)
    return data.tokenizer.JsonTokenizer(
        tokenizers.Tokenizer.from_str(json.dumps(found)))


def added(content, **flags):
    def change(found):
        found["added_tokens"].append({
            "id": len(WORDS) + len(found["added_tokens"]), "content": content,
            "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": False, **flags})
    return change


@pytest.mark.parametrize("contents, flags", [
    (["[X]", "[XY]", "qq"], {}), (["[X]"], {"lstrip": True, "rstrip": True}),
    (["HELLO", "Hello b", "中", "a中", "é"], {"normalized": True}),
    (["[X]", "x y"], {"special": True})])
def test_added_tokens_are_found_as_tokenizers_finds_them(contents, flags):
    tokenizer = described(lambda found: [
        added(content, **flags)(found) for content in contents])
    table = PortableWordPiece(wordpiece_table.to_bytes(tokenizer))
    texts = [f"{one}{part}{other}" for part in ("", " ", "b", "\t \u3000", "[", "中")
             for one in [*contents, "[XY", "Hello", "hello b", "q"]
             for other in [*contents, "X]", "HELLO B", "中中", "e\u0301"]]
    check_same(tokenizer, table, texts)
    found = {number for text in texts for number in table.encode(text)[0]}
    assert found >= {tokenizer.words.index(content) for content in contents}


def test_a_tokenizer_of_mpnets_kind_has_two_separators_and_no_segments():
    def change(found):
        for content, number in (("<s>", 2), ("</s>", 3)):
            found["model"]["vocab"][content] = number
        found["post_processor"] = {
            "type": "RobertaProcessing", "cls": ["<s>", 2], "sep": ["</s>", 3],
            "trim_offsets": True, "add_prefix_space": False}

    tokenizer = described(change)
    table = PortableWordPiece(wordpiece_table.to_bytes(tokenizer))
    assert (table.between, table.segments) == (2, 0)
    check_same(tokenizer, table, ["a b", "abc " * 9], ["b", "a " * 20], max_length=13)


def test_other_prefixes_and_word_lengths_are_kept():
    def change(found):
        found["model"] |= {"continuing_subword_prefix": "a",
                           "max_input_chars_per_word": 3}

    tokenizer = described(change)
    table = PortableWordPiece(wordpiece_table.to_bytes(tokenizer))
    assert table.longest_word == 3
    check_same(tokenizer, table, [*HARD, "ab aab abb abc bab babb"])


@pytest.mark.parametrize("change, said", [
    (lambda found: found.update(normalizer=None), "normalizer is a BertNorm.* None"),
    (lambda found: found.update(normalizer={"type": "Lowercase"}), "Lowercase"),
    (lambda found: found.update(pre_tokenizer={"type": "Whitespace"}), "Whitespace"),
    (lambda found: found.update(post_processor=None), "Received: a pair of unknown wo"),
    (lambda found: found["model"].update(max_input_chars_per_word=10 ** 9),
     "max_input_chars_per_word=1000000000"),
    (lambda found: found["model"].update(unk_token="[no]"), r"Received: '\[no\]'"),
    (added("x", single_word=True), "added token.*'x'"),
    (added(" x"), "added token.*' x'"),
    (added("\u0301", normalized=True), "added token"),
    (lambda found: [added(content, normalized=True)(found) for content in "xX"],
     "must differ.* Received: 'X'")])
def test_what_a_table_cannot_say_is_one_sentence(change, said):
    with pytest.raises(ValueError, match=f"(?s){said}") as refusal:
        wordpiece_table.to_bytes(described(change))
    assert "Received: " in str(refusal.value)


def test_a_tokenizer_that_is_no_wordpiece_is_refused(tmp_path):
    letters = {chr(i): i for i in range(33, 127)}
    (tmp_path / "vocab.json").write_text(json.dumps(
        letters | {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4,
                   "th": 200}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\n")
    with pytest.raises(ValueError, match="WordPiece.* Received: BPE$"):
        wordpiece_table.to_bytes(data.tokenizer_from(tmp_path))


@pytest.fixture(scope="module")
def contents():
    return wordpiece_table.to_bytes(described())


@pytest.mark.parametrize("damage, said", [
    (lambda good: b"", "begin with"), (lambda good: good[:40], "begin with"),
    (lambda good: b"tfoptwp2" + good[8:], "begin with b'tfoptwp1'"),
    (lambda good: b"PK\3\4" + good[4:], "begin with"),
    (lambda good: good[:-1], "begin with"), (lambda good: good[:-4], "damaged"),
    (lambda good: good + b"\0\0\0\0", "damaged"),
    (lambda good: good[:-8] + b"\0\0\0\0" + good[-4:], "damaged"),
    (lambda good: good[:5000] + bytes([good[5000] ^ 128]) + good[5001:], "damaged")])
def test_another_or_a_damaged_file_is_one_sentence(contents, damage, said):
    with pytest.raises(ValueError, match=f"(?s){said}.*Received: .* bytes$"):
        PortableWordPiece(damage(contents))


def test_a_file_with_its_checksum_is_held_to_its_bounds(contents):
    """Each number that leads somewhere, set beyond: refused, not followed."""
    table = PortableWordPiece(contents)
    places = [*range(4, 9), 10, 11, 12, HEADER, table.facts, table.mapped, table.child,
              table.child + 3, table.id - 1, table.id, len(table.n) - 1]
    for place in places:
        for wrong in (-2, 1 << 30, -(1 << 31)):
            numbers = [*table.n]
            numbers[place] = wrong
            forged = MAGIC + struct.pack(f"<I{len(numbers) - 1}i", checksum(
                tuple(numbers)), *numbers[1:])
            with pytest.raises(ValueError, match="damaged"):
                PortableWordPiece(forged)


def test_half_of_a_character_and_no_room_are_one_sentence(contents):
    table = PortableWordPiece(contents)
    for texts in (["a\ud83d"], ["a", "\udc00"]):
        with pytest.raises(ValueError, match="valid Unicode. Received: "):
            table.encode(*texts)
    for texts, most in ((["a"], 2), (["a", "b"], 3)):
        with pytest.raises(ValueError, match=f"room. Received: max_length={most}$"):
            table.encode(*texts, max_length=most)


def test_the_header_has_the_settings(made):
    tokenizer, table = made("cased")
    assert (table.flags, table.size) == (0b1100, tokenizer.vocab_size)
    assert made("uncased")[1].flags == 0b1111
    known = [tokenizer.words[number] for number in (
        table.unknown_id, table.cls_id, table.sep_id, table.pad_id)]
    assert known == ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]


def test_the_module_is_short_and_imports_struct_alone():
    source = Path(portable_wordpiece.__file__).read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 150
    names = [alias.name for node in ast.walk(ast.parse(source)) if isinstance(
        node, ast.Import | ast.ImportFrom) for alias in node.names]
    assert names == ["struct"]


def test_the_script_counts_lines(tmp_path, tiny_dir):
    file = tmp_path / "texts.txt"
    file.write_text("\n".join([*HARD, "a great film"] * 2), encoding="utf-8")
    done = run("compare_wordpiece", f"--bundle={tiny_dir}", f"--text_file={file}")
    lines = {text for text in "\n".join(HARD).split("\n")} - {""} | {"a great film"}
    assert f" of {len(lines)} lines equal" in done.stdout.replace(",", "")
    other = tmp_path / "other.bin"
    other.write_bytes(wordpiece_table.to_bytes(described()))
    done = run("compare_wordpiece", f"--bundle={tiny_dir}", f"--text_file={file}",
               f"--table={other}", status=1)
    assert "differs: " in done.stdout and "Received: " in done.stderr
