"""Which processes train together: TF_CONFIG or a TPU's name -> addresses that answer.

TensorFlow waits without end, and deaf to signals, for a worker that does not come. So
what can be wrong is looked for before TensorFlow is asked: the words of TF_CONFIG, and,
within a time, whether something listens at every address.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from tfopt.files import parse_json
from tfopt.types import shown

_VARIABLE = "TF_CONFIG"
# Each in what `make` calls the strategy.
WORKERS, SERVERS = ("chief", "worker"), "ps"
_ADDRESS = re.compile(r"(\[[\w:.%]+\]|[\w.-]+):(\d{1,5})", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """What TF_CONFIG says.

    Attributes:
        jobs: name of a job -> "host:port" of its tasks.
        job: this process's.
        index: its number in it.
    """

    jobs: Mapping[str, tuple[str, ...]]
    job: str
    index: int

    @property
    def address(self) -> str:
        """This process's "host:port"."""
        return self.jobs[self.job][self.index]

    @property
    def others(self) -> list[str]:
        """Everybody else's."""
        return [address for addresses in self.jobs.values() for address in addresses
                if address != self.address]

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one of the workers that writes."""
        return self.job == "chief" or (
            self.job == "worker" and self.index == 0 and "chief" not in self.jobs)

    @property
    def workers(self) -> int:
        """How many processes train."""
        return sum(len(self.jobs.get(job, ())) for job in WORKERS)


def read(environment: Mapping[str, str] = os.environ) -> Cluster | None:
    """What TF_CONFIG says; None where it is not set, or empty.

    Raises:
        ValueError: it is not JSON, has no cluster, or lacks this task.
    """
    text = environment.get(_VARIABLE, "").strip()
    if not text:
        return None

    def refuse(rule, received=text):
        return ValueError(f"{_VARIABLE} must {rule}. Received: {received}")

    said = parse_json(text, shown(text), f"{_VARIABLE} must be a JSON object")
    if said == {}:
        return None
    jobs = said.get("cluster")
    if not isinstance(jobs, dict) or not jobs or not all(
            isinstance(addresses, list) and addresses and all(
                isinstance(one, str) and _split(one) for one in addresses)
            for addresses in jobs.values()):
        raise refuse('have "cluster": job -> a list of "host:port"')
    everybody = [one for addresses in jobs.values() for one in addresses]
    if len(set(everybody)) < len(everybody):
        raise refuse("name each address once")
    for name in ("rpc_layer", "environment"):  # which TensorFlow reads
        if not isinstance(said.get(name, ""), str):
            raise refuse(f'have a text as "{name}", or leave it out')
    task = said.get("task")
    job = task.get("type") if isinstance(task, dict) else None
    if not isinstance(job, str) or job not in jobs:
        raise refuse('have "task": {"type", "index"} of a job of its cluster, one of '
                     f"{tuple(jobs)}", f"task={task}")
    index = task.get("index")
    if isinstance(index, str) and re.fullmatch("[0-9]{1,9}", index):
        index = int(index)
    if type(index) is not int or not 0 <= index < len(jobs[job]):
        raise refuse(f"have a task of which there are {len(jobs[job])}, counted from 0",
                     f"task={task}")
    return Cluster({job: tuple(addresses) for job, addresses in jobs.items()}, job,
                   index)


def meet(cluster: Cluster, wait_s: float) -> None:
    """Waits until something listens at every other address, and listens meanwhile.

    Raises:
        ValueError: somebody did not come in time, or this process's own port is taken.
    """
    deadline = time.monotonic() + wait_s
    with _listening(cluster.address):
        missing = [one for one in cluster.others if not _answers(one, deadline)]
    if missing:
        raise ValueError(
            f"Every task of {_VARIABLE} must be started within {wait_s:g} s of the "
            f"first. Received: nothing at {', '.join(missing)}")


def answer_of(ask: Callable[[], Any], wait_s: float, rule: str) -> Any:
    """What a function returns, if it does within a time.

    Args:
        ask: may wait, but must let other threads run.
        wait_s: seconds.
        rule: the error's sentence, up to what was received.

    Raises:
        ValueError: it did not, or failed.
    """
    answers: queue.Queue = queue.Queue()

    def run():
        try:
            answers.put((ask(), None))
        except Exception as error:  # whatever it was, it is reported below
            answers.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        answer, error = answers.get(timeout=wait_s)
    except queue.Empty:
        raise ValueError(f"{rule} Received: no answer in {wait_s:g} s") from None
    if error is not None:
        raise ValueError(f"{rule} Received: {' '.join(str(error).split())[:200]}"
                         ) from error
    return answer


def check_answers(address: str, wait_s: float, rule: str) -> None:
    """Checks that something listens at an address, "[grpc://]host:port".

    Raises:
        ValueError: nothing does within the time.
    """
    if not _answers(address.removeprefix("grpc://"), time.monotonic() + wait_s):
        raise ValueError(f"{rule} Received: nothing at {address} in {wait_s:g} s")


def _split(address: str) -> tuple[str, int] | None:
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found[2]) < 1 << 16:
        return None
    return found[1].strip("[]"), int(found[2])


def _answers(address: str, deadline: float) -> bool:
    place = _split(address)
    while place is not None:
        # A name may be none that can be looked up: UnicodeError.
        with contextlib.suppress(OSError, UnicodeError), \
                socket.create_connection(place, timeout=1):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return False


@contextlib.contextmanager
def _listening(address: str):
    """Holds this process's port, so that the others see that it is there."""
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("", int(port)))
        except OSError as error:
            raise ValueError(
                f"The port of this task of {_VARIABLE} must be free. Received: "
                f"{address}, {error.strerror}") from error
        server.listen(128)
        yield
