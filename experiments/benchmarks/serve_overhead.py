r"""What HTTP costs: `tfopt serve` against the same bundle in a process, in turn.

    python experiments/benchmarks/serve_overhead.py --bundle=DIR --report=FILE.json

With one client: the p50 of an answer through HTTP, less that of `Bundle.predict`. With
32 clients: texts a second, over those of as many threads as the server has, which ask
the bundle without a server; and the p99. Answers are checked to be the same. The
clients take a part of the two cores, too. Cost: three minutes. Expected: 0.35 ms or
less; 0.85 or more; p99 within 5 times the p50.
"""

from __future__ import annotations

import json
import sys

import common
import http_clients
import numpy as np
from absl import flags
from server_process import ServerProcess

from tfopt import data
from tfopt.cli import script as shared
from tfopt.measure.process import TimedProcess
from tfopt.serve.ladder import Ladder

FLAGS = flags.FLAGS
_DEADLINE_MS = 60_000.0  # nothing is to be refused


def texts() -> list[str]:
    """The texts of a round, from the file over and over."""
    found = (data.read_texts(FLAGS.text_file).texts if FLAGS.text_file
             else data.read(data.DEMO_TRAIN_FILE).texts)
    count = 100 if FLAGS.smoke else FLAGS.texts
    return [found[i % len(found)] for i in range(count)]


def through_http(server: ServerProcess, requests: list[bytes], clients: int) -> dict:
    """Seconds of each answer, texts a second, and the labels.

    Raises:
        ValueError: a request got no answer.
    """
    replies = http_clients.closed_loop(server.place, requests, clients)
    statuses = {reply.status for reply in replies}
    if statuses != {200} or len(replies) < len(requests):
        raise ValueError("Each request must get an answer. Received: "
                         f"{len(replies)} of {len(requests)}, of status {statuses}")
    seconds = [reply.seconds for reply in replies]
    wall_s = max(reply.sent_s + reply.seconds for reply in replies) - min(
        reply.sent_s for reply in replies)
    labels = {reply.number: json.loads(reply.body)["outputs"][0]["data"][0]
              for reply in replies}
    return {"seconds": seconds, "wall_s": wall_s,
            "labels": [labels[number] for number in sorted(labels)]}


def figures(rounds: list[dict], number: int) -> dict:
    """What the rounds say, each ratio and difference taken within a round.

    Args:
        rounds: name of a program -> what it took, of each round.
        number: texts of a round.
    """
    def p50_ms(name: str) -> np.ndarray:
        return np.array([1e3 * np.median(taken[name]["seconds"]) for taken in rounds])

    def per_s(name: str) -> np.ndarray:
        return np.array([number / taken[name]["wall_s"] for taken in rounds])

    many_ms = 1e3 * np.array([taken["http_many"]["seconds"] for taken in rounds])
    p50, p99 = np.percentile(many_ms, [50, 99])
    return {
        "one_client": {
            "in_process_p50_ms": float(np.median(p50_ms("bare_one"))),
            "http_p50_ms": float(np.median(p50_ms("http_one"))),
            "overhead_p50_ms": float(np.median(p50_ms("http_one")
                                               - p50_ms("bare_one")))},
        "many_clients": {
            "bare_texts_per_s": float(np.median(per_s("bare_many"))),
            "http_texts_per_s": float(np.median(per_s("http_many"))),
            "http_over_bare": float(np.median(per_s("http_many")
                                              / per_s("bare_many"))),
            "p50_ms": float(p50), "p99_ms": float(p99), "p99_over_p50": float(p99 / p50)
        }}


def main() -> None:
    """Asks in turn, and reports."""
    asked = texts()
    rung = Ladder.read(FLAGS.bundle).fastest  # of a bundle the bundle itself
    place = Ladder.read(FLAGS.bundle).path(rung)
    worker = [sys.executable, common.HERE / "threads_worker.py", place,
              str(FLAGS.num_threads), "1"]
    rounds: list[dict] = []
    with ServerProcess(place, f"--threads={FLAGS.num_threads}",
                       f"--deadline_ms={_DEADLINE_MS}") as server:
        model = server.ask("/v2/repository/index")[0]["name"]
        requests = [http_clients.infer(model, text) for text in asked]
        bare = TimedProcess(worker)
        try:
            for number in range(-1, 1 if FLAGS.smoke else FLAGS.rounds):
                taken = {
                    "bare_one": bare.ask(texts=asked, clients=1),
                    "http_one": through_http(server, requests, 1),
                    "bare_many": bare.ask(texts=asked, clients=FLAGS.num_threads),
                    "http_many": through_http(server, requests, FLAGS.clients)}
                if taken["http_one"]["labels"] != taken["http_many"]["labels"]:
                    raise ValueError("Many clients must get what one gets. Received: "
                                     "other labels")
                if number >= 0:  # round -1 warms up
                    rounds.append(taken)
        finally:
            bare.close()
        memory = server.memory_bytes()
    common.write_report(
        figures(rounds, len(asked)) | {"clients": FLAGS.clients, "texts": len(asked),
                                       "memory_bytes": memory},
        num_threads=FLAGS.num_threads)


if __name__ == "__main__":
    shared.define_measuring()
    common.define_report()
    flags.DEFINE_string("bundle", None, "A bundle; or a ladder, whose fastest rung is "
                        "taken.", required=True)
    flags.DEFINE_string("text_file", None, "Texts to ask: .txt, .tsv, .csv or .jsonl. "
                        "Left out: the embedded support intents.")
    flags.DEFINE_integer("texts", 2000, "Texts of a round.", lower_bound=2)
    flags.DEFINE_integer("clients", 32, "Connections that ask at once.", lower_bound=2)
    flags.DEFINE_integer("rounds", 5, "Turns of each.", lower_bound=1)
    shared.run(main)
