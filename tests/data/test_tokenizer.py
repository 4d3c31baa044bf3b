"""Any checkpoint's tokenizer: the reference ids of each kind, settings, refusals."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from tokenizers import ByteLevelBPETokenizer

from tfopt import data, model

FAMILIES = ("tiny_distilbert", "tiny_electra", "tiny_mpnet", "tiny_roberta",
            "tiny_bert_tokens")
PAD_IDS = {"tiny_mpnet": 1, "tiny_roberta": 1}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "é", "e", "東", "京",
         "##京", "##b", "ab", "##a"]
UNK, CLS, SEP = 1, 2, 3
# What two readers of one checkpoint may differ in.
HARD = ["", "[MASK] <mask> [UNK] <s> [PAD]", "ÉTÉ 東京\u200d\x00 don't", "a" * 150,
        "The\tCompany's  profit\n- i̇İ ﬁn", "[cls] <S> a[SEP]b"]


@pytest.fixture(scope="module")
def goldens(tiny_dir):
    return tiny_dir.parent


@pytest.fixture(scope="module")
def family(goldens):
    """Texts, pairs, and the ids expected of each family."""
    return json.loads((goldens / "family_token_ids.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def readers(goldens, tmp_path_factory):
    """(family, whether by tokenizer.json) -> its tokenizer."""
    found = {}
    for name in FAMILIES:
        found[name, True] = data.tokenizer_from(goldens / name)
        place = tmp_path_factory.mktemp(name)
        for file in (goldens / name).iterdir():
            if file.name not in ("tokenizer.json", "model.safetensors"):
                shutil.copy(file, place)
        found[name, False] = data.tokenizer_from(place)
    return found


@pytest.fixture
def directory(tmp_path):
    """Writes a vocabulary and files of settings, and gives their directory."""
    def write(words=WORDS, **files):
        (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
        for name, contents in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(contents), "utf-8")
        return tmp_path

    return write


def pieces(tokenizer, text):
    return [tokenizer.words[i] for i in tokenizer.encode([text]).ids[0][1:-1]]


@pytest.mark.parametrize("by_json", [True, False], ids=["json", "vocabulary"])
@pytest.mark.parametrize("name", FAMILIES)
def test_each_kind_of_files_gives_the_reference_ids(name, by_json, readers, family):
    tokenizer, expected = readers[name, by_json], family["expected"][name]
    encoded = tokenizer.encode(family["texts"])
    assert encoded.ids == expected["input_ids"]
    assert encoded.first_lengths == [len(ids) for ids in encoded.ids]
    pairs = tokenizer.encode(*zip(*family["pairs"], strict=True))
    assert pairs.ids == expected["pair_input_ids"]
    for row, types in enumerate(expected.get("pair_token_type_ids", [])):
        assert pairs.first_lengths[row] == types.count(0)
    assert tokenizer.pad_id == encoded.pad_id == PAD_IDS.get(name, 0)
    assert tokenizer.words[tokenizer.unknown_id] in ("[UNK]", "<unk>")
    assert tokenizer.lowercase == (name not in ("tiny_roberta", "tiny_bert_tokens"))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_tokenizer_json_is_enough(name, readers, goldens, tmp_path):
    shutil.copy(goldens / name / "tokenizer.json", tmp_path)
    alone, with_settings = data.tokenizer_from(tmp_path), readers[name, True]
    assert alone.encode(HARD, HARD[::-1]) == with_settings.encode(HARD, HARD[::-1])
    assert (alone.pad_id, alone.unknown_id) == (
        with_settings.pad_id, with_settings.unknown_id)


def test_vocabulary_and_merges_give_what_tokenizers_own_byte_level_bpe_gives(
        readers, goldens, family):
    """Between <s> and </s>; and two </s> stand between the texts of a pair."""
    place = goldens / "tiny_roberta"
    reference = ByteLevelBPETokenizer(str(place / "vocab.json"),
                                      str(place / "merges.txt"))
    ours = readers["tiny_roberta", False]
    texts = [*family["texts"], "", "a" * 150, "ÉTÉ 東京\u200d\x00 don't  \n\t it's",
             " so", "\U0001f600 \u0627\u0644"]
    spelled = [encoding.ids for encoding in reference.encode_batch(texts)]
    first, last = (ours.words.index(token) for token in ("<s>", "</s>"))
    assert ours.encode(texts).ids == [[first, *ids, last] for ids in spelled]
    assert ours.encode(texts, texts[::-1]).ids == [
        [first, *one, last, last, *other, last]
        for one, other in zip(spelled, spelled[::-1], strict=True)]
    assert [ours.words[number] for number in (first, ours.pad_id, last)] == [
        "<s>", "<pad>", "</s>"]


@pytest.mark.parametrize("name", FAMILIES)
def test_both_ways_to_read_a_checkpoint_agree(name, readers):
    by_json, by_vocabulary = readers[name, True], readers[name, False]
    assert by_json.words == by_vocabulary.words
    assert by_json.encode(HARD).ids == by_vocabulary.encode(HARD).ids
    assert by_json.encode(HARD, HARD[::-1], max_length=9) == by_vocabulary.encode(
        HARD, HARD[::-1], max_length=9)
    assert by_json.removable() == by_vocabulary.removable()


@pytest.mark.parametrize("name", [*FAMILIES, "tiny_bert", "minilm"])
def test_what_is_saved_comes_back_by_either_way(name, readers, goldens, tmp_path):
    before = readers.get((name, True)) or data.tokenizer_from(
        model.directory("minilm") if name == "minilm" else goldens / name)
    (tmp_path / "vocab.txt").write_text("of another\n", encoding="utf-8")
    before.save(tmp_path)
    has_vocabulary = name != "tiny_roberta"
    assert (tmp_path / "vocab.txt").exists() == has_vocabulary
    for _ in range(1 + has_vocabulary):
        after = data.tokenizer_from(tmp_path)
        assert (after.vocab_size, after.pad_id, after.unknown_id, after.lowercase) == (
            before.vocab_size, before.pad_id, before.unknown_id, before.lowercase)
        assert after.words == before.words or name == "tiny_bert"  # has "a" twice
        assert after.encode(HARD, HARD) == before.encode(HARD, HARD)
        (tmp_path / "tokenizer.json").unlink(missing_ok=True)  # then by vocab.txt


def test_the_packaged_checkpoint_is_cut_and_padded_as_asked_not_as_its_file(token_ids):
    """Its `tokenizer.json` cuts to 128 tokens, and pads to as many."""
    tokenizer = data.tokenizer_from(model.directory("minilm"))
    encoded = tokenizer.encode([*token_ids["texts"], "word " * 300])
    assert encoded.ids[:-1] == token_ids["input_ids"]
    assert len(encoded.ids[-1]) == 302
    assert (encoded.truncated, tokenizer.vocab_size, tokenizer.pad_id) == (0, 30522, 0)
    old = data.WordPiece.from_directory(model.directory("minilm"))
    assert (old.words, old.removable()) == (tokenizer.words, tokenizer.removable())


def test_files_of_no_known_kind_are_named(tmp_path):
    (tmp_path / "spiece.model").touch()
    (tmp_path / "vocab.json").touch()  # without its merges
    with pytest.raises(ValueError) as refusal:
        data.tokenizer_from(tmp_path)
    assert str(refusal.value) == (
        "A tokenizer must be one of these files: tokenizer.json; vocab.txt; vocab.json "
        f"with merges.txt. Received: {tmp_path} with spiece.model, vocab.json")
    with pytest.raises(ValueError, match="nowhere with no directory$"):
        data.tokenizer_from(tmp_path / "nowhere")


@pytest.mark.parametrize(("settings", "text", "expected"), [
    ({}, "É é", ["e", "e"]),
    ({"strip_accents": False}, "É é", ["é", "é"]),
    ({"do_lower_case": False, "strip_accents": True}, "a é", ["a", "e"]),
    ({"do_lower_case": False}, "A é", ["[UNK]", "é"]),
    ({}, "東京", ["東", "京"]),
    ({"tokenize_chinese_chars": False}, "東京", ["東", "##京"]),
    ({"tokenize_chinese_chars": None, "strip_accents": None}, "東京é",
     ["東", "京", "e"]),
    ({"unk_token": "b"}, "zoo", ["b"]),
    ({"pad_token": {"content": "a"}}, "b", ["b"]),
])
def test_every_setting_beside_a_vocabulary_counts(directory, settings, text, expected):
    tokenizer = data.tokenizer_from(directory(tokenizer_config=settings))
    assert pieces(tokenizer, text) == expected
    assert tokenizer.words[tokenizer.pad_id] == ("a" if "pad_token" in settings
                                                 else "[PAD]")


@pytest.mark.parametrize(("settings", "text", "expected"), [
    ({}, "É 東京", ["e", "東", "京"]),
    ({"strip_accents": False}, "É", ["é"]),
    ({"do_lower_case": False, "strip_accents": True}, "a É", ["a", "[UNK]"]),
    ({"tokenize_chinese_chars": False}, "東京", ["東", "##京"]),
    ({"do_lower_case": None, "strip_accents": None}, "É", ["e"]),
])
def test_a_setting_counts_beside_a_tokenizer_json_and_is_kept(
        directory, settings, text, expected, tmp_path):
    """As in transformers, where the two say different things."""
    data.tokenizer_from(directory()).save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    tokenizer = data.tokenizer_from(tmp_path)
    assert pieces(tokenizer, text) == expected
    assert tokenizer.lowercase == (settings.get("do_lower_case") is not False)
    tokenizer.save(tmp_path / "saved")
    for _ in range(2):
        assert pieces(data.tokenizer_from(tmp_path / "saved"), text) == expected
        (tmp_path / "saved" / "tokenizer.json").unlink(missing_ok=True)


def test_the_space_before_a_text_is_a_setting_of_a_byte_level_bpe(goldens, tmp_path):
    found = {}
    for spaced in (False, True):
        for by_json in (True, False):
            place = tmp_path / f"{spaced}{by_json}"
            shutil.copytree(goldens / "tiny_roberta", place)
            if not by_json:
                (place / "tokenizer.json").unlink()
            file = place / "tokenizer_config.json"
            file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {
                "add_prefix_space": spaced}), "utf-8")
            tokenizer = data.tokenizer_from(place)
            tokenizer.save(place / "saved")
            found[spaced, by_json] = tokenizer.encode(HARD).ids
            assert data.tokenizer_from(place / "saved").encode(HARD).ids == (
                found[spaced, by_json])
    assert found[True, True] == found[True, False] != found[False, True]
    assert found[False, True] == found[False, False]


def test_special_tokens_may_be_others_and_named_in_their_own_file(directory):
    words = ["<unk>", "<begin>", "<end>", "<fill>", "a"]
    tokenizer = data.tokenizer_from(directory(words, special_tokens_map={
        "unk_token": "<unk>", "cls_token": {"content": "<begin>"},
        "sep_token": "<end>", "pad_token": "<fill>"}))
    encoded = tokenizer.encode(["a z"], ["a"])
    assert encoded.ids == [[1, 4, 0, 2, 4, 2]]
    assert encoded.first_lengths == [4]
    assert (tokenizer.pad_id, tokenizer.unknown_id) == (3, 0)


@pytest.mark.parametrize("files", [
    {"added_tokens": {"#tag": 15, "ab cd": 16}},
    {"tokenizer_config": {"added_tokens_decoder": {
        "16": {"content": "ab cd", "special": False}, "15": {"content": "#tag"}}}},
])
def test_added_tokens_stay_whole(directory, files, tmp_path):
    tokenizer = data.tokenizer_from(directory(**files))
    assert pieces(tokenizer, "a #tag ab cd") == ["a", "#tag", "ab cd"]
    assert tokenizer.words == [*WORDS, "#tag", "ab cd"]
    assert not {15, 16} & set(tokenizer.removable())
    tokenizer.save(tmp_path / "saved")
    for _ in range(2):
        again = data.tokenizer_from(tmp_path / "saved")
        assert pieces(again, "a #tag ab cd") == ["a", "#tag", "ab cd"]
        (tmp_path / "saved" / "tokenizer.json").unlink(missing_ok=True)


@pytest.mark.parametrize(("files", "received"), [
    ({"added_tokens": {"new": 99}}, "'new' with id 99, where 15 is next"),
    ({"added_tokens": {"ab": 15}}, "'ab' with id 15, where 13 is next"),
    ({"tokenizer_config": {"do_lower_case": "yes"}},
     "tokenizer_config.json: do_lower_case='yes'"),
    ({"tokenizer_config": {"do_basic_tokenize": False}},
     "tokenizer_config.json: do_basic_tokenize=False"),
    ({"tokenizer_config": {"never_split": ["ab"]}},
     "tokenizer_config.json: never_split=['ab']"),
    ({"tokenizer_config": {"word_tokenizer_type": "mecab"}},
     "tokenizer_config.json: word_tokenizer_type='mecab'"),
    ({"tokenizer_config": {"unk_token": 7}}, "tokenizer_config.json: 7"),
    ({"tokenizer_config": {"added_tokens_decoder": {"x": "b"}}},
     "invalid literal for int() with base 10: 'x'"),
    ({"tokenizer_config": {"sep_token": "<end>"}}, "vocab.txt without <end>"),
    ({"special_tokens_map": []}, "special_tokens_map.json: list"),
])
def test_settings_that_cannot_be_honoured_are_named(directory, files, received):
    with pytest.raises(ValueError) as refusal:
        data.tokenizer_from(directory(**files))
    assert "Received: " in str(refusal.value)
    assert str(refusal.value).endswith(received)


def test_a_vocabulary_may_have_windows_line_ends(tmp_path):
    (tmp_path / "vocab.txt").write_bytes("\r\n".join([*WORDS, ""]).encode())
    assert data.tokenizer_from(tmp_path).words == WORDS


@pytest.mark.parametrize("contents", ["", "{}", "[1]", '{"model": {"type": "What"}}'])
def test_a_damaged_tokenizer_json_is_named(tmp_path, contents):
    (tmp_path / "tokenizer.json").write_text(contents, encoding="utf-8")
    with pytest.raises(ValueError, match=r"Received: .*tokenizer\.json: "):
        data.tokenizer_from(tmp_path)


@pytest.mark.parametrize("settings", [{}, {"pad_token": "[NONE]"}])
def test_a_tokenizer_without_padding_is_refused(goldens, settings, tmp_path):
    text = (goldens / "tiny_distilbert" / "tokenizer.json").read_text(encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text(text.replace("[PAD]", "[FILL]"), "utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    with pytest.raises(ValueError, match=f"pad_token={settings.get('pad_token')} in .*"
                                         r"tokenizer\.json$".replace("[", "\\[")):
        data.tokenizer_from(tmp_path)


@pytest.mark.parametrize(("merges", "vocabulary", "received"), [
    ("#version: 0.2\na b\nc\n", None, "merges.txt:3: a merge must be two pieces. "
     "Received: 'c'"),
    ("q zz\n", None, "do not fit"),
    ("", {"a": 0}, "without <unk>, </s>, <s>, <pad>, <mask>"),
    ("", {"a": "b"}, "vocab.json"),
    ("", [], "vocab.json"),
])
def test_damaged_files_of_a_byte_level_bpe_are_named(goldens, tmp_path, merges,
                                                     vocabulary, received):
    (tmp_path / "merges.txt").write_text(merges, encoding="utf-8")
    if vocabulary is None:
        shutil.copy(goldens / "tiny_roberta" / "vocab.json", tmp_path)
    else:
        (tmp_path / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    with pytest.raises(ValueError) as refusal:
        data.tokenizer_from(tmp_path)
    assert received in str(refusal.value) and "Received: " in str(refusal.value)


@pytest.fixture(scope="module")
def tagged(goldens, tmp_path_factory):
    """A `tokenizer.json` of DistilBERT's, with a token added behind its vocabulary."""
    description = json.loads((goldens / "tiny_distilbert" / "tokenizer.json").read_text(
        encoding="utf-8"))
    description["added_tokens"].append({
        "id": 120, "content": "#tag", "single_word": False, "lstrip": False,
        "rstrip": False, "normalized": True, "special": False})
    place = tmp_path_factory.mktemp("tagged")
    (place / "tokenizer.json").write_text(json.dumps(description), encoding="utf-8")
    return data.tokenizer_from(place)


