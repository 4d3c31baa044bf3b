"""Clients of a server on this machine, in one thread: how long each answer takes.

The two cores are the server's; a client library would take more of them than the server
does. So requests are bytes made beforehand, and one thread waits for all connections.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import select
import socket
import time
from collections.abc import Callable, Sequence

_RECEIVED = 1 << 16
_PATIENCE_S = 60.0


@dataclasses.dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        number: of the request.
        status: of HTTP; 0 where the connection ended without one.
        sent_s: when it was to be sent, by the clock of `time.perf_counter`.
        seconds: from then to the last byte of its answer.
        body: of the answer.
    """

    number: int
    status: int
    sent_s: float
    seconds: float
    body: bytes


def post(path: str, fields: dict) -> bytes:
    """The bytes of a request."""
    body = json.dumps(fields).encode()
    return (f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: "
            f"application/json\r\ncontent-length: {len(body)}\r\n\r\n").encode() + body


def infer(model: str, text: str, outputs: Sequence[str] = ("label", "variant"),
          **parameters) -> bytes:
    """The bytes of a request of V2, for some outputs of one text."""
    return post(f"/v2/models/{model}/infer", {
        "inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}],
        "outputs": [{"name": name} for name in outputs], "parameters": parameters})


class _Connection:
    """One connection, with at most one request on its way."""

    def __init__(self, place: tuple[str, int]):
        self.socket = socket.create_connection(place)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._begin(-1, 0.0)

    def _begin(self, number: int, due: float) -> None:
        self._number, self._due = number, due
        self._received, self._wanted = b"", 0

    def send(self, number: int, request: bytes, due: float) -> None:
        """Sends a request that was to be sent at a time."""
        self._begin(number, due)
        with contextlib.suppress(ConnectionError):  # `receive` tells
            self.socket.sendall(request)

    def has_ended(self) -> bool:
        """Whether the server has closed it, as those that nobody uses for long."""
        return bool(select.select([self.socket], [], [], 0)[0])

    def receive(self) -> Reply | None:
        """Reads what is there; the reply, once it is whole."""
        try:
            part = self.socket.recv(_RECEIVED)
        except ConnectionError:
            part = b""
        if not part:
            return self._reply(0, b"")
        self._received += part
        if not self._wanted:
            head, ended, _ = self._received.partition(b"\r\n\r\n")
            if not ended:
                return None
            length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
            self._wanted = len(head) + 4 + int(length)
        if len(self._received) < self._wanted:
            return None
        return self._reply(int(self._received[9:12]),
                           self._received.partition(b"\r\n\r\n")[2])

    def _reply(self, status: int, body: bytes) -> Reply:
        return Reply(self._number, status, self._due, time.perf_counter() - self._due,
                     body)


def closed_loop(place: tuple[str, int], requests: Sequence[bytes], clients: int,
                goes_on: Callable[[], bool] = lambda: True) -> list[Reply]:
    """Each client sends its next request when it has the answer to its last.

    Args:
        place: host and port.
        requests: shared by all clients, in this order.
        clients: connections.
        goes_on: whether a further request is to be sent.

    Returns:
        A reply to each request that was sent; after one of status 0 its client ends.
    """
    waiting = iter(enumerate(requests))
    replies: list[Reply] = []
    busy: dict[socket.socket, _Connection] = {}
    idle = [_Connection(place) for _ in range(clients)]
    while True:
        while idle and goes_on() and (following := next(waiting, None)):
            connection = idle.pop()
            busy[connection.socket] = connection
            connection.send(*following, time.perf_counter())
        if not busy:
            break
        for ready in select.select([*busy], [], [], _PATIENCE_S)[0]:
            reply = busy[ready].receive()
            if reply is not None:
                replies.append(reply)
                connection = busy.pop(ready)
                if reply.status:
                    idle.append(connection)
                else:
                    connection.socket.close()
    for connection in idle:
        connection.socket.close()
    return replies


def wall_s(replies: Sequence[Reply]) -> float:
    """Seconds from the first request to the last answer."""
    return (max(reply.sent_s + reply.seconds for reply in replies)
            - min(reply.sent_s for reply in replies))


def open_loop(place: tuple[str, int], requests: Sequence[bytes], at_s: Sequence[float]
              ) -> list[Reply]:
    """Requests are sent at their times, whether others have an answer or not.

    Args:
        place: host and port.
        requests: N.
        at_s: N ascending seconds from the beginning.

    Returns:
        N replies in their order, their seconds counted from when each was due.
    """
    replies: list[Reply] = []
    busy: dict[socket.socket, _Connection] = {}
    idle: list[_Connection] = []
    begun, following = time.perf_counter(), 0
    while len(replies) < len(requests):
        now = time.perf_counter() - begun
        while following < len(requests) and at_s[following] <= now:
            while idle and idle[-1].has_ended():
                idle.pop().socket.close()
            connection = idle.pop() if idle else _Connection(place)
            busy[connection.socket] = connection
            connection.send(following, requests[following], begun + at_s[following])
            following += 1
        pause = (at_s[following] - (time.perf_counter() - begun)
                 if following < len(requests) else _PATIENCE_S)
        for ready in select.select([*busy], [], [], max(0.0, pause))[0]:
            reply = busy[ready].receive()
            if reply is not None:
                replies.append(reply)
                idle.append(busy.pop(ready))
    for connection in idle:
        connection.socket.close()
    return sorted(replies, key=lambda reply: reply.number)
