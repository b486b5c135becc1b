"""The server behind this one: how it is asked, and what its failures are to our clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx2

from glasshouse.core.errors import UsageError
from glasshouse.server.call import Call
from glasshouse.server.errors import ApiError, Dialect, deadline_exceeded

CONNECT = 10.0
"""Seconds to reach the server; how long it may take to answer is the request's own limit."""

IDLE = 2.0
"""Seconds that an unused connection is kept: less than common servers do (uvicorn: 5), so that no request is
sent on one that is just being closed."""

BEHIND = "the server behind this one"

KEPT = ("retry-after", "retry-after-ms", "x-should-retry")
"""Headers of an answer that a client acts on; and all that begin with x-ratelimit."""


class UpstreamError(ApiError):
    """A refusal of the server behind us; clients of its own dialect read its very words."""

    told: Mapping[str, Any] | None = None

    def body(self, dialect: Dialect, request_id: str) -> dict[str, Any]:
        if dialect == "openai" and self.told is not None:
            return {"error": dict(self.told)}
        return super().body(dialect, request_id)


class Upstream:
    """One server with OpenAI's API, by its base URL."""

    def __init__(self, address: str, key: str | None = None) -> None:
        """`key` is sent to it and appears nowhere else. Raises UsageError for what is no address."""
        try:
            url = httpx2.URL(address.partition("#")[0])
        except httpx2.InvalidURL:
            url = httpx2.URL("")
        if url.scheme not in ("http", "https") or not url.host:
            raise UsageError("this is no address of a server", fix="write it as http://host:port/v1#name")
        if url.userinfo:
            raise UsageError(
                "an address is shown in logs and must hold no password",
                fix="name the environment variable that holds it with --upstream-key",
            )
        if url.query:
            raise UsageError("an address with a question mark cannot be extended", where=address)
        self.address = str(url).rstrip("/")
        self._key = key
        headers = {"accept-encoding": "identity"}  # what arrives is passed on as it is
        if key:
            headers["authorization"] = f"Bearer {key}"
        self._client = httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(None, connect=CONNECT),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=IDLE),
            # One client's cookie is none of the next one's business, and would pin all of them to one node.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )

    def __repr__(self) -> str:
        return f"Upstream({self.address!r})"

    @asynccontextmanager
    async def asked(
        self, method: str, path: str, body: Any, call: Call, until: float
    ) -> AsyncIterator[httpx2.Response]:
        """The answer's head; its body is still to be read. Leaving the block ends the request.

        `until`: the call's seconds at which the time is over, here and below.
        Raises UpstreamError for a refusal, ApiError 502 where the server cannot be reached, 504 where the
        time is over.
        """
        headers = {"content-type": "application/json"}
        for name in ("traceparent", "tracestate"):
            if value := call.headers.get(name):
                headers[name] = value
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        request = self._client.build_request(
            method, f"{self.address}{path}", content=content, headers=headers
        )
        response = None
        try:
            with failures(), call.with_engine():
                async with _over(until, call):
                    response = await self._client.send(request, stream=True)
                    if response.status_code != 200:
                        raise self._refusal(response, await response.aread())
            yield response
        finally:
            if response is not None:
                await response.aclose()

    async def whole(
        self, method: str, path: str, body: Any, call: Call, until: float
    ) -> tuple[bytes, dict[str, str]]:
        """The answer's body, and those of its headers that clients act on. Raises what `asked` raises."""
        async with self.asked(method, path, body, call, until) as response:
            with failures(), call.with_engine():
                async with _over(until, call):
                    return await response.aread(), kept(response.headers)

    async def close(self) -> None:
        await self._client.aclose()

    def _refusal(self, response: httpx2.Response, raw: bytes) -> ApiError:
        status = response.status_code
        if status in (401, 403):  # about this server's key; the client's was right
            return ApiError(
                502,
                f"{BEHIND} does not let it in",
                code="upstream_not_allowed",
                headers={"x-should-retry": "false"},
            )
        if status < 400:
            return ApiError(502, f"{BEHIND} answered with status {status}", code="upstream_odd")
        if self._key:
            raw = raw.replace(self._key.encode(), b"***")
        try:
            told = json.loads(raw)
        except ValueError:
            told = None
        inner = told.get("error", told) if isinstance(told, dict) else None
        message = inner.get("message") if isinstance(inner, dict) else inner
        if not isinstance(message, str):
            message, inner = f"{BEHIND} answered with status {status}", None
        fields = inner if isinstance(inner, dict) else {}
        code, param = (None if fields.get(name) is None else str(fields[name]) for name in ("code", "param"))
        error = UpstreamError(status, message, code=code, param=param, headers=kept(response.headers))
        error.told = fields or None
        return error


def kept(headers: httpx2.Headers) -> dict[str, str]:
    """What a client acts on."""
    return {name: value for name, value in headers.items() if name in KEPT or name.startswith("x-ratelimit")}


@contextmanager
def failures() -> Iterator[None]:
    """Turn a connection's failures into ApiErrors, which tell no address."""
    try:
        yield
    except (TimeoutError, httpx2.TimeoutException) as error:
        if isinstance(error, httpx2.ConnectTimeout):
            raise _unreachable() from None
        raise deadline_exceeded() from None
    except (httpx2.ConnectError, httpx2.ProxyError):
        raise _unreachable() from None
    except (httpx2.HTTPError, httpx2.StreamError, RuntimeError) as error:
        # RuntimeError: our client was closed while it was at work, since the server shuts down
        if isinstance(error, RuntimeError) and "closed" not in str(error):
            raise
        raise broken_off() from None


def _over(until: float, call: Call) -> asyncio.Timeout:
    return asyncio.timeout(max(until - call.seconds, 0.0))


def broken_off() -> ApiError:
    return ApiError(502, f"{BEHIND} broke its answer off", code="upstream_broken")


def _unreachable() -> ApiError:
    return ApiError(502, f"{BEHIND} cannot be reached", code="upstream_unreachable")


async def events(response: httpx2.Response, call: Call, until: float) -> AsyncIterator[list[bytes]]:
    """Server-sent events as they come, each whole and with the blank line that ends it.

    Raises ApiError 502 for a stream that breaks, 504 where the time is over.
    """
    pieces, rest = response.aiter_bytes(), b""
    while True:
        try:
            with failures(), call.with_engine():
                async with _over(until, call):
                    piece = await anext(pieces)
        except StopAsyncIteration:
            if rest.strip():
                raise broken_off() from None
            return
        rest = (rest + piece).replace(b"\r\n", b"\n")
        *whole, rest = rest.split(b"\n\n")
        if whole:
            yield [one + b"\n\n" for one in whole]


def data_of(event: bytes) -> Any:
    """The JSON of an event's data; "[DONE]" is itself; None for a comment and for what is no JSON."""
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    if not lines:
        return None
    text = b"\n".join(lines)
    if text.strip() == b"[DONE]":
        return "[DONE]"
    try:
        return json.loads(text)
    except ValueError:
        return None
