r"""What several threads get from one bundle: one interpreter behind a lock, or copies.

    python experiments/benchmarks/threads.py --bundle=DIR --report=FILE.json

LiteRT's interpreter serves one thread at a time. Held against each other, in a process
each, in turn: one interpreter of one thread and one of several, for which requests
wait, and a copy of one thread for each core. Measured are a single client's latency,
the throughput of eight clients, and memory. Every answer of eight clients must be that
of one. Cost: three minutes for MiniLM. Expected: on two cores copies answer 1.4 times
as many texts as one interpreter, and 1.1 times where other programs use the cores too;
a single client waits no longer; a copy of MiniLM in int8 takes 21 MB.
"""

from __future__ import annotations

import sys

import common
import numpy as np
from absl import flags

from tfopt import data
from tfopt.cli import script as shared

FLAGS = flags.FLAGS
_LOCK, _LOCK_THREADS, _COPIES = "one_interpreter", "one_with_threads", "copies"


def contestants(cores: int) -> dict[str, tuple[int, int]]:
    """Name -> (copies, threads of a request)."""
    return {_LOCK: (1, 1), _LOCK_THREADS: (1, cores), _COPIES: (cores, 1)}


def texts() -> list[str]:
    """The texts of a round, from the file over and over."""
    found = (data.read_texts(FLAGS.text_file).texts if FLAGS.text_file
             else data.read(data.DEMO_TRAIN_FILE).texts)
    count = 40 if FLAGS.smoke else FLAGS.texts
    return [found[i % len(found)] for i in range(count)]


def figures(taken: dict[str, dict[int, list[dict]]], number: int) -> dict[str, dict]:
    """Latencies, throughputs and memory by name.

    Args:
        taken: name -> number of clients -> the answer of each round.
        number: texts of a round.

    Raises:
        ValueError: eight clients got other answers than one.
    """
    result = {}
    for name, by_clients in taken.items():
        alone, together = by_clients[1], by_clients[FLAGS.clients]
        hashes = {answer["answers"] for answer in [*alone, *together]}
        if len(hashes) > 1:
            raise ValueError("Every client must get the answers that one gets alone. "
                             f"Received: {len(hashes)} different sets by {name}")
        walls = np.array([[answer["wall_s"] for answer in together],
                          [answer["wall_s"] for answer in taken[_LOCK][FLAGS.clients]]])
        result[name] = {
            "one_client": common.spread([answer["seconds"] for answer in alone]),
            "texts_per_s": number / float(np.median(walls[0])),
            "throughput_over_one_interpreter": float(np.median(walls[1] / walls[0])),
            "memory_bytes": float(max(answer["bytes"] for answer in together)),
        }
    return result


def main() -> None:
    """Asks in turn, and reports."""
    asked = texts()
    rounds = 1 if FLAGS.smoke else FLAGS.rounds
    names = contestants(FLAGS.num_threads)
    taken: dict = {name: {1: [], FLAGS.clients: []} for name in names}
    worker = common.HERE / "threads_worker.py"
    with common.Turns({name: [sys.executable, worker, FLAGS.bundle, *map(str, sizes)]
                       for name, sizes in names.items()}, FLAGS.num_threads) as turns:
        for number in range(-1, rounds):  # round -1 warms up
            for clients in (1, FLAGS.clients):
                request = {"texts": asked, "clients": clients}
                for name, answer in turns.round(
                        number, lambda worker, request=request: worker.ask(**request)
                        ).items():
                    if number >= 0:
                        taken[name][clients].append(answer)
        idle_cpu = turns.idle_cpu()
    found = figures(taken, len(asked))
    copies = names[_COPIES][0] - 1
    common.write_report(
        found | {"equal_answers": True, "texts": len(asked), "clients": FLAGS.clients,
                 "bytes_of_a_copy": (found[_COPIES]["memory_bytes"]
                                     - found[_LOCK]["memory_bytes"]) / max(1, copies),
                 "idle_cpu": idle_cpu},
        num_threads=FLAGS.num_threads)


if __name__ == "__main__":
    shared.define_measuring()
    common.define_report()
    flags.DEFINE_string("bundle", None, "A directory that `Bundle.open` takes.",
                        required=True)
    flags.DEFINE_string("text_file", None, "Texts to ask: .txt, .tsv, .csv or .jsonl. "
                        "Left out: the embedded support intents.")
    flags.DEFINE_integer("texts", 2000, "Texts of a round.", lower_bound=2)
    flags.DEFINE_integer("clients", 8, "Threads that ask at once.", lower_bound=2)
    flags.DEFINE_integer("rounds", 5, "Turns of each.", lower_bound=1)
    shared.run(main)
