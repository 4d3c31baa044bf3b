"""The process in which one artifact is timed: `python -m tfopt.measure.worker`.

It says {"ready": true} once the artifact is loaded, then answers each line of JSON on
its standard input with one on its standard output. A process that times a `.tflite`
imports no TensorFlow, so that its peak memory is what a small server would need.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from tfopt.measure.runners import open_artifact


def main(artifact: str, num_threads: int) -> None:
    """Answers requests until the input ends.

    A request is {"ids": N lists, "first_lengths": N numbers}; the answer is
    {"seconds": N floats, "peak_rss_bytes": highest memory of the process so far}.

    Args:
        artifact: path of a `.tflite`, or of a directory with a Keras model.
        num_threads: for each request.
    """
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a library prints must not mix with the answers
    runner = open_artifact(artifact, num_threads, known=True)  # it may end this process
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        seconds = []
        for example in zip(request["ids"], request["first_lengths"], strict=True):
            start = time.perf_counter()
            runner.run(*example)
            seconds.append(time.perf_counter() - start)
        print(json.dumps({"seconds": seconds, "peak_rss_bytes": _peak_rss_bytes()}),
              file=answers, flush=True)


def _peak_rss_bytes() -> int:
    # getrusage counts the memory of the parent at the fork, too; Linux has the figure
    # of this program alone.
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
