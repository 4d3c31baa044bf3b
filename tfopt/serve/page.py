"""The web page at `/`: a text typed in, its label, scores, variant and milliseconds."""

from __future__ import annotations

import functools
from pathlib import Path

# The page is one file, and asks nobody but this service.
HEADERS = {"content-security-policy": "default-src 'none'; connect-src 'self'; "
           "style-src 'unsafe-inline'; script-src 'unsafe-inline'"}


@functools.cache
def text() -> str:
    """The page's HTML."""
    return Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
