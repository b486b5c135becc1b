"""Bodies arrive whole, in time, and no larger than allowed, before anything reads them."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glasshouse.server.errors import ApiError
from glasshouse.server.settings import ServerSettings
from glasshouse.server.sse import ClientLeftError


class BodyLimit:
    """Middleware: 413 for a body that is too large, 408 for one that does not come."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app, self._limit, self._seconds = app, settings.body_limit, settings.body_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return await self._app(scope, receive, send)
        length = Headers(raw=scope["headers"]).get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length[:20]) > self._limit:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._seconds):
                body = await self._read(receive)
        except TimeoutError:
            raise ApiError(
                408, f"the body did not arrive within {self._seconds:g} s", headers={"connection": "close"}
            ) from None
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return waiting.pop() if waiting else await receive()

        return await self._app(scope, again, send)

    async def _read(self, receive: Receive) -> bytes:
        pieces, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientLeftError
            piece = message.get("body", b"")
            size += len(piece)
            if size > self._limit:
                raise self._too_large()
            pieces.append(piece)
            if not message.get("more_body", False):
                return b"".join(pieces)

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            f"the body is larger than the {self._limit:,} bytes that this server reads",
            code="request_too_large",
            headers={"connection": "close"},  # what is still to come is not read
        )
