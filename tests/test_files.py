"""Files are written whole or not at all; arrays and JSON are read within limits."""

from __future__ import annotations

import contextlib
import functools
import os
from concurrent import futures

import numpy as np
import pytest

from tfopt import files, model
from tfopt.files import (
    check_place,
    parse_json,
    partial_directory,
    read_arrays,
    read_json,
    to_json,
    write_whole,
)


@pytest.mark.parametrize("contents, written", [
    ("día\n", "día\n".encode()), (b"\x00\xff\r\n", b"\x00\xff\r\n"), ("", b"")])
def test_text_and_bytes_are_written_as_they_are(tmp_path, contents, written):
    path = tmp_path / "made" / "on the way" / "a.txt"
    write_whole(path, contents)
    assert path.read_bytes() == written
    assert os.listdir(path.parent) == ["a.txt"]


def test_the_old_file_is_replaced_and_not_written_into(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, "a long old text")
    with path.open() as reader:
        write_whole(path, "new")
        assert reader.read() == "a long old text"
    assert path.read_text() == "new"


@pytest.fixture
def no_renaming(monkeypatch):
    def refuse(*_):
        raise OSError("no renaming")

    monkeypatch.setattr(os, "replace", refuse)


@pytest.fixture
def interrupt(monkeypatch):
    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stop)


@pytest.mark.parametrize("failure, contents, error", [
    ("no_renaming", "new", OSError),
    ("full_disk", b"x" * 2000, OSError),
    ("interrupt", "new", KeyboardInterrupt),
    (None, "\ud800", UnicodeEncodeError),
])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_failure_leaves_what_was_there(
        tmp_path, request, full_disk, failure, contents, error, old):
    path = tmp_path / "a.txt"
    if old:
        path.write_text(old)
    if failure in ("no_renaming", "interrupt"):
        request.getfixturevalue(failure)
    full = failure == "full_disk"
    with pytest.raises(error), full_disk(1000) if full else contextlib.nullcontext():
        write_whole(path, contents)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == (
        {"a.txt": old} if old else {})