def test_a_part_of_a_tokenizer_json_cuts_texts_into_the_same_pieces(tagged, tmp_path):
    text = "hide the #tag of the company"
    needed = set(tagged.encode([text]).ids[0])
    removable = tagged.removable()
    assert set(removable.values()) == {tagged.unknown_id}
    assert 120 not in removable and not {0, 1, 2, 3, 4} & set(removable)
    rows = [row for row in range(tagged.vocab_size + 3)  # a model may have more rows
            if row in needed or row not in removable]
    part = tagged.keeping(rows)
    assert part.words == [tagged.words[row] for row in rows[:-3]]
    assert len(part.words) < 100
    assert pieces(part, text) == pieces(tagged, text)
    assert "#tag" in pieces(part, text)
    encoded = part.encode([text], ["a"])
    assert [rows[i] for i in encoded.ids[0]] == tagged.encode([text], ["a"]).ids[0]
    part.save(tmp_path)
    again = data.tokenizer_from(tmp_path)
    assert (again.words, again.encode([text])) == (part.words, part.encode([text]))
    smaller = part.keeping([row for row in range(part.vocab_size)
                            if part.words[row] != "#tag"])
    assert pieces(smaller, "#tag")[0] in ("#", "[UNK]")


def test_rows_in_another_order_number_all_tokens_anew(tagged):
    rows = list(range(tagged.vocab_size))[::-1]
    turned = tagged.keeping(rows)
    assert [rows[i] for i in turned.encode(["the #tag z"], ["a"]).ids[0]] == (
        tagged.encode(["the #tag z"], ["a"]).ids[0])
    assert (rows[turned.pad_id], rows[turned.unknown_id]) == (0, 1)


