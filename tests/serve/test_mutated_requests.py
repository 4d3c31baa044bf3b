"""Mutated requests: an answer or a refusal of one sentence to each; nothing else.

The long ones, 10,000 requests to the application and 3,000 to a process as bytes of
HTTP: `pytest -m slow tests/serve/test_mutated_requests.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket

import pytest
from fuzz import mutations
from server_process import ServerProcess

from tfopt.serve.app import App
from tfopt.serve.settings import Settings

STATUSES = {200, 400, 404, 405, 408, 413, 503}
TEXT = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a film", "☕"]}
PAIR = {"name": "pair", "shape": [2, 1], "datatype": "BYTES", "data": [["a"], ["b"]]}
IDS = [{"name": name, "shape": [2, 4], "datatype": "INT32", "data": values}
       for name, values in (("input_ids", [2, 5, 6, 3, 2, 7, 3, 0]),
                            ("attention_mask", [1, 1, 1, 1, 1, 1, 1, 0]),
                            ("token_type_ids", [[0, 0, 1, 1], [0, 0, 0, 0]]))]
INFER = "/v2/models/tiny/infer"
GOOD = [
    ("POST", "/predict", {"texts": ["a film", "☕"], "pairs": ["b", "c"]}),
    ("POST", "/predict", {"texts": ["a"], "model": "tiny", "variant": "half",
                          "deadline_ms": 5000}),
    ("POST", INFER, {"inputs": [TEXT, PAIR], "id": "7",
                     "outputs": [{"name": "label"}, {"name": "logits"}]}),
    ("POST", "/v2/models/tiny/versions/1/infer", {
        "inputs": [TEXT], "parameters": {"deadline_ms": 5000.5, "variant": "whole"}}),
    ("POST", INFER, {"inputs": IDS}),
    ("POST", "/v2/repository/index", {"ready": True}),
    ("POST", "/v2/repository/models/none/load", {"parameters": {}}),
    ("POST", "/v2/repository/models/../unload", {}), ("GET", "/v2/models/tiny", {}),
    ("GET", "/metrics", {}), ("GET", "/v2/models/tiny/ready", {})]


def mutated(source):
    """(method, path, body) of a request that is wrong, in most cases."""
    method, path, fields = source.choice(GOOD)
    body = mutations.of_json(source, json.dumps(fields).encode())
    if source.random() < 0.2:
        path = mutations.of_bytes(source, path.encode()).decode(errors="replace")
    if source.random() < 0.05:
        method = source.choice(["GET", "PUT", "HEAD", "OPTIONS", "post", "", "☕"])
    return method, path, body


async def answered(app, method, path, body, parts):
    """The application's answer to a request that comes in parts."""
    step = max(1, -(-len(body) // parts))
    messages = [{"type": "http.request", "body": body[start:start + step],
                 "more_body": start + step < len(body)}
                for start in range(0, max(1, len(body)), step)]
    sent = []

    async def receive():
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    await app({"type": "http", "method": method, "path": path, "headers": [],
               "query_string": b"", "root_path": "", "http_version": "1.1",
               "scheme": "http", "server": ("a", 80)}, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def faults(app, seeds):
    """What came of requests that is neither an answer nor a refusal."""
    found, statuses = [], set()

    async def all_of_them():
        for seed in seeds:
            source = random.Random(seed)
            request = mutated(source)
            try:
                status, body = await answered(app, *request, source.randint(1, 3))
            except Exception as error:
                found.append((seed, repr(error)))
                continue
            statuses.add(status)
            told = status == 200 or request[0] == "HEAD" or (
                "Received: " in json.loads(body).get("error", ""))
            if status not in STATUSES or not told:
                found.append((seed, status, body[:300]))

    asyncio.run(all_of_them())
    return found, statuses


@pytest.fixture(scope="module")
def app(tiny_ladder):
    app = App(Settings(directory=str(tiny_ladder), threads=2, deadline_ms=60_000.0,
                       max_body_bytes=20_000, queue=64))
    app.service.start()
    yield app
    app.service.close()


def test_mutated_requests_are_answered_or_refused(app):
    found, statuses = faults(app, range(400))
    assert not found
    assert {200, 400, 404, 413} <= statuses


@pytest.mark.slow
def test_many_mutated_requests_are_answered_or_refused(app):
    found, _ = faults(app, range(1000, 11_000))
    assert not found


def status_of(address, request):
    """The status that a server answers to bytes; 0 where it closes without."""
    received = b""
    with socket.create_connection(address, timeout=30) as connection:
        with contextlib.suppress(ConnectionError):  # the server has seen enough
            connection.sendall(request)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while len(received) < 12 and (part := connection.recv(65536)):
                received += part
    return int(received[9:12]) if received else 0


def of_http(source):
    method, path, body = mutated(source)
    head = (f"{method} {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n").encode()
    return mutations.of_bytes(source, head + body) if source.random() < 0.7 else (
        head + body)


@pytest.mark.parametrize("seeds", [
    range(60), pytest.param(range(1000, 4000), marks=pytest.mark.slow)])
def test_mutated_bytes_of_http_do_not_end_the_process(tiny_ladder, seeds):
    with ServerProcess(tiny_ladder, "--body_seconds=0.2") as server:
        statuses = {}
        for seed in seeds:
            request = of_http(random.Random(seed))
            statuses.setdefault(status_of(server.place, request), seed)
        assert set(statuses) <= {0, *STATUSES}, statuses
        assert len(statuses) > 2
        assert server.ask(texts=["a"])["model"] == "tiny"
    assert "Traceback" not in server.said
