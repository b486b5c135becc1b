"""The outermost layer: every request gets an id, an answer, a line in the log, a metric and a span."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glasshouse.server.call import Call
from glasshouse.server.logs import RequestLog
from glasshouse.server.metrics import Metrics
from glasshouse.server.sse import ClientLeftError
from glasshouse.server.telemetry import Telemetry

LEFT = 499
"""What logs and metrics call a client that did not wait; nobody receives it."""


class Recording:
    """Middleware; adds x-request-id, request-id, x-glasshouse-overhead-ms and x-ignored-fields."""

    def __init__(self, app: ASGIApp, log: RequestLog, metrics: Metrics, telemetry: Telemetry) -> None:
        self._app, self._log, self._metrics, self._telemetry = app, log, metrics, telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        call = Call.begin(scope)
        scope.setdefault("state", {})["call"] = call
        status = LEFT

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_headers(call)]
            await send(message)

        self._metrics.begin(call)
        try:
            try:
                await self._app(scope, receive, sending)
            except ClientLeftError:
                status = LEFT
            except Exception as error:
                if status != LEFT:  # the answer had begun: all that is left is to break it off
                    raise
                await respond(call, error)(scope, receive, sending)
        finally:
            self._metrics.end(call, status)
            self._telemetry.record(call, status)
            self._log.write(call, status)


def respond(call: Call, error: Exception) -> JSONResponse:
    """The answer to a request that failed, in the dialect of its client."""
    problem = call.failed(error)
    body = problem.body(call.dialect, call.id)
    return JSONResponse(body, status_code=problem.status, headers=problem.headers)


def _headers(call: Call) -> list[tuple[bytes, bytes]]:
    ident = call.id.encode("ascii")
    headers = [
        (b"x-request-id", ident),
        (b"request-id", ident),
        (b"x-glasshouse-overhead-ms", f"{call.overhead * 1000:.2f}".encode("ascii")),
    ]
    if call.ignored:
        headers.append((b"x-ignored-fields", _printable(call.ignored)))
    return headers


def _printable(names: Iterable[str]) -> bytes:
    """Names, whatever a client called its fields, as a header may hold them: no space at either end."""
    signs = ("".join(sign if "!" <= sign <= "~" else "?" for sign in name) for name in names)
    return ", ".join(signs)[:1000].strip().encode("ascii")
