r"""A ladder under load: answers in time, and right, against each of its rungs alone.

    python experiments/benchmarks/serve_load.py --ladder=DIR --report=FILE.json \
        --picture=FILE.png

Requests arrive at random (Poisson) at 0.5, 0.9, 1.4 and 3 times what the best rung can
answer; their deadline is 20 times its p50. Each contender gets the same arrivals: the
ladder, which chooses a rung for each text, and every rung, which the requests name.
Effective accuracy is the share of all requests whose answer is right and in time
(Zhang et al., HotCloud 2020); late are, of the requests that were taken in, those that
got no answer by their deadline. Cost: three minutes a contender and rate, half an hour
or more. Expected: at most 1 % late; the ladder above each rung at 0.9, 1.4 and 3.
"""

from __future__ import annotations

import collections
import json

import common
import http_clients
import numpy as np
from absl import flags, logging
from http_clients import Reply
from server_process import ServerProcess

from tfopt import data, drawing
from tfopt.cli import script as shared
from tfopt.files import check_place, write_whole
from tfopt.serve.ladder import Ladder

FLAGS = flags.FLAGS
_LADDER = "ladder"
_PASSED = b"which have passed"  # what a request is told that was taken in, and was late
_CAPACITY_CLIENTS = 32


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Times at which requests arrive.

    Args:
        rate: requests a second.
        seconds: until the last.
        seed: of chance.
    """
    source = np.random.default_rng(seed)
    gaps = source.exponential(1 / rate, int(2 * rate * seconds) + 50)
    times = np.cumsum(gaps)
    return times[times < seconds].tolist()


def judged(replies: list[Reply], labels: list[str], deadline_s: float) -> dict:
    """What came of the requests.

    Args:
        replies: to each.
        labels: right ones, of each.
        deadline_s: seconds.
    """
    in_time = [reply for reply in replies
               if reply.status == 200 and reply.seconds <= deadline_s]
    late = sum(reply.status == 200 and reply.seconds > deadline_s
               or _PASSED in reply.body for reply in replies)
    refused = sum(reply.status == 503 and _PASSED not in reply.body
                  for reply in replies)
    failed = sum(reply.status not in (200, 503) for reply in replies)
    answers = [[output["data"][0] for output in json.loads(reply.body)["outputs"]]
               for reply in in_time]
    right = sum(label == labels[reply.number]
                for reply, (label, _) in zip(in_time, answers, strict=True))
    seconds = [reply.seconds for reply in replies if reply.status == 200] or [0.0]
    return {
        "requests": len(replies), "refused": refused / len(replies), "failed": failed,
        "late": late / max(1, len(replies) - refused),
        "effective_accuracy": right / len(replies),
        "accuracy_in_time": right / max(1, len(in_time)),
        "p50_ms": 1e3 * float(np.median(seconds)),
        "p99_ms": 1e3 * float(np.percentile(seconds, 99)),
        "variants": {name: count / len(in_time) for name, count in
                     sorted(collections.Counter(name for _, name in answers).items())}}


def capacity(server: ServerProcess, model: str, rung: str, texts: list[str]
             ) -> tuple[float, float]:
    """(p50 in ms of one client, texts a second of many) of a rung."""
    found = []
    for clients in (1, _CAPACITY_CLIENTS):
        requests = [http_clients.infer(model, text, variant=rung, deadline_ms=60_000)
                    for text in texts]
        replies = http_clients.closed_loop(server.place, requests, clients)
        found.append((1e3 * float(np.median([reply.seconds for reply in replies])),
                      len(replies) / http_clients.wall_s(replies)))
    return found[0][0], found[1][1]


def draw(found: dict[str, dict[str, dict]]) -> bytes | None:
    """Effective accuracy against load, a line a contender."""
    return drawing.lines(
        {contender: [(float(rate), by_contender[contender]["effective_accuracy"])
                     for rate, by_contender in found.items()]
         for contender in next(iter(found.values()))},
        x="load, in capacities of the best rung",
        y="right and in time, of all requests", strong=_LADDER)


def main() -> None:
    """Sends the requests of each rate to each contender, and reports."""
    if FLAGS.picture:
        check_place(FLAGS.picture)
    corpus = data.read(FLAGS.eval_file or data.DEMO_DEV_FILE)
    ladder = Ladder.read(FLAGS.ladder)
    seconds = 1.0 if FLAGS.smoke else FLAGS.seconds
    with ServerProcess(FLAGS.ladder, f"--threads={FLAGS.num_threads}") as server:
        model = server.ask("/v2/repository/index")[0]["name"]
        texts = corpus.texts[:40] if FLAGS.smoke else corpus.texts
        p50_ms, per_s = capacity(server, model, ladder.best.name, texts)
        deadline_ms = FLAGS.deadlines * p50_ms
        found: dict[str, dict[str, dict]] = {}
        for place, load in enumerate(map(float, FLAGS.loads)):
            at_s = poisson(load * per_s, seconds, place)
            chosen = np.random.default_rng(place).integers(len(corpus), size=len(at_s))
            labels = [corpus.labels[row] for row in chosen]
            found[f"{load:g}"] = {}
            for contender in (_LADDER, *(rung.name for rung in ladder.rungs)):
                named = {} if contender == _LADDER else {"variant": contender}
                requests = [http_clients.infer(
                    model, corpus.texts[row], **named, deadline_ms=deadline_ms)
                    for row in chosen]
                replies = http_clients.open_loop(server.place, requests, at_s)
                mine = judged(replies, labels, deadline_ms / 1e3)
                found[f"{load:g}"][contender] = mine
                logging.info("Load %g, %s: %s", load, contender, mine)
    if FLAGS.picture and (picture := draw(found)):
        write_whole(FLAGS.picture, picture)
    common.write_report(
        {"best_rung_p50_ms": p50_ms, "best_rung_per_s": per_s,
         "deadline_ms": deadline_ms, "seconds": seconds, "loads": found},
        num_threads=FLAGS.num_threads)


if __name__ == "__main__":
    shared.define_measuring()
    common.define_report()
    flags.DEFINE_string("ladder", None, "A ladder's directory.", required=True)
    flags.DEFINE_string("eval_file", None, "Labelled texts. Left out: the dev file of "
                        "the embedded support intents.")
    flags.DEFINE_list("loads", ["0.5", "0.9", "1.4", "3"], "Rates, in capacities of "
                      "the best rung.")
    flags.DEFINE_float("seconds", 180.0, "Of each contender at each rate.",
                       lower_bound=0.1)
    flags.DEFINE_float("deadlines", 20.0, "Deadline, in p50 of the best rung.",
                       lower_bound=1.0)
    flags.DEFINE_string("picture", None, "PNG of the figures.")
    shared.run(main)
