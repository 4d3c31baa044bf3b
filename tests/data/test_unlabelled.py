"""Texts without labels: the formats, and each mistake with its file and line."""

from __future__ import annotations

import pytest

from tfopt import data

PAIR = data.Columns(pair="text_pair")


@pytest.mark.parametrize("name, contents", [
    ("a.txt", "hello there\nbye\n"),
    ("a.TXT", "\ufeffhello there\r\n\r\n  \n bye "),
    ("a.tsv", "text\nhello there\nbye\n"),
    ("a.tsv", "id\ttext\n1\thello there\n2\tbye\n"),
    ("a.csv", 'text,label\n"hello there",good\nbye,bad\n'),
    ("a.jsonl", '{"text": "hello there"}\n{"text": "bye", "label": 1}\n'),
])
def test_texts_are_read_from_every_format(write, name, contents):
    found = data.read_texts(write(name, contents))
    assert (found.texts, found.pairs, len(found)) == (["hello there", "bye"], None, 2)


def test_a_line_may_hold_what_other_programs_take_for_its_end(write):
    assert data.read_texts(write("a.txt", "a\u2028b\nc\tand d\n")).texts == [
        "a\u2028b", "c\tand d"]


def test_pairs_are_read(write):
    found = data.read_texts(write("a.tsv", "text\ttext_pair\nhow?\twhy?\n"), PAIR)
    assert (found.texts, found.pairs) == (["how?"], ["why?"])


def test_what_a_service_kept_is_read_whatever_train_calls_its_columns(write):
    kept = ('{"text": "how?", "pair": "why?", "confidence": 0.4, "label": "a"}\n'
            '{"text": "who?", "pair": "me", "confidence": 0.5}\n')
    columns = data.Columns(text="sentence", pair="text_pair")
    found = data.read_texts(write("a.jsonl", kept), columns)
    assert (found.texts, found.pairs) == (["how?", "who?"], ["why?", "me"])
    own = data.read_texts(write("b.jsonl", '{"text": "no", "sentence": "yes"}'),
                          data.Columns(text="sentence"))
    assert (own.texts, own.pairs) == (["yes"], None)


@pytest.mark.parametrize("name, contents, columns, message", [
    ("a.doc", "hello", None, "must end in .txt, .tsv, .csv, .jsonl, .conll. "
     "Received: .*doc"),
    ("a.txt", "", None, "at least one. Received: .*a.txt"),
    ("a.txt", " \n\n", None, "at least one. Received: .*a.txt"),
    ("a.txt", b"fine\nb\xffd\n", None, "a.txt:2: the text must be UTF-8.*0xff"),
    ("a.txt", "how?\n", PAIR, "a.txt:1: .*no pair.*Received: columns text, text_pair"),
    ("a.tsv", "hello there\nbye\n", None, "a.tsv:1: the header has no column 'text'"),
    ("a.tsv", "text\tid\nhello\n", None, "a.tsv:2: a row must have 2 fields"),
    ("a.tsv", "id\ttext\n1\thello\n2\t \n", None,
     "a.tsv:3: a text must not be empty. Received: text=' '"),
    ("a.csv", 'text\n"hello\n', None, "a.csv:2: the row is no CSV"),
    ("a.jsonl", '{"text": "a"}\nhello\n', None, "a.jsonl:2: .*JSON object"),
    ("a.jsonl", '{"words": "a"}\n', None, "a.jsonl:1: the key 'text'"),
])
def test_a_wrong_file_is_refused(write, name, contents, columns, message):
    with pytest.raises(ValueError, match=message):
        data.read_texts(write(name, contents), columns or data.Columns())


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be read.*none.txt$"):
        data.read_texts(tmp_path / "none.txt")


def test_parts_are_joined_in_their_order():
    parts = [data.Encoded(ids=[[2, 3], [4]], first_lengths=[1, 1], truncated=1),
             data.Encoded(ids=[[5]], first_lengths=[1], truncated=2)]
    assert data.join(parts) == data.Encoded(
        ids=[[2, 3], [4], [5]], first_lengths=[1, 1, 1], truncated=3)
