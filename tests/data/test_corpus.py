"""Files -> examples: the three formats, and each mistake with its file and line."""

from __future__ import annotations

import csv
import json

import pytest

from tfopt import data

PAIR = data.Columns(pair="text_pair")


@pytest.mark.parametrize("name, contents", [
    ("a.tsv", "text\tlabel\nhello there\tgood\nbye\tbad\n"),
    ("a.tsv", "label\ttext\ngood\thello there\nbad\tbye"),
    ("a.TSV", "text\tlabel\r\nhello there\tgood\r\nbye\tbad\r\n"),
    ("a.tsv", "\ufefftext\tlabel\nhello there\tgood\nbye\tbad\n"),
    ("a.csv", "text,label\nhello there,good\nbye,bad\n"),
    ("a.csv", '\ufeff"text","label"\r\n"hello there",good\r\nbye,"bad"\r\n'),
    ("a.jsonl", '{"text": "hello there", "label": "good"}\n'
                '{"label": "bad", "text": "bye", "other": [1]}\n'),
    ("a.jsonl", '\ufeff{"text": "hello there", "label": " good "}\r\n'
                '{"text": "bye", "label": "bad"}\r\n'),
])
def test_single_texts_are_read_from_every_format(write, name, contents):
    corpus = data.read(write(name, contents))
    assert corpus.texts == ["hello there", "bye"]
    assert corpus.labels == ["good", "bad"]
    assert corpus.pairs is None
    assert len(corpus) == 2


@pytest.mark.parametrize("name, contents", [
    ("a.tsv", "text\ttext_pair\tlabel\nhow?\twhy?\t1\n"),
    ("a.csv", "label,text_pair,text\n1,why?,how?\n"),
    ("a.jsonl", '{"text": "how?", "label": 1, "text_pair": "why?"}\n'),
])
def test_pairs_are_read_from_every_format(write, name, contents):
    corpus = data.read(write(name, contents), PAIR)
    assert (corpus.texts, corpus.pairs, corpus.labels) == (["how?"], ["why?"], ["1"])


@pytest.mark.parametrize("name, contents", [
    ("a.tsv", "id\tsentence1\tsentence2\tgold\n7\ta\tb\tyes\n"),
    ("a.csv", "id,sentence1,sentence2,gold\n7,a,b,yes\n"),
    ("a.jsonl", '{"sentence1": "a", "sentence2": "b", "gold": "yes"}\n'),
])
def test_columns_may_have_other_names(write, name, contents):
    columns = data.Columns(text="sentence1", pair="sentence2", label="gold")
    corpus = data.read(write(name, contents), columns)
    assert (corpus.texts, corpus.pairs, corpus.labels) == (["a"], ["b"], ["yes"])


def test_quotes_in_tsv_are_text(write):
    corpus = data.read(write("a.tsv", 'text\tlabel\n"open, and "closed"\tx\n"\ty\n'))
    assert corpus.texts == ['"open, and "closed"', '"']


def test_separators_other_than_newline_stay_in_tsv_text(write):
    corpus = data.read(write("a.tsv", "text\tlabel\none\u2028two\x0bthree\tx\n"))
    assert corpus.texts == ["one\u2028two\x0bthree"]


def test_quoted_csv_fields_may_hold_newlines_and_lines_stay_right(write):
    corpus = data.read(write("a.csv", 'text,label\n"one\n\ntwo, ""three""",x\n\nb,y\n'))
    assert corpus.texts == ['one\n\ntwo, "three"', "b"]
    assert corpus.lines == [2, 6]


@pytest.mark.parametrize("name, contents", [
    ("a.tsv", "text\tlabel\n\na\tx\n\r\nb\ty\n\n"),
    ("a.csv", "text,label\n\na,x\n\nb,y\n\n"),
    ("a.jsonl", '\n\n{"text": "a", "label": "x"}\n \n{"text": "b", "label": "y"}\n'),
])
def test_blank_lines_are_passed_over_and_counted(write, name, contents):
    corpus = data.read(write(name, contents))
    assert (corpus.texts, corpus.lines) == (["a", "b"], [3, 5])


