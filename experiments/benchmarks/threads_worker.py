"""Answers texts by a bundle, as threads.py asks: a bundle, so many copies and threads.

A request is {"texts": N texts, "clients": number of threads that ask}; the answer has
the seconds of each text and of all, a hash of the N answers, and the memory taken.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import protocol

from tfopt.files import to_json
from tfopt.serve import Bundle


def proportional_bytes() -> int:
    """Memory of this process; of pages that it shares with others, its part."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return 1024 * int(rollup.partition("\nPss:")[2].split()[0])


def main() -> None:
    """Answers requests until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", help="a directory")
    parser.add_argument("copies", type=int)
    parser.add_argument("num_threads", type=int)
    arguments = parser.parse_args()
    channel = protocol.Channel()
    bundle = Bundle.open(arguments.bundle, arguments.num_threads, arguments.copies)

    def answer(text: str) -> tuple[float, dict]:
        start = time.perf_counter()
        found, = bundle.predict([text])
        return time.perf_counter() - start, found

    channel.say(ready=True)
    for request in channel.requests():
        start = time.perf_counter()
        with ThreadPoolExecutor(request["clients"]) as clients:
            seconds, answers = zip(*clients.map(answer, request["texts"]), strict=True)
        wall_s = time.perf_counter() - start
        channel.say(seconds=seconds, wall_s=wall_s, bytes=proportional_bytes(),
                    answers=hashlib.sha256(to_json(answers).encode()).hexdigest())


if __name__ == "__main__":
    main()