def test_several_workers_write_the_same_file_at_once(tmp_path):
    path = tmp_path / "a.txt"
    contents = ["a" * 5000, "b" * 7000]
    with futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(functools.partial(write_whole, path), contents * 100))
    assert path.read_text() in contents
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_partial_directory_is_gone_when_its_block_ends(tmp_path):
    with pytest.raises(OSError, match="full"), partial_directory(tmp_path) as own:
        (own / "model").write_text("half")
        assert own.parent == tmp_path
        raise OSError("full")
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_that_of_a_living_one_stays(tmp_path):
    (tmp_path / ".partial-dead").mkdir()
    (tmp_path / ".partial-dead" / "model").write_text("half")
    with partial_directory(tmp_path) as living:
        assert list(tmp_path.iterdir()) == [living]
        with partial_directory(tmp_path) as other:
            assert sorted(tmp_path.iterdir()) == sorted([living, other])
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_saved_where_one_was_killed(tmp_path, tiny_model):
    (tmp_path / ".partial-dead").mkdir()
    model.save(tiny_model, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["bert.json", "model.keras"]


def test_a_file_that_can_be_written_is_told_from_one_that_cannot(tmp_path):
    (tmp_path / "file").touch()
    for name in ("new.json", "file", "new/directory/new.json"):
        check_place(tmp_path / name)
    assert os.listdir(tmp_path) == ["file"]
    for name in ("", "file/new.json"):
        with pytest.raises(ValueError, match="Received: "):
            check_place(tmp_path / name)


def test_arrays_are_read_in_their_order(tmp_path):
    np.savez(tmp_path / "a.npz", b=np.arange(3), a=np.float32(0.5))
    found = read_arrays(tmp_path / "a.npz")
    assert list(found) == ["b", "a"]
    np.testing.assert_array_equal(found["b"], [0, 1, 2])


def test_damaged_arrays_are_named_and_nothing_of_them_is_run(tmp_path):
    """Cut and changed anywhere; a pickle, which could run anything, is never opened."""
    file = tmp_path / "a.npz"
    np.savez(file, b=np.arange(300), a=np.float32(0.5))
    whole = file.read_bytes()
    harmless = 0
    for place in range(0, len(whole), 31):
        for damaged in (whole[:place], whole[:place] + b"\xff\xff" + whole[place + 2:]):
            file.write_bytes(damaged)
            try:
                read_arrays(file)
                harmless += 1
            except ValueError as error:
                assert str(error).startswith("An .npz file is damaged. Received: "), (
                    place)
                assert str(file) in str(error)
    assert harmless < 0.3 * 2 * len(whole) / 31
    np.savez(file, a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="damaged. .*allow_pickle"):
        read_arrays(file)
    np.save(tmp_path / "b", np.arange(3))
    with pytest.raises(ValueError, match="damaged. Received: .*b.npy"):
        read_arrays(tmp_path / "b.npy")
    with pytest.raises(FileNotFoundError):
        read_arrays(tmp_path / "none.npz")


@pytest.mark.parametrize("text, value", [
    ('{"a": [1, 2.5, null, "\\ud83d\\ude00 día"]}', {"a": [1, 2.5, None, "😀 día"]}),
    ("{}", {})])
def test_json_is_read(tmp_path, text, value):
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    assert read_json(path) == value
    assert parse_json(text, "x") == value
    assert parse_json(text.encode(), "x") == value


@pytest.mark.parametrize("text, said", [
    (b"", "Expecting value"), (b"{", "Expecting property name"), (b"[1]", "list"),
    (b"null", "NoneType"), (b"{\"a\": caf\xe9}", "0xe9"), (b"\xef\xbb\xbf{}", "BOM"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "nested too deeply"),
    (b'{"a": 1, "b": 2, "a": 3}', "'a' twice"),
    # Among so many, comparing each with each would take minutes.
    (b"{" + b", ".join(b'"%d": 0' % (i % 99_999) for i in range(100_000)) + b"}",
     "'0' twice"), (b'{"a": Infinity}', "Infinity is no"),
    (b'{"a": NaN}', "NaN is no number"), (b'{"a": 1e999}', "1e999 is no number"),
    (b'{"a": "\\ud83d"}', r"half of a character"),
    (b'{"\\ude00": 1}', r"half of a character"),
    (b'{"a": ' + b"9" * 5000 + b"}", "4300 digits"),
    (b'{"a": "' + b"x" * 300 + b'"}', "more than 256 bytes"),
])
def test_what_is_no_json_is_one_sentence(tmp_path, monkeypatch, text, said):
    if "256" in said:
        monkeypatch.setattr(files, "MOST_JSON_BYTES", 256)
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=rf"^An odd file\. Received: {path}: .*{said}"):
        read_json(path, "An odd file")


def test_a_missing_file_and_a_directory_are_named(tmp_path):
    with pytest.raises(ValueError, match="Received: .*nowhere.json: No such file"):
        read_json(tmp_path / "nowhere.json")
    with pytest.raises(ValueError, match=f"Received: {tmp_path}: Is a directory"):
        read_json(tmp_path)


def test_numbers_that_python_writes_are_read_where_they_may_be():
    found = parse_json('{"a": [NaN, -Infinity]}', "x", finite=False)
    assert str(found) == "{'a': [nan, -inf]}"
    assert parse_json("[1]", "x", kind=list) == [1]


@pytest.mark.parametrize("value, told", [
    ({"a": [1.0, float("nan")]}, "a[1]=nan"),
    ([{"b": {"c": float("inf")}}, float("-inf")], "[0].b.c=inf, [1]=-inf"),
    (float("nan"), "a number=nan")])
def test_json_has_no_nan(value, told):
    with pytest.raises(ValueError, match="no NaN and no infinity") as caught:
        to_json(value)
    assert str(caught.value).endswith(f"Received: {told}")


def test_json_is_pythons_own():
    assert to_json({"a": [1, 2.5, None], "b": "\u00e9"}, ensure_ascii=False) == (
        '{"a": [1, 2.5, null], "b": "\u00e9"}')
