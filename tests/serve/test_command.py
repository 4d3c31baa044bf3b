"""`tfopt serve` as a process: it starts without TensorFlow, drains, and ends."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error

import pytest
from scripts import call
from server_process import ServerProcess, without


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment in which no TensorFlow can be imported."""
    return without(("tensorflow", "tf_keras", "keras", "ai_edge_quantizer",
                    "safetensors"), tmp_path_factory.mktemp("empty"))


def refused(environment, *arguments):
    """The sentence of a command that does not begin."""
    done = subprocess.run(
        [sys.executable, "-m", "tfopt.cli", "serve", *map(str, arguments)],
        capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_it_serves_without_tensorflow_and_sigterm_loses_nothing_admitted(
        tiny_ladder, environment, bundles, tmp_path):
    expected = bundles["whole"].predict(["a film"])
    codes, lock = [], threading.Lock()
    log = tmp_path / "log.jsonl"
    with ServerProcess(tiny_ladder, "--deadline_ms=60000", f"--request_log={log}",
                       environment=environment) as server:
        assert server.ask("/v2/health/ready") == {"ready": True}

        def send():
            while True:
                try:
                    found = server.ask(texts=["a film"] * 50, variant="whole")
                except (OSError, urllib.error.URLError) as error:
                    reason = getattr(error, "reason", error)
                    with lock:
                        codes.append(type(reason).__name__)
                    return
                with lock:
                    codes.append(found["answers"] == [
                        expected[0] | {"variant": "whole"}] * 50)

        clients = [threading.Thread(target=send) for _ in range(4)]
        for client in clients:
            client.start()
        while len(codes) < 8:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        for client in clients:
            client.join(60)
        # Who comes after the signal finds nobody; who was taken in has an answer.
        assert {*codes} <= {True, "ConnectionRefusedError", "ConnectionResetError",
                            "RemoteDisconnected"}
        answered = codes.count(True)
        assert answered >= 8
    assert "All that was taken in is answered" in server.said
    # What the service has answered, clients have got.
    assert len(log.read_text().splitlines()) == 50 * answered


def test_one_connection_is_asked_again_and_again(tiny_ladder):
    with ServerProcess("--dir", tiny_ladder) as server:
        body = b'{"texts": ["a"]}'
        with socket.create_connection(server.place, timeout=60) as connection:
            for _ in range(3):
                connection.sendall(
                    b"POST /predict HTTP/1.1\r\nhost: a\r\ncontent-length: "
                    b"%d\r\n\r\n%b" % (len(body), body))
                received = b""
                while b"milliseconds" not in received:
                    received += connection.recv(65536)
                assert received.startswith(b"HTTP/1.1 200")
            connection.sendall(b"nonsense\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 400")
        assert server.ask(texts=["a"])["model"] == "tiny"


def test_a_mistake_is_told_in_a_sentence(tiny_ladder, environment, tmp_path):
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert refused(environment, tiny_ladder, f"--port={port}") == (
            "tfopt serve: --host and --port must be free to listen on. Received: "
            f"--host=127.0.0.1 --port={port}: Address already in use")
    assert refused(environment, tmp_path, "--port=0").endswith(
        f"a folder of them. Received: {tmp_path} without any")


def test_without_the_extra_it_says_what_to_install(tiny_ladder, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = call("tfopt.cli.serve", f"--dir={tiny_ladder}", "--port=0", status=1)
    assert "needs the extra `serve`: pip install '.[serve]'" in done.stderr


@pytest.mark.parametrize(("flags", "said"), [
    (["--host=no.such.host.", "--port=0"], "Received: --host=no.such.host. --port=0"),
    (["--port=0", "--deadline_ms=0"], "above 0. Received: deadline_ms=0.0")])
def test_flags_that_are_wrong_are_told(tiny_ladder, flags, said):
    done = call("tfopt.cli.serve", f"--dir={tiny_ladder}", *flags, status=1)
    assert said in done.stderr
