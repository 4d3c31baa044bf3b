r"""What HTTP costs: `tfopt serve` against the same bundle in a process, in turn.

    python experiments/benchmarks/serve_overhead.py --bundle=DIR --report=FILE.json

With one client: the p50 of an answer through HTTP, less that of `Bundle.predict`. With
32 clients: texts a second, over those of as many threads as the server has, which ask
the bundle without a server; and the p99. Answers are checked to be the same. The
clients take a part of the two cores, too. `--mlserver_python` and `--kserve_python` are
Pythons with these servers (other_servers.py), to be measured in the same rounds. Cost:
three minutes. Expected: 0.35 ms or
less; 0.85 or more; p99 within 5 times the p50.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import common
import http_clients
import numpy as np
import other_servers
from absl import flags
from server_process import ServerProcess

from tfopt import data
from tfopt.cli import script as shared
from tfopt.measure.process import TimedProcess
from tfopt.serve.ladder import Ladder

FLAGS = flags.FLAGS
_DEADLINE_MS = 60_000.0  # nothing is to be refused
_PATIENCE_S = 60.0  # for another server to start
_OURS = "tfopt"


def texts() -> list[str]:
    """The texts of a round, from the file over and over."""
    found = (data.read_texts(FLAGS.text_file).texts if FLAGS.text_file
             else data.read(data.DEMO_TRAIN_FILE).texts)
    count = 100 if FLAGS.smoke else FLAGS.texts
    return [found[i % len(found)] for i in range(count)]


def through_http(place: tuple[str, int], requests: list[bytes], clients: int) -> dict:
    """Seconds of each answer, those of all, and the labels.

    Args:
        place: host and port of a server.
        requests: for a label, one after the other.
        clients: that send them.

    Raises:
        ValueError: a request got no answer.
    """
    replies = http_clients.closed_loop(place, requests, clients)
    statuses = {reply.status for reply in replies}
    if statuses != {200} or len(replies) < len(requests):
        raise ValueError("Each request must get an answer. Received: "
                         f"{len(replies)} of {len(requests)}, of status {statuses}")
    labels = {reply.number: json.loads(reply.body)["outputs"][0]["data"][0]
              for reply in replies}
    return {"seconds": [reply.seconds for reply in replies],
            "wall_s": http_clients.wall_s(replies),
            "labels": [labels[number] for number in sorted(labels)]}


@contextlib.contextmanager
def other_server(name: str, python: str, bundle: Path) -> Iterator[tuple[str, int]]:
    """Another server with the same bundle, which answers by now.

    Args:
        name: of it, as other_servers.py has it.
        python: interpreter that has it.
        bundle: directory.

    Yields:
        Host and port.

    Raises:
        ValueError: it does not answer within a minute, or ends.
    """
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        place = free.getsockname()
    with subprocess.Popen(
            [python, common.HERE / "other_servers.py", name, bundle, str(place[1])],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + _PATIENCE_S
            while not _answers(place):
                if process.poll() is not None or time.monotonic() > end:
                    raise ValueError(f"{name} must answer. Received: {python}, with "
                                     f"exit status {process.poll()}")
                time.sleep(0.2)
            yield place
        finally:
            process.kill()


def _answers(place: tuple[str, int]) -> bool:
    try:
        with urllib.request.urlopen(f"http://{place[0]}:{place[1]}/v2/models/"
                                    f"{other_servers.MODEL}/ready", timeout=5) as found:
            return found.status == 200
    except OSError:
        return False


def figures(rounds: list[dict], number: int, server: str) -> dict:
    """What the rounds say, each ratio and difference taken within a round.

    Args:
        rounds: name of a program -> what it took, of each round.
        number: texts of a round.
        server: whose figures.
    """
    one, many = f"{server}_one", f"{server}_many"

    def p50_ms(name: str) -> np.ndarray:
        return np.array([1e3 * np.median(taken[name]["seconds"]) for taken in rounds])

    def per_s(name: str) -> np.ndarray:
        return np.array([number / taken[name]["wall_s"] for taken in rounds])

    many_ms = 1e3 * np.array([taken[many]["seconds"] for taken in rounds])
    p50, p99 = np.percentile(many_ms, [50, 99])
    return {
        "one_client": {
            "in_process_p50_ms": float(np.median(p50_ms("bare_one"))),
            "http_p50_ms": float(np.median(p50_ms(one))),
            "overhead_p50_ms": float(np.median(p50_ms(one) - p50_ms("bare_one")))},
        "many_clients": {
            "bare_texts_per_s": float(np.median(per_s("bare_many"))),
            "http_texts_per_s": float(np.median(per_s(many))),
            "http_over_bare": float(np.median(per_s(many) / per_s("bare_many"))),
            "p50_ms": float(p50), "p99_ms": float(p99), "p99_over_p50": float(p99 / p50)
        }}


def main() -> None:
    """Asks in turn, and reports."""
    asked = texts()
    ladder = Ladder.read(FLAGS.bundle)
    bundle = ladder.path(ladder.fastest)  # of a bundle itself
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ServerProcess(
            bundle, f"--name={other_servers.MODEL}", f"--threads={FLAGS.num_threads}",
            f"--deadline_ms={_DEADLINE_MS}"))
        places = {_OURS: server.place}
        for name, python in (("mlserver", FLAGS.mlserver_python),
                             ("kserve", FLAGS.kserve_python)):
            if python:
                places[name] = stack.enter_context(other_server(name, python, bundle))
        bare = TimedProcess([sys.executable, common.HERE / "threads_worker.py", bundle,
                             str(FLAGS.num_threads), "1"])
        stack.callback(bare.close)
        rounds = measured(bare, places, asked)
        memory = server.memory_bytes()
    common.write_report(
        {name: figures(rounds, len(asked), name) for name in places}
        | {"clients": FLAGS.clients, "texts": len(asked), "memory_bytes": memory},
        num_threads=FLAGS.num_threads)


def measured(bare: TimedProcess, places: dict[str, tuple[str, int]], asked: list[str]
             ) -> list[dict]:
    """What the bundle without a server, and each server, took: a record a round.

    Raises:
        ValueError: a server gives other labels.
    """
    requests = [http_clients.infer(other_servers.MODEL, text, ("label",))
                for text in asked]
    rounds: list[dict] = []
    labels: set[tuple[str, ...]] = set()
    for number in range(-1, 1 if FLAGS.smoke else FLAGS.rounds):
        taken = {"bare_one": bare.ask(texts=asked, clients=1),
                 "bare_many": bare.ask(texts=asked, clients=FLAGS.num_threads)}
        for name, place in places.items():
            for how, clients in (("one", 1), ("many", FLAGS.clients)):
                found = through_http(place, requests, clients)
                labels.add(tuple(found["labels"]))
                taken[f"{name}_{how}"] = found
        if number >= 0:  # round -1 warms up
            rounds.append(taken)
    if len(labels) > 1:
        raise ValueError("Every client must get the same labels. Received: "
                         f"{len(labels)} different sets")
    return rounds


if __name__ == "__main__":
    shared.define_measuring()
    common.define_report()
    flags.DEFINE_string("bundle", None, "A bundle; or a ladder, whose fastest rung is "
                        "taken.", required=True)
    flags.DEFINE_string("text_file", None, "Texts to ask: .txt, .tsv, .csv or .jsonl. "
                        "Left out: the embedded support intents.")
    for name in ("mlserver", "kserve"):
        flags.DEFINE_string(f"{name}_python", None, f"A Python that has {name}, and "
                            "what tfopt needs to answer. Left out: not measured.")
    flags.DEFINE_integer("texts", 2000, "Texts of a round.", lower_bound=2)
    flags.DEFINE_integer("clients", 32, "Connections that ask at once.", lower_bound=2)
    flags.DEFINE_integer("rounds", 5, "Turns of each.", lower_bound=1)
    shared.run(main)
