"""The page of examples/web without a browser: its weight, its pins, its server."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import serve_page

HERE = Path(serve_page.__file__).parent


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A copy of the page beside a package of empty files."""
    tmp_path = tmp_path_factory.mktemp("page")
    for name in ("index.html", "page.js", "style.css"):
        (tmp_path / name).write_bytes((HERE / name).read_bytes())
    wasm = tmp_path / serve_page.PACKAGE / "wasm"
    wasm.mkdir(parents=True)
    (wasm.parent / "text_bundle.mjs").write_text("// none")
    (wasm / "text_wasm_internal.wasm").write_bytes(b"\0asm")
    (tmp_path / "a.tflite").write_bytes(b"a model")
    return tmp_path


@pytest.fixture(scope="module")
def ask(page):
    """Asks a server of the page for a path."""
    served = serve_page.server(serve_page.files(page / "a.tflite", page), port=0)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    connection = http.client.HTTPConnection("127.0.0.1", served.server_port, timeout=30)

    def get(path, method="GET", **headers):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()

    yield get
    connection.close()
    served.shutdown()
    served.server_close()


def test_the_page_weighs_little():
    """With MediaPipe's bundle, as it is sent, test_in_browser.py has the weight."""
    own = sum((HERE / name).stat().st_size
              for name in ("index.html", "page.js", "style.css"))
    assert own <= 6_000


def test_the_package_is_pinned_by_its_hash_and_no_host_is_named():
    wanted = json.loads((HERE / "package.json").read_text())["dependencies"]
    locked = json.loads((HERE / "package-lock.json").read_text())["packages"]
    assert wanted == {"@mediapipe/tasks-text": locked[
        f"{serve_page.PACKAGE}"]["version"]}
    assert all(entry["integrity"].startswith("sha512-")
               for name, entry in locked.items() if name)
    for file in HERE.iterdir():
        if file.is_file():
            assert not re.search(r"https?://(?!127\.0\.0\.1)",
                                 file.read_text(encoding="utf-8")), file.name


def test_the_page_may_ask_its_own_server_alone():
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"',
                       (HERE / "index.html").read_text())[1]
    rules = dict(rule.split(maxsplit=1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["connect-src"] == "'self'"


@pytest.mark.parametrize(("path", "kind"), [
    ("/", "text/html; charset=utf-8"), ("/index.html", "text/html; charset=utf-8"),
    ("/page.js", "text/javascript"), ("/style.css", "text/css"),
    (f"/{serve_page.PACKAGE}/text_bundle.mjs", "text/javascript"),
    (f"/{serve_page.PACKAGE}/wasm/text_wasm_internal.wasm", "application/wasm"),
    ("/model.tflite?again=1", "application/octet-stream"),
])
def test_files_come_with_their_type(path, kind, ask):
    answer, contents = ask(path)
    assert answer.status == 200 and answer.getheader("Content-Type") == kind
    assert contents and len(contents) == int(answer.getheader("Content-Length"))
    answer, contents = ask(path, "HEAD")
    assert answer.status == 200 and not contents


def test_the_model_is_that_of_the_flag(ask):
    answer, contents = ask("/model.tflite", **{"Accept-Encoding": "gzip"})
    assert contents == b"a model" and answer.getheader("Content-Encoding") is None


def test_text_and_webassembly_are_sent_compressed(ask):
    for path in ("/page.js", f"/{serve_page.PACKAGE}/wasm/text_wasm_internal.wasm"):
        answer, contents = ask(path, **{"Accept-Encoding": "gzip, br"})
        assert answer.getheader("Content-Encoding") == "gzip"
        assert gzip.decompress(contents) == ask(path)[1]


@pytest.mark.parametrize("path", [
    "/serve_page.py", "/a.tflite", "/../a.tflite", "//etc/passwd", "/package.json",
    f"/{serve_page.PACKAGE}/../../../a.tflite", "/%2e%2e/a.tflite", "/node_modules/"])
def test_no_other_file_is_served(path, ask):
    assert ask(path)[0].status == 404


def test_what_is_not_there_is_told_in_a_sentence(page, tmp_path):
    with pytest.raises(ValueError, match="--model must be .* Received: --model=none"):
        serve_page.files(Path("none"), page)
    with pytest.raises(ValueError, match="npm --prefix .* ci. Received: no "):
        serve_page.files(page / "a.tflite", tmp_path / "elsewhere")


def test_the_script_ends_with_a_sentence(tmp_path):
    done = subprocess.run([sys.executable, HERE / "serve_page.py", "--model",
                           tmp_path / "none.tflite"], check=False, text=True,
                          capture_output=True, timeout=60)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "--model must be a .tflite" in done.stderr
