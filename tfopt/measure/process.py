"""A process that is timed: asked, and answering, by a line of JSON each way.

The process says a first line once it is ready, then answers each line of its standard
input with one on its standard output; `measure/worker.py` is such a one.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, cast

from tfopt.files import to_json

_SHOWN = 500  # letters of what a process said


class TimedProcess:
    """A process that waits idle until it is asked.

    Args:
        command: program and arguments.
        environment: variables set beside those of this process.

    Attributes:
        ready: what the process said when it was ready.

    Raises:
        ValueError: the process ended before; holds the last line it wrote.
    """

    def __init__(self, command: Sequence[str | os.PathLike],
                 environment: Mapping[str, str] | None = None):
        self._command = [os.fspath(part) for part in command]
        self._errors = tempfile.TemporaryFile("w+")
        try:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=self._errors, text=True,
                env={**os.environ, **(environment or {})})
        except OSError as error:
            raise ValueError(f"A program cannot be started: {error.strerror}. "
                             f"Received: {self._command[0]}") from error
        # Both are there, since they were asked for as pipes.
        self._requests = cast(IO[str], self._process.stdin)
        self._answers = cast(IO[str], self._process.stdout)
        try:
            self.ready = self._answer()
        except BaseException:
            self.close()
            raise

    def ask(self, **request) -> dict:
        """Sends a request, and waits for the answer.

        Raises:
            ValueError: the process ended instead; holds the last line it wrote.
        """
        with contextlib.suppress(BrokenPipeError):  # _answer tells why
            self._requests.write(to_json(request) + "\n")
            self._requests.flush()
        return self._answer()

    def cpu_s(self) -> float:
        """CPU seconds of the process so far; nan where the system does not tell."""
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return float("nan")
        # Fields are counted behind the program's name, which may hold blanks.
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()
        self._errors.close()

    def _answer(self) -> dict:
        line = self._answers.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().strip().splitlines()[-1:]
            raise ValueError("A process that was to be timed ended. Received: "
                             f"{' '.join(self._command[:4])}: {''.join(said)[:_SHOWN]}")
        return json.loads(line)
