r"""What a server loses while models come and go, and when it ends: nothing, and memory.

    python experiments/benchmarks/serve_reload.py --bundle=DIR --report=FILE.json

Eight clients ask one model, which is loaded anew again and again while another is
loaded and unloaded: every answer must be there, and be the same. Then memory after
5,000 and after 100,000 requests; then SIGTERM while 32 clients ask: what the server has
answered, by its log, clients must have got. Cost: five minutes for MiniLM's int8.
Expected: 0 failed or wrong, 0 lost; memory within 5 %; 1.5 s from start to ready.
"""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

import common
import http_clients
from absl import flags, logging
from server_process import ServerProcess

from tfopt import data
from tfopt.cli import script as shared
from tfopt.serve.ladder import Ladder

FLAGS = flags.FLAGS
_ASKED, _OTHER = "asked", "other"
_CLIENTS, _CLIENTS_AT_END = 8, 32


def requests(count: int, variant: str) -> list[bytes]:
    """Requests of one variant, for the texts of the file over and over."""
    texts = data.read(data.DEMO_TRAIN_FILE).texts
    return [http_clients.infer(_ASKED, texts[i % len(texts)], variant=variant,
                               deadline_ms=60_000) for i in range(count)]


def outputs(reply: http_clients.Reply) -> list:
    """What an answer says, without its time and version."""
    return json.loads(reply.body)["outputs"] if reply.status == 200 else []


def reloads(server: ServerProcess, variant: str, count: int) -> dict:
    """Loads and unloads while clients send: how many answers failed or were wrong."""
    ended = threading.Event()
    failures: list[str] = []

    def load_and_unload() -> None:
        try:
            for number in range(count):
                name, what = ((_ASKED, "load"), (_OTHER, "load"), (_OTHER, "unload")
                              )[number % 3]
                server.ask(f"/v2/repository/models/{name}/{what}", parameters={})
        except OSError as error:
            failures.append(str(error))
        ended.set()

    once = requests(200, variant)
    expected = {reply.number: outputs(reply) for reply in
                http_clients.closed_loop(server.place, once, 1)}
    thread = threading.Thread(target=load_and_unload)
    begun = time.perf_counter()
    thread.start()
    sent = failed = wrong = 0
    while not ended.is_set():
        replies = http_clients.closed_loop(server.place, once, _CLIENTS)
        sent += len(replies)
        failed += sum(reply.status != 200 for reply in replies)
        wrong += sum(reply.status == 200 and outputs(reply) != expected[reply.number]
                     for reply in replies)
    thread.join()
    return {"loads_and_unloads": count, "seconds": time.perf_counter() - begun,
            "clients": _CLIENTS, "requests": sent, "failed": failed, "wrong": wrong,
            "failed_loads": len(failures)}


def memory(server: ServerProcess, variant: str, most: int) -> dict:
    """Memory after a twentieth of the requests, and after all."""
    found, sent = {}, 0
    for count in (most // 20, most):
        http_clients.closed_loop(server.place, requests(count - sent, variant),
                                 _CLIENTS)
        sent = count
        found[f"after_{count}"] = server.memory_bytes()
        logging.info("After %d requests: %s", count, found[f"after_{count}"])
    first, last = (one["resident"] for one in found.values())
    return found | {"growth": last / first - 1}


def drained(place: Path, variant: str, log: Path) -> dict:
    """SIGTERM while clients ask: answers by the server's log, and got by clients."""
    waiting = requests(100_000, variant)
    with ServerProcess(place, f"--threads={FLAGS.num_threads}", f"--request_log={log}"
                       ) as server:
        def end() -> None:
            time.sleep(1.0)
            server.process.send_signal(signal.SIGTERM)

        threading.Thread(target=end).start()
        replies = http_clients.closed_loop(
            server.place, waiting, _CLIENTS_AT_END)
        status = server.process.wait(60)
    got = sum(reply.status == 200 for reply in replies)
    answered = len(log.read_text(encoding="utf-8").splitlines())
    return {"exit_status": status, "answered": answered, "got": got,
            "lost": answered - got}


def main() -> None:
    """Measures one after the other, and reports."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        for name in (_ASKED, _OTHER):
            shutil.copytree(FLAGS.bundle, place / "models" / name)
        ladder = Ladder.read(place / "models" / _ASKED)
        variant = ladder.best.name
        threads = f"--threads={FLAGS.num_threads}"
        with ServerProcess(ladder.place, threads) as server:
            found: dict = {"rungs": len(ladder.rungs),
                           "start_to_ready_s": server.started_s,
                           "at_the_start": server.memory_bytes()}
            found["memory"] = memory(server, variant,
                                     200 if FLAGS.smoke else FLAGS.requests)
        with ServerProcess(place / "models", threads) as server:
            found["reloads"] = reloads(server, variant,
                                       9 if FLAGS.smoke else FLAGS.reloads)
        found["sigterm"] = drained(place / "models", variant, place / "log.jsonl")
    common.write_report(found, num_threads=FLAGS.num_threads)


if __name__ == "__main__":
    shared.define_measuring()
    common.define_report()
    flags.DEFINE_string("bundle", None, "A bundle or a ladder.", required=True)
    flags.DEFINE_integer("reloads", 200, "Loads and unloads.", lower_bound=3)
    flags.DEFINE_integer("requests", 100_000, "After which memory is looked at.",
                         lower_bound=20)
    shared.run(main)
