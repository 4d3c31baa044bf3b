"""How a process that is timed talks to the benchmark: a line of JSON each way.

    channel = Channel()
    channel.say(ready=True)
    for request in channel.requests():
        channel.say(seconds=...)

The other end is `tfopt.measure.process.TimedProcess`. This one needs the standard
library alone: the references run in an interpreter that lacks what tfopt needs.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator


class Channel:
    """The standard input and output of a worker's process.

    What anything else prints goes to standard error from here on, so that it does not
    mix with the answers.
    """

    def __init__(self):
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        sys.stdout = sys.stderr

    def say(self, **answer) -> None:
        """Sends an answer."""
        print(json.dumps(answer, allow_nan=False), file=self._answers, flush=True)

    def requests(self) -> Iterator[dict]:
        """The requests, until the benchmark closes the worker."""
        # Not `for line in sys.stdin`: that may read ahead.
        while line := sys.stdin.readline():
            yield json.loads(line)
