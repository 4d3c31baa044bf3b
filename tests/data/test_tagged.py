"""Words with tags: files -> a corpus; its words -> the tokens that stand for them."""

from __future__ import annotations

import pytest

from tfopt import data
from tfopt.data.places import NO_WORD, Places

TAGS = data.Columns(form="tags")
CONLL = """-DOCSTART- -X- -X- O

EU NNP B-ORG
rejects VBZ O

@paul\tO
\u2028\tO
New York\tB-city
"""


def write(directory, text: str, name: str = "train.conll"):
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_conll_file_has_texts_with_places_of_their_words(tmp_path):
    corpus = data.read(write(tmp_path, CONLL), TAGS)
    assert corpus.texts == ["EU rejects", "@paul \u2028 New York"]
    assert corpus.labels == [("B-ORG", "O"), ("O", "O", "B-city")]
    assert corpus.lines == [3, 6] and corpus.line_of(1, 2) == 8
    assert [[text[slice(*place)] for place in places] for text, places in zip(
        corpus.texts, corpus.word_spans, strict=True)] == [
        ["EU", "rejects"], ["@paul", "\u2028", "New York"]]
    assert corpus.label_list() == ["B-ORG", "B-city", "O"]
    second = corpus.take([1])
    assert second.word_spans == corpus.word_spans[1:] and second.lines == [6]


def test_jsonl_has_tokens_or_spans(tmp_path):
    path = write(tmp_path, '{"tokens": ["in", "Bonn"], "tags": ["O", "B-city"]}\n'
                 '{"text": "I, Al Oz, sing.", "spans": [{"start": 3, "end": 8, '
                 '"label": "person"}]}\n', "train.jsonl")
    corpus = data.read(path, TAGS)
    assert corpus.texts == ["in Bonn", "I, Al Oz, sing."] and corpus.lines == [1, 2]
    assert corpus.labels[0] == ("O", "B-city")
    assert corpus.labels[1] == ("O", "O", "B-person", "I-person", "O", "O", "O")
    assert corpus.word_spans[1][2:4] == [(3, 5), (6, 8)] and corpus.line_of(1, 2) == 2
    named = write(tmp_path, '{"words": ["a"], "ner": ["O"]}', "named.jsonl")
    assert data.read(named, data.Columns(text="words", label="ner", form="tags")
                     ).texts == ["a"]


@pytest.mark.parametrize(("name", "text", "refused"), [
    ("a.conll", "a O\nb\n", r"a.conll:2: .* word and.* a tag. Received: 'b'"),
    ("a.conll", "\tO\n", "a.conll:1: "),
    ("a.conll", "\n\n", "at least one example. Received: .*a.conll"),
    ("a.tsv", "a\tO\n", r"words with tags must end in .conll, .jsonl. Received: .*tsv"),
    ("a.jsonl", '{"tokens": ["a"]}', "a.jsonl:1: the key 'tags' .*Received: None"),
    ("a.jsonl", '\n{"tokens": "a", "tags": ["O"]}', "a.jsonl:2: the key 'tokens'"),
    ("a.jsonl", '{"tokens": ["a", "b"], "tags": ["O"]}',
     "a.jsonl:1: .*tag for each word. Received: 2 words, 1 tags"),
    ("a.jsonl", '{"text": "ab", "spans": [{"start": 1, "end": 3, "label": "x"}]}',
     "a.jsonl:1: a span .*Received: .* of 2 characters"),
    ("a.jsonl", '{"text": "ab", "spans": [{"start": 0, "end": 1, "label": "x"}, '
     '{"start": 1, "end": 2, "label": "y"}]}', "a.jsonl:1: a span .*Received: .*'y'"),
    ("a.jsonl", '{"text": "  ", "spans": []}', "a.jsonl:1: a text must have a word"),
])
def test_what_is_no_such_file_is_refused_by_file_and_line(name, text, refused,
                                                          tmp_path):
    with pytest.raises(ValueError, match=refused):
        data.read(write(tmp_path, text, name), TAGS)


def test_words_with_tags_are_no_pairs(tmp_path):
    with pytest.raises(ValueError, match="Received: pair='other'"):
        data.read(write(tmp_path, CONLL), data.Columns(form="tags", pair="other"))


def test_texts_of_a_conll_file_come_without_tags(tmp_path):
    path = write(tmp_path, CONLL)
    assert data.read_texts(path).texts == data.read(path, TAGS).texts
    with pytest.raises(ValueError, match=":1: words with tags are of one text"):
        data.read_texts(path, data.Columns(pair="other"))


@pytest.fixture(scope="module")
def bert(tiny_dir):
    return data.tokenizer_from(tiny_dir.parent / "tiny_bert_tokens")


@pytest.mark.parametrize("family", ["tiny_bert_tokens", "tiny_roberta", "tiny_mpnet"])
def test_tokens_stand_where_their_words_do(family, tiny_dir):
    tokenizer = data.tokenizer_from(tiny_dir.parent / family)
    text = "  a film,\u00a0so  bad\n"
    places, = tokenizer.encode([text], places=True).places
    words = [text[slice(*span)] for span in places.word_spans()]
    assert words == ["a", "film", ",", "so", "bad"]
    assert places.text == text and places.words[0] == places.words[-1] == NO_WORD
    assert [places.words[token] for token in places.first_tokens()] == [0, 1, 2, 3, 4]
    assert tokenizer.encode([text]).places is None


def test_a_word_is_of_its_first_token_and_some_have_none(bert):
    words = ["unaffable-Xyz", "\x07", "film", "so", "bad", "film"]
    text, spans = " ".join(words), []
    for word in words:
        start = spans[-1][1] + 1 if spans else 0
        spans.append((start, start + len(word)))
    places, = bert.encode([text], places=True).places
    tokens = places.tokens_of(spans)
    assert tokens[0] == 1 and tokens[1] == -1 and -1 not in tokens[2:]
    assert [places.spans[token][0] for token in tokens[2:]] == [
        start for start, _ in spans[2:]]
    cut, = bert.encode([text], places=True, max_length=tokens[3] + 1).places
    assert cut.tokens_of(spans) == [*tokens[:3], -1, -1, -1]
    assert spans[2][1] == cut.end


def test_without_a_splitting_of_its_own_white_space_parts_words():
    class Encoding:
        offsets = [(0, 0), (0, 2), (2, 3), (3, 6), (0, 0)]
        word_ids = [None, 0, 0, 0, None]
        special_tokens_mask = [1, 0, 0, 0, 1]

    places = Places.of("abc de", Encoding())
    assert places.spans == ((0, 0), (0, 2), (2, 3), (4, 6), (0, 0))
    assert places.words == (-1, 0, 0, 1, -1)


def test_places_are_of_one_text(bert):
    with pytest.raises(ValueError, match="Received: pairs"):
        bert.encode(["a"], ["b"], places=True)
