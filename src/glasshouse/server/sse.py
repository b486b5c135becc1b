"""Server-sent events: a body that is written as it comes, and ends the moment its reader leaves."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")


COMMENT = b": ping\n\n"
"""A sign of life for clients that know no event for it: every reader skips comments."""


class ClientLeftError(Exception):
    """The connection was closed before the answer was ready."""


def event(data: dict[str, Any] | str, name: str | None = None) -> bytes:
    """One event (WHATWG HTML, section 9.2). JSON holds no line break, so one `data:` line is enough."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {text}\n\n".encode()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The work's result; a client that leaves cancels the work and raises ClientLeftError."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeftError
        return task.result()
    finally:
        await cancel(task, watch)


async def cancel(*tasks: asyncio.Future[Any]) -> None:
    """Stop what still runs, and wait until it has."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class EventStream(Response):
    """Sends what a generator yields. A reader that leaves closes the generator at once.

    `end` is called in any case, also where the generator never began.
    """

    media_type = "text/event-stream"

    def __init__(
        self, pieces: AsyncGenerator[bytes, None], ping: bytes, every: float, end: Callable[[], None]
    ) -> None:
        """`ping` is sent whenever `every` seconds passed in silence, so that no proxy gives up."""
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._pieces, self._ping, self._every, self._end = pieces, ping, every, end
        self._last = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            with contextlib.suppress(OSError, ClientLeftError):  # OSError: writing to a closed connection
                await unless_gone(receive, self._write(send))
        finally:
            self._end()
            await self._pieces.aclose()

    async def _write(self, send: Send) -> None:
        self._last = time.monotonic()
        pinger = asyncio.ensure_future(self._keep_awake(send))
        try:
            async for piece in self._pieces:
                await self._put(send, piece)
        finally:
            await cancel(pinger)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _keep_awake(self, send: Send) -> None:
        while True:
            silent = time.monotonic() - self._last
            if silent >= self._every:
                await self._put(send, self._ping)
                silent = 0.0
            await asyncio.sleep(self._every - silent)

    async def _put(self, send: Send, piece: bytes) -> None:
        self._last = time.monotonic()
        await send({"type": "http.response.body", "body": piece, "more_body": True})
