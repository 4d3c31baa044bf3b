"""Files for the tests of data."""

from __future__ import annotations

import pytest


@pytest.fixture
def write(tmp_path):
    """Writes a file from bytes or text, as it stands, and gives its path."""
    def write_file(name, contents):
        path = tmp_path / name
        path.write_bytes(contents if isinstance(contents, bytes)
                         else contents.encode("utf-8"))
        return path

    return write_file