def test_a_byte_level_bpe_stays_whole(readers):
    tokenizer = readers["tiny_roberta", True]
    assert tokenizer.removable() == {}
    assert tokenizer.keeping(range(400)) is tokenizer
    with pytest.raises(ValueError, match="Received: a tokenizer of BPE$"):
        tokenizer.keeping(range(9))


@pytest.mark.parametrize(("texts", "pairs", "received"), [
    ("so bad", None, "texts='so bad'"),
    (["a"], "b", "pairs='b'"),
    (["a", 7], None, r"texts[1]=7"),
    (["a", None], None, r"texts[1]=None"),
    ([("a", "b")], None, r"texts[0]=('a', 'b')"),
    (["a", "half \ud83d"], None, r"'half \ud83d'"),
    (["a"], ["\udc00"], r"'\udc00'"),
])
def test_what_is_no_list_of_texts_is_refused(tagged, texts, pairs, received):
    with pytest.raises(ValueError) as refusal:
        tagged.encode(texts, pairs)
    assert str(refusal.value).endswith(f"Received: {received}")
    assert tagged.encode(["a"]).ids == [[2, 13, 3]]


def test_threads_that_ask_for_other_lengths_do_not_mix(tagged):
    texts = ["the company hide new units from a b c d e f"] * 8
    alone = {length: tagged.encode(texts, max_length=length) for length in (4, 7, 12)}
    assert [len(alone[length].ids[0]) for length in alone] == [4, 7, 12]
    with ThreadPoolExecutor(4) as threads:
        asked = [(4, 7, 12)[i % 3] for i in range(120)]
        answers = threads.map(lambda n: tagged.encode(texts, max_length=n), asked)
    assert list(answers) == [alone[length] for length in asked]
