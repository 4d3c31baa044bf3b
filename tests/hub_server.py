"""A small server on 127.0.0.1 that speaks the routes of the Hugging Face hub.

It has repositories of files in memory, and notes what it is asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

# org/name -> branch or tag -> file -> contents
Repositories = Mapping[str, Mapping[str, Mapping[str, bytes]]]


def commit_of(files: Mapping[str, bytes]) -> str:
    """The commit of files, 40 hexadecimal digits of their names and contents."""
    found = hashlib.sha1()
    for name in sorted(files):
        found.update(name.encode() + b"\0" + files[name] + b"\0")
    return found.hexdigest()


class Server(ThreadingHTTPServer):
    """The server.

    Attributes:
        repositories: may be changed while it runs.
        gated: repositories whose files nobody gets.
        asked: every request, such as "GET /api/models/org/name".
    """

    daemon_threads = True

    def __init__(self, repositories: Repositories):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories, self.gated, self.asked = dict(repositories), set(), []

    @property
    def endpoint(self) -> str:
        """What HF_ENDPOINT is to be."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def files_asked(self) -> set[str]:
        """The files of which the contents were asked for."""
        places = (line.partition("/resolve/")[2] for line in self.asked
                  if line.startswith("GET"))
        return {place.partition("/")[2] for place in places if place}


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def log_message(self, *_):
        pass

    def _answer(self):
        path = urlsplit(self.path).path
        self.server.asked.append(f"{self.command} {path}")
        words = [unquote(word) for word in path.strip("/").split("/")]
        if len(words) < 4:  # no repository: the package asks for news of its own
            self._send(404, b"", {})
            return
        if words[:2] == ["api", "models"]:
            repository, (kind, revision) = "/".join(words[2:4]), (
                words[4:6] if len(words) > 4 else ("revision", "main"))
        else:
            repository, (kind, revision) = "/".join(words[:2]), words[2:4]
        if repository not in self.server.repositories:
            self._send(401, b"", {"X-Error-Message": "Invalid username or password."})
            return
        branches = self.server.repositories[repository]
        by_commit = {commit_of(files): files for files in branches.values()}
        files = branches.get(revision) or by_commit.get(revision)
        if files is None:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif kind == "resolve":
            self._send_file(repository, files, "/".join(words[4:]))
        else:
            self._send(200, json.dumps(
                _about(repository, files) if kind == "revision" else _tree(files)
            ).encode(), {"Content-Type": "application/json"})

    def _send_file(self, repository, files, name):
        if repository in self.server.gated:
            self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        elif name not in files:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound",
                                  "X-Repo-Commit": commit_of(files)})
        else:
            digest = hashlib.sha1(files[name]).hexdigest()
            self._send(200, files[name], {"X-Repo-Commit": commit_of(files),
                                          "ETag": f'"{digest}"'})

    def _send(self, status, contents, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(contents))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(contents)


def _about(repository, files):
    return {"_id": "0", "id": repository, "modelId": repository, "tags": [],
            "sha": commit_of(files), "private": False, "gated": False,
            "disabled": False, "downloads": 0, "likes": 0,
            "siblings": [{"rfilename": name} for name in files]}


def _tree(files):
    return [{"type": "file", "path": name, "size": len(contents),
             "oid": hashlib.sha1(contents).hexdigest()}
            for name, contents in files.items()]


@contextlib.contextmanager
def serving(repositories: Repositories) -> Iterator[Server]:
    """Serves, in a thread, until the block ends."""
    with Server(repositories) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
