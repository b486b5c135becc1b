"""Who may do what: reads the API key before anything else of a request is looked at."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from glasshouse.server.call import Call
from glasshouse.server.errors import ApiError, draining
from glasshouse.server.keys import Keys
from glasshouse.server.keys import Scope as KeyScope
from glasshouse.server.service import Front

OPEN = frozenset({"/", "/healthz", "/readyz", "/openapi.json", "/docs"})
"""Need no key: they tell nothing about anybody."""

SCOPES: dict[str, KeyScope] = {
    "/v1/chat/completions": "generate",
    "/v1/completions": "generate",
    "/v1/messages": "generate",
    "/v1/messages/count_tokens": "tokenize",
    "/v1/embeddings": "embed",
    "/tokenizer_info": "tokenize",
    "/tokenize": "tokenize",
    "/detokenize": "tokenize",
    "/metrics": "metrics",
}

WORK = frozenset({"generate", "embed"})
"""Scopes of what takes the engine's time: a server that shuts down takes no more of it."""


class Access:
    """Middleware: 401 without a known key, 403 without the scope, 503 for new work while draining."""

    def __init__(self, app: ASGIApp, service: Front, keys: Keys) -> None:
        self._app, self._service, self._keys = app, service, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        path = scope["path"]
        wanted = SCOPES.get(path)
        if self._keys and path not in OPEN:
            self._check(Headers(raw=scope["headers"]), Call.of(scope), wanted)
        if wanted not in WORK or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        if self._service.draining:
            raise draining()
        self._service.in_flight += 1
        try:
            return await self._app(scope, receive, send)
        finally:
            self._service.in_flight -= 1

    def _check(self, headers: Headers, call: Call, wanted: KeyScope | None) -> None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        secret = headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
        if not secret:
            raise ApiError(
                401,
                "no API key was given: send 'Authorization: Bearer KEY' or 'x-api-key: KEY'",
                code="missing_api_key",
                headers={"www-authenticate": "Bearer"},
            )
        key = self._keys.find(secret)
        if key is None:
            raise ApiError(
                401,
                "this API key is not known here",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
        call.key = key.name
        if wanted is not None and wanted not in key.scopes:
            raise ApiError(403, f"this API key lacks the scope '{wanted}'", code="insufficient_scope")
