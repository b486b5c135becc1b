"""The application: every route, and the layers that a request passes on its way to one.

Recording    id, log line, metrics, span, and an answer for whatever fails below
Access       API key, scope, whether new work is taken
BodyLimit    the whole body, in time, not too large
a route      strict JSON, a pydantic model of the body, the engine
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from glasshouse import __version__
from glasshouse.server import (
    anthropic_messages,
    docs_page,
    embeddings,
    health,
    metrics,
    models,
    openai_chat,
    openai_completions,
    proxy_anthropic,
    proxy_openai,
    tokens,
)
from glasshouse.server.access import OPEN, Access
from glasshouse.server.body_limit import BodyLimit
from glasshouse.server.call import Call
from glasshouse.server.errors import ApiError, invalid
from glasshouse.server.keys import Keys
from glasshouse.server.logs import RequestLog
from glasshouse.server.metrics import Metrics
from glasshouse.server.proxy import Proxy
from glasshouse.server.recording import Recording, respond
from glasshouse.server.service import Front, Service
from glasshouse.server.telemetry import Telemetry

DESCRIPTION = "One model behind the APIs of OpenAI and Anthropic."

ROOMS = (openai_chat, openai_completions, embeddings, anthropic_messages, models, tokens)
"""Routes that lead to our own engine."""


def build(
    service: Service | Proxy,
    keys: Keys | None = None,
    log: RequestLog | None = None,
    telemetry: Telemetry | None = None,
) -> FastAPI:
    """The ASGI application of one service, or before another server. Its end closes the engine."""
    keys = keys or Keys()
    log = log or RequestLog(service.settings.log_content)
    telemetry = telemetry or Telemetry(service.settings.traces)
    if isinstance(service, Service):
        counted = Metrics(service.engine)
        rooms = [room.router(service) for room in ROOMS]
    else:
        counted = Metrics()
        rooms = [proxy_openai.router(service), proxy_anthropic.router(service)]

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.draining = True
        await service.close()
        telemetry.close()

    app = FastAPI(
        title="Glasshouse",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,  # FastAPI's own pages load scripts from elsewhere
        redoc_url=None,
        lifespan=life,
    )
    app.add_middleware(BodyLimit, settings=service.settings)
    app.add_middleware(Access, service=service, keys=keys)
    app.add_middleware(Recording, log=log, metrics=counted, telemetry=telemetry)
    app.add_exception_handler(RequestValidationError, _refuse_body)
    app.add_exception_handler(HTTPException, _refuse)
    for room in (*rooms, health.router(service), metrics.router(counted)):
        app.include_router(room)

    @app.get("/docs", include_in_schema=False)
    async def read_docs() -> Response:
        return HTMLResponse(docs_page.page(app.openapi()))

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _finished(FastAPI.openapi(app), service, bool(keys))
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  (FastAPI's way of changing the document)
    return app


async def _refuse_body(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return respond(Call.of(request.scope), invalid(error.errors()))


async def _refuse(request: Request, error: Exception) -> Response:
    # What reads a body may fail with an ApiError of its own, which FastAPI wraps.
    own = error.__cause__ if isinstance(error.__cause__, ApiError) else error
    return respond(Call.of(request.scope), own)


def _finished(document: dict[str, Any], service: Front, keyed: bool) -> dict[str, Any]:
    """What the routes cannot say: which models and tokens there are, and how a key is given."""
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        field = schema.get("properties", {}).get("model")
        if field is not None and "model" in schema.get("required", ()) and field.get("maxLength"):
            field |= {"enum": list(service.models)} if service.models else {}
    _bound(schemas, service.bounds)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    for path, verbs in document["paths"].items():
        for operation in verbs.values():
            operation["responses"].pop("422", None)  # a body that does not fit ends with 400 here
            if keyed and path not in OPEN:
                operation["security"] = [{"bearer": []}, {"x-api-key": []}]
    return document


def _bound(schema: Any, most: Mapping[str, int]) -> None:
    """Give numbers of these formats the maximum that the model sets."""
    if isinstance(schema, dict):
        if schema.get("type") == "integer" and schema.get("format") in most:
            schema["maximum"] = most[schema["format"]]
        for inner in schema.values():
            _bound(inner, most)
    elif isinstance(schema, list):
        for inner in schema:
            _bound(inner, most)
