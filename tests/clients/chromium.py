"""Chromium without a window, driven by its DevTools protocol over two pipes.

    with Chromium(directory) as browser:
        page = browser.open("http://127.0.0.1:8020/")
        page.wait_for("document.readyState == 'complete'")

The pipes need no library; messages are JSON, each ended by a NUL byte.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser",
                                               "google-chrome"))), None)
_PATIENCE_S = 120.0  # two cores compile 7 MB of WebAssembly, beside other work
# Only this machine: what asks for another host gets no address.
_FLAGS = ("--headless=new", "--remote-debugging-pipe", "--no-first-run",
          "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions",
          "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
          "--window-size=760,620")


class Chromium:
    """A browser; a context manager, at whose end it ends.

    Args:
        directory: an empty one, for its profile.
        program: of the browser.
    """

    def __init__(self, directory: Path, program: str | None = PROGRAM):
        assert program, "There is no Chromium."
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        # As root, in a container say, its sandbox does not start.
        flags = [*_FLAGS, *["--no-sandbox"] * (os.geteuid() == 0)]
        # It reads requests from 3, and answers to 4.
        script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", program, *flags,
             f"--user-data-dir={directory}"], pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self._answers, self._requests = ours_in, ours_out
        self._buffer, self._number = b"", 0
        self.events: list[dict] = []

    def __enter__(self) -> Chromium:
        """Returns itself."""
        return self

    def __exit__(self, *_) -> None:
        """Ends the browser."""
        with contextlib.suppress(OSError, TimeoutError):
            self.call("Browser.close")
        os.close(self._requests)
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._answers)

    def call(self, method: str, session: str | None = None, **parameters) -> dict:
        """Asks, and waits for the answer; events meanwhile go to `events`."""
        self._number += 1
        request: dict[str, Any] = {"id": self._number, "method": method,
                                   "params": parameters}
        if session:
            request["sessionId"] = session
        os.write(self._requests, json.dumps(request).encode() + b"\0")
        while (message := self._message()).get("id") != self._number:
            self.events.append(message)
        assert "error" not in message, f"{method}: {message['error']}"
        return message["result"]

    def open(self, address: str) -> Page:
        """A page, whose requests and errors go to `events` from the first."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        page = Page(self, self.call("Target.attachToTarget", targetId=target,
                                    flatten=True)["sessionId"])
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        page.call("Page.navigate", url=address)
        return page

    def _message(self) -> dict:
        end = time.monotonic() + _PATIENCE_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [],
                                        max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError("Chromium does not answer")
            part = os.read(self._answers, 1 << 16)
            if not part:
                raise OSError("Chromium ended")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


class Page:
    """A page of a browser.

    Args:
        browser: which has it.
        session: its name there.
    """

    def __init__(self, browser: Chromium, session: str):
        self._browser, self._session = browser, session

    def call(self, method: str, **parameters) -> dict:
        """As `Chromium.call`, of this page."""
        return self._browser.call(method, self._session, **parameters)

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript is, as JSON."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True,
                          returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Waits until an expression is true."""
        end = time.monotonic() + _PATIENCE_S
        while not self.value(expression):
            assert time.monotonic() < end, f"{expression} is not true"
            time.sleep(0.05)

    def type(self, text: str) -> None:
        """Types into what has the focus, in place of what was there."""
        self.call("Input.dispatchKeyEvent", type="keyDown", commands=["selectAll"])
        self.call("Input.insertText", text=text)

    def picture(self) -> bytes:
        """The page as a PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])