def corpus_of(labels):
    return data.Corpus(path="a.tsv", texts=[f"text {i}" for i in range(len(labels))],
                       pairs=None, labels=list(labels),
                       lines=list(range(2, len(labels) + 2)))


@pytest.mark.parametrize("labels, expected", [
    (["10", "9", "-1", "9"], ["-1", "9", "10"]),
    (["b", "a", "C", "b"], ["C", "a", "b"]),
    (["10", "9", "x"], ["10", "9", "x"]),
    (["1.5", "10"], ["1.5", "10"]),
    (["0" * n + "1" for n in range(8)], ["0" * n + "1" for n in reversed(range(8))]),
])
def test_labels_sort_by_number_if_all_are_numbers_else_by_letter(labels, expected):
    assert corpus_of(labels).label_list() == expected


def test_class_ids_are_places_in_the_label_list():
    assert corpus_of(["b", "a", "b"]).class_ids(["b", "c", "a"]) == [0, 2, 0]


def test_a_label_the_train_file_lacks_is_named_with_its_line(write):
    dev = data.read(write("dev.tsv", "text\tlabel\na\tgood\nb\tugly\n"))
    with pytest.raises(ValueError, match=r"dev\.tsv:3: .*bad, good.*Received: 'ugly'"):
        dev.class_ids(["bad", "good"])


def test_take_keeps_the_asked_order():
    corpus = corpus_of(["x", "y", "z"]).take([2, 0])
    assert (corpus.texts, corpus.labels, corpus.lines) == (
        ["text 2", "text 0"], ["z", "x"], [4, 2])


def test_split_is_disjoint_complete_and_in_order():
    corpus = corpus_of(["x"] * 50)
    rest, held = corpus.split(0.2, seed=1)
    assert (len(rest), len(held)) == (40, 10)
    assert sorted(rest.lines + held.lines) == corpus.lines
    assert rest.lines == sorted(rest.lines) and held.lines == sorted(held.lines)


def test_split_depends_on_the_seed_alone():
    corpus = corpus_of(["x"] * 50)
    assert corpus.split(0.2, seed=1) == corpus.split(0.2, seed=1)
    assert corpus.split(0.2, seed=1)[1].lines != corpus.split(0.2, seed=2)[1].lines


@pytest.mark.parametrize("count, fraction", [
    (50, 0), (50, 1), (50, -0.1), (50, 1.5), (50, 0.001), (50, 0.999), (1, 0.5)])
def test_split_refuses_to_leave_a_side_empty(count, fraction):
    with pytest.raises(ValueError, match=f"Received: fraction={fraction} of {count} "):
        corpus_of(["x"] * count).split(fraction, seed=0)


@pytest.mark.parametrize("labels", [
    ["bad", "good"], ["0", "1", "2"], ["two words", "día", "a\u2028b", "#3"]])
def test_label_list_round_trip(write, labels):
    assert data.read_labels(write("labels.txt", data.labels_text(labels))) == labels


def test_label_list_with_crlf_bom_and_no_last_newline(write):
    path = write("labels.txt", b"\xef\xbb\xbfbad\r\ngood")
    assert data.read_labels(path) == ["bad", "good"]


JSON_ROW = json.dumps({"text": "a", "label": "x"})


