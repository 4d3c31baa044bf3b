"""HTTP itself: limits of bodies, paths and methods, pages, what the paths are."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from serving import serving

from tfopt.serve.app import App
from tfopt.serve.settings import Settings


def call(app, path, *messages, method="POST", last=None):
    """What the application sends for a request of these parts: status and object.

    Args:
        app: of ASGI.
        path: of the request.
        *messages: its parts: bytes, or a whole message.
        method: of the request.
        last: what comes when all parts are read; None never comes.
    """
    parts = [part if isinstance(part, dict) else
             {"type": "http.request", "body": part, "more_body": True}
             for part in messages]
    sent = []

    async def receive():
        if parts:
            return parts.pop(0)
        if last is None:
            await asyncio.sleep(60)
        return last

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": [],
             "query_string": b"", "root_path": "", "http_version": "1.1"}
    asyncio.run(app(scope, receive, send))
    return sent and (sent[0]["status"], json.loads(sent[1]["body"]))


@pytest.fixture(scope="module")
def app(tiny_ladder):
    app = App(Settings(directory=str(tiny_ladder), threads=2, deadline_ms=60_000.0,
                       max_body_bytes=2000, max_letters=100, queue=8, body_s=0.2))
    app.service.start()
    yield app
    app.service.close()


PATHS = ["/predict", "/v2/models/tiny/infer", "/v2/repository/models/tiny/load"]
END = {"type": "http.request", "body": b"", "more_body": False}


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_never_ends_is_given_up(app, path):
    status, found = call(app, path, b'{"texts":')
    assert status == 408
    assert found["error"].endswith("within 0.2 s. Received: 9 bytes of one without an "
                                   "end")
    assert call(app, path)[0] == 408


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_is_too_long_is_read_to_its_end_and_refused(app, path):
    status, found = call(app, path, *[b"x" * 1000] * 10, END)
    assert (status, found["error"]) == (
        413, "A body may have 2,000 bytes. Received: 10,000")
    status, found = call(app, path, *[b"x" * 1000] * 100, END)
    assert (status, found["error"]) == (
        413, "A body may have 2,000 bytes. Received: 33,000 or more")


@pytest.mark.parametrize("path", PATHS[:2])
def test_a_client_that_goes_gets_nothing(app, path):
    assert call(app, path, b'{"te', last={"type": "http.disconnect"}) == []
    assert app.service.in_flight == 0


def test_a_body_may_come_in_parts(app):
    status, found = call(app, "/predict", b'{"texts"', b': ["a"', b"]}", END)
    assert (status, len(found["answers"])) == (200, 1)


def test_texts_that_are_too_long_or_too_many_are_refused(app):
    status, found = call(app, "/predict", json.dumps({"texts": ["a" * 101]}).encode(),
                         END)
    assert (status, found["error"]) == (413, "A text may have 100 letters. Received: "
                                        "101")
    nine = json.dumps({"texts": ["a"] * 9}).encode()
    status, found = call(app, "/predict", nine, END)
    assert (status, found["error"]) == (413, "A request may have 8 texts. Received: 9 "
                                        "texts")


def test_ten_megabytes_are_refused(client):
    answer = client.post("/predict", json={"texts": ["a" * 10_000_000]})
    assert answer.status_code == 413
    assert answer.json()["error"].startswith("A body may have 1,048,576 bytes. Rec")


def test_before_its_start_and_after_its_end_the_service_says_so(tiny_ladder):
    app = App(Settings(directory=str(tiny_ladder)))
    for path in (*PATHS, "/metrics"):
        method = "GET" if path == "/metrics" else "POST"
        status, found = call(app, path, b'{"texts": ["a"]}' if path == "/predict" else
                             b'{"inputs": []}' if "infer" in path else b"", END,
                             method=method)
        assert (status, "must have begun" in found["error"]) == (503, True)
    assert call(app, "/v2/health/ready", method="GET")[0] == 503


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/nowhere", 404), ("GET", "/metrics/", 404), ("POST", "/", 405),
    ("GET", "/predict", 405),
    ("PUT", "/v2/models/tiny/infer", 405), ("POST", "/v2/models/a/b/infer", 404),
    ("POST", "/v2/models//infer", 404), ("POST", "/v2/models/infer", 405),
    ("DELETE", "/v2/models/tiny", 405), ("GET", "/v2/models/other", 404),
    ("GET", "/v2/repository/models/tiny/load", 405)])
def test_other_paths_and_methods_are_refused(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status
    assert "Received: " in answer.json()["error"]


def test_the_page_asks_nobody_but_the_service(client):
    answer = client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.findall(r"https?://|//[a-z]+\.", answer.text)
    # Each path that the page asks is there, relative, so that a prefix does no harm.
    asked = re.findall(r'get\("([^"]+)"', answer.text)
    assert {*asked} == {"predict", "v2/models/", "v2/repository/index"}
    assert "innerHTML" not in answer.text


def test_openapi_has_the_paths_that_there_are_and_their_methods(client):
    found = client.get("/openapi.json").json()
    assert found["openapi"].startswith("3.1")
    there = {}
    for route in client.app._all.routes:
        there.setdefault(route.path, set()).update(
            method.lower() for method in route.methods - {"HEAD"})
    assert {path: {*methods} for path, methods in found["paths"].items()} == there
    page = client.get("/docs").text
    assert all(path in page for path in there)


def test_the_examples_of_openapi_work(client):
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method, about in methods.items():
            if path.endswith("load"):
                continue
            example = (about.get("requestBody", {}).get("content", {}).get(
                "application/json", {}).get("example"))
            if example and "parameters" in example:
                example["parameters"]["deadline_ms"] = 60_000
            answer = client.request(
                method, path.format(model="tiny", version="1"),
                **({} if example is None else {"json": example}))
            assert answer.status_code == 200, (path, answer.text)


def test_the_application_works_below_a_prefix(tiny_ladder):
    with serving(tiny_ladder) as client:
        below = type(client)(client.app, root_path="/tfopt")
        for path in ("/tfopt/v2/models/tiny", "/tfopt/"):
            assert below.get(path).status_code == 200
        answer = below.post("/tfopt/predict", json={"texts": ["a"]})
        assert answer.status_code == 200
