"""What arrives at an ASGI application -> the bytes of a request, within limits.

And what leaves it: a whole answer in one go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from tfopt.serve.refusal import Refusal

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
JSON = b"application/json"
_READ_ON = 16  # times the longest body


class Gone(Exception):
    """The client has gone before its request was whole."""


async def read(receive: Receive, most: int, seconds: float) -> bytes:
    """Reads a request's body.

    Args:
        receive: gives its parts.
        most: bytes that it may have.
        seconds: within which it must be there.

    Returns:
        The bytes.

    Raises:
        Refusal: 413, it is too long; 408, it does not end in time.
        Gone: the client has gone.
    """
    # asyncio.wait_for would make a task for each request.
    task, expired = asyncio.current_task(), False

    def expire() -> None:
        nonlocal expired
        expired = True
        if task is not None:
            task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, expire)
    parts: list[bytes] = []
    size, ended = 0, False
    try:
        # What is too long is read on for a while: a client reads no answer before.
        while not ended and size <= _READ_ON * most:
            message = await receive()
            if message["type"] != "http.request":
                raise Gone
            part = message.get("body", b"")
            size, ended = size + len(part), not message.get("more_body")
            if size <= most:
                parts.append(part)
    except asyncio.CancelledError:
        if not expired:
            raise
        raise Refusal(408, f"A body must be there within {seconds:g} s. Received: "
                      f"{size} bytes of one without an end", "slow") from None
    finally:
        timer.cancel()
    if size > most:
        raise Refusal(413, f"A body may have {most:,} bytes. Received: {size:,}"
                      f"{'' if ended else ' or more'}", "too_large")
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def answer(send: Send, status: int, body: bytes, kind: bytes = JSON,
                 more: Sequence[tuple[bytes, bytes]] = ()) -> None:
    """Sends a whole answer.

    Args:
        send: takes its parts.
        status: of HTTP.
        body: of the answer.
        kind: its media type.
        more: further headers, their names in small letters.
    """
    await send({"type": "http.response.start", "status": status, "headers": [
        (b"content-type", kind), (b"content-length", b"%d" % len(body)), *more]})
    await send({"type": "http.response.body", "body": body})