@pytest.mark.parametrize("name, contents, place, received", [
    ("a.tsv", "text\tclass\na\tx\n", ":1", "text, class"),
    ("a.csv", "\n\ntexts,label\na,x\n", ":3", "texts, label"),
    ("a.tsv", "text\tlabel\na\tx\nb\n", ":3", "1: b"),
    ("a.tsv", "text\tlabel\na\tx\tmore\n", ":2", "3: a, x, more"),
    ("a.csv", 'text,label\n"a\nb",x\nc\n', ":4", "1: c"),
    ("a.csv", "text,label\na,x,more\n", ":2", "3: a, x, more"),
    ("a.csv", 'text,label\na,x\n"b,y\nc,z\n', ":3", "'\"b,y'"),
    ("a.tsv", b"text\tlabel\na\tx\ncaf\xe9\ty\n", ":3", "byte 0xe9"),
    ("a.csv", b"\xef\xbb\xbftext,label\n\xe9,x\nb,y\n", ":2", "byte 0xe9"),
    ("a.jsonl", b'{"text": "a", "label": "x"}\n\xff\n', ":2", "byte 0xff"),
    ("a.jsonl", JSON_ROW + "\n\n{'text': 'b'}\n", ":3",
     "\"{'text': 'b'}\": Expecting property name enclosed in double quotes: line 1 "
     "column 2 (char 1)"),
    ("a.jsonl", JSON_ROW + "\n[1]\n", ":2", "'[1]': list"),
    ("a.jsonl", '{"text": "a", "text": "b", "label": "x"}\n', ":1",
     "'{\"text\": \"a\", \"text\": \"b\", \"label\": \"x\"}': 'text' twice"),
    ("a.jsonl", JSON_ROW + '\n{"label": "y"}\n', ":2", "None among label"),
    ("a.jsonl", '{"text": "a", "label": null}\n', ":1", "None among text, label"),
    ("a.jsonl", '{"text": "a", "label": 0.5}\n', ":1", "0.5 among text, label"),
    ("a.jsonl", '{"text": "a", "label": true}\n', ":1", "True among text, label"),
    ("a.tsv", "text\tlabel\na\tx\nb\t \n", ":3", "label=' '"),
    ("a.jsonl", JSON_ROW + '\n{"text": "a", "label": ""}\n', ":2", "label=''"),
    ("a.csv", 'text,label\na,"two\nlines"\n', ":2", "label='two\\nlines'"),
    ("a.tsv", "text\tlabel\na\tx\ntext\tlabel\nb\ty\n", ":3", "text, label"),
    ("a.csv", "label,id,text\nx,1,a\n\nlabel,id,text\n", ":4", "label, id, text"),
    ("a.tsv", "text\tlabel\tlabel\na\tx\ty\n", ":1", "text, label, label"),
    ("a.csv", "text,text,label\na,b,y\n", ":1", "text, text, label"),
    ("a.jsonl", '{"text": "a", "label": "x", "text": "b"}\n', ":1",
     repr('{"text": "a", "label": "x", "text": "b"}') + ": 'text' twice"),
    ("a.jsonl", JSON_ROW + '\n{"text": "half \\ud83d", "label": "x"}\n', ":2",
     repr('{"text": "half \\ud83d", "label": "x"}')
     + r": half of a character, '\ud83d'"),
    ("a.jsonl", '{"text": "a", "label": "\\udc00"}\n', ":1",
     repr('{"text": "a", "label": "\\udc00"}')
     + r": half of a character, '\udc00'"),
    ("a.jsonl", '{"text": "a", "label": "\\ufeffx"}\n', ":1", r"label='\ufeffx'"),
    ("a.jsonl", "[" * 100_000, ":1",
     f"'{'[' * 80}': nested too deeply"),
    ("a.jsonl", json.dumps({"text": ["long"] * 999, "label": "x"}), ":1",
     str(["long"] * 999)[:200] + "... (7,992 letters) among text, label"),
    ("a.tsv", "t\0e\0x\0t\0\tlabel\na\tx\n", ":1", "t\0e\0x\0t\0, label"),
    ("a.tsv", "", "", "PATH"),
    ("a.csv", "", "", "PATH"),
    ("a.jsonl", "\n\n", "", "PATH"),
    ("a.tsv", "text\tlabel\n", "", "PATH"),
    ("a.csv", "text,label\n\n", "", "PATH"),
    ("a.txt", "text\tlabel\na\tx\n", "", "PATH"),
])
def test_bad_files_are_refused_by_place(write, name, contents, place, received):
    path = write(name, contents)
    with pytest.raises(ValueError) as refusal:
        data.read(path)
    message = str(refusal.value)
    assert message.endswith(
        "Received: " + received.replace("PATH", str(path)))
    assert message.startswith(f"{path}{place}: ") or not place


