"""Files are written whole or not at all."""

from __future__ import annotations

import contextlib
import os

import pytest

from tfopt.files import to_json, write_whole


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
