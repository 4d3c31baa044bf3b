r"""Serves the page, MediaPipe's files and a model, to browsers on this machine.

    npm --prefix examples/web ci
    python examples/web/serve_page.py --model=runs/demo/model.tflite

It answers with what the page needs and nothing else. The standard library is enough.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).parent
PACKAGE = "node_modules/@mediapipe/tasks-text"
# Browsers compile a .wasm while it comes in, and run a module, by their type alone.
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css",
         ".js": "text/javascript", ".mjs": "text/javascript",
         ".wasm": "application/wasm"}


def files(model: Path, here: Path = HERE) -> dict[str, Path]:
    """Which path of the server is which file.

    Args:
        model: the `.tflite`.
        here: directory with the page.

    Raises:
        ValueError: the model or MediaPipe's package is not there.
    """
    if not model.is_file():
        raise ValueError("--model must be a .tflite, such as `make demo` leaves in "
                         f"runs/demo. Received: --model={model}")
    package = here / PACKAGE
    if not (package / "text_bundle.mjs").is_file():
        raise ValueError(f"MediaPipe's package must be there: npm --prefix {here} ci. "
                         f"Received: no {package}")
    found = {f"/{name}": here / name for name in ("index.html", "page.js", "style.css")}
    found |= {f"/{PACKAGE}/{file.relative_to(package).as_posix()}": file for file in
              [package / "text_bundle.mjs", *sorted((package / "wasm").iterdir())]}
    return found | {"/": here / "index.html", "/model.tflite": model}


@functools.cache
def compressed(file: Path) -> bytes:
    """A file of the page by gzip: a third of the bytes, so also of WebAssembly."""
    return gzip.compress(file.read_bytes(), mtime=0)


def server(found: dict[str, Path], port: int) -> ThreadingHTTPServer:
    """A server of some files, not started yet.

    Args:
        found: path -> file.
        port: on 127.0.0.1; 0 takes a free one.
    """
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30  # s without a byte

        def do_GET(self):  # noqa: N802, D102
            self.answer()

        def do_HEAD(self):  # noqa: N802, D102
            self.answer()

        def answer(self) -> None:
            """Sends the file, or says that there is none."""
            file = found.get(urlsplit(self.path).path)
            if file is None or not file.is_file():
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            kind = TYPES.get(file.suffix)
            small = kind is not None and "gzip" in self.headers.get(
                "Accept-Encoding", "")
            contents = compressed(file) if small else file.read_bytes()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind or "application/octet-stream")
            self.send_header("Content-Length", str(len(contents)))
            if small:
                self.send_header("Content-Encoding", "gzip")
            self.send_header("Cache-Control", "no-cache")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(contents)

        def log_message(self, *_):
            """Says nothing of each request."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main() -> int:
    """Serves until it is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--model", type=Path, required=True, help="a .tflite with metadata")
    add("--port", type=int, default=8020, help="on 127.0.0.1")
    arguments = parser.parse_args()
    try:
        with server(files(arguments.model), arguments.port) as found:
            print(f"http://127.0.0.1:{found.server_port}")
            found.serve_forever()
    except KeyboardInterrupt:
        return 0
    except (ValueError, OverflowError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
