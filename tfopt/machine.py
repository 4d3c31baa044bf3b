"""What this machine is, as far as the system tells: what measured figures depend on."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

# Of /proc/cpuinfo: what tells one processor from another.
EXACTLY = ("model name", "cpu family", "model", "stepping")


def cpu(fields: Sequence[str] = EXACTLY) -> str:
    """Names the processor.

    Args:
        fields: of /proc/cpuinfo; those that are not there are left out.

    Returns:
        Their values; where the system has none of them, what Python knows.
    """
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    found = {name.strip(): value.strip() for name, value in lines.items()}
    return (" ".join(found[name] for name in fields if name in found)
            or platform.processor() or platform.machine())
