"""Files are written whole or not at all."""

from __future__ import annotations

import contextlib
import os

import pytest

from tfopt import model
from tfopt.files import check_place, partial_directory, write_whole


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
