"""Files are written whole or not at all."""

from __future__ import annotations

import contextlib
import os

import pytest

from tfopt.files import write_whole


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