def test_missing_pair_column_is_named(write):
    path = write("a.tsv", "text\tlabel\na\tx\n")
    with pytest.raises(ValueError, match=r":1: .*'text_pair'\. Received: text, label"):
        data.read(path, PAIR)


@pytest.mark.parametrize("reader", [data.read, data.read_labels])
def test_missing_files_are_named(tmp_path, reader):
    path = tmp_path / "absent.tsv"
    with pytest.raises(ValueError) as refusal:
        reader(path)
    assert str(refusal.value).endswith(f"Received: {path}")


@pytest.mark.parametrize("contents, place, received", [
    ("bad\ngood\n\nbad\n", ":4: ", "'bad'"),
    ("", "", "PATH"),
    ("\n\n", "", "PATH"),
    (b"bad\n\xe9\n", ":2: ", "byte 0xe9"),
])
def test_bad_label_lists_are_refused(write, contents, place, received):
    path = write("labels.txt", contents)
    with pytest.raises(ValueError) as refusal:
        data.read_labels(path)
    message = str(refusal.value)
    assert message.endswith(
        "Received: " + received.replace("PATH", str(path)))
    assert message.startswith(f"{path}{place}") or not place


def test_a_json_number_with_a_fraction_is_a_label_where_labels_are_numbers(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": 0.5}\n{"text": "b", "label": 3}\n')
    assert data.read(path, data.Columns(form="number")).labels == ["0.5", "3"]
    path.write_text('{"text": 0.5, "label": 0.5}\n')
    with pytest.raises(ValueError, match="'text' must hold a text"):
        data.read(path, data.Columns(form="number"))


@pytest.mark.parametrize("names", [
    {"text": "label"}, {"pair": "text"}, {"text": ""}, {"pair": "label"}])
def test_columns_are_different_ones(names):
    with pytest.raises(ValueError, match=r"different columns\. Received: text="):
        data.Columns(**names)


def test_a_column_that_nobody_asks_for_may_be_there_twice(write):
    corpus = data.read(write("a.tsv", "id\ttext\tid\tlabel\n1\ta\t2\tx\n"))
    assert (corpus.texts, corpus.labels) == (["a"], ["x"])


def test_one_column_may_hold_its_own_name(write):
    """Of texts alone it says no more, so that it is one of them."""
    assert data.read_texts(write("a.tsv", "text\na\ntext\n")).texts == ["a", "text"]


def test_a_csv_field_may_be_long(write):
    """Python's reader refuses 131,073 letters, if it is not told otherwise."""
    before = csv.field_size_limit()
    text = "word " * 40_000
    assert data.read(write("a.csv", f'text,label\n"{text}",x\n')).texts == [text]
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("name, contents", [
    ("a.tsv", "text\tlabel\na\0b\t Fine  day \nA\tfine day\n"),
    ("a.jsonl", '{"text": "a\\u0000b", "label": " Fine  day "}\n'
                '{"text": "A", "label": "fine day"}\n'),
])
def test_words_stay_as_they_are_but_for_spaces_round_a_label(write, name, contents):
    corpus = data.read(write(name, contents))
    assert corpus.texts == ["a\0b", "A"]
    assert corpus.labels == ["Fine  day", "fine day"]


def test_a_number_of_thousands_of_digits_is_a_word():
    labels = ["9" * 5000, "10"]
    assert corpus_of(labels).label_list() == sorted(labels)
