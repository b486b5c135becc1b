"""OpenAI's routes in front of another server: what is asked and what comes back are passed on as they are."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from glasshouse.llm import genai
from glasshouse.server.body import Body, StrictRoute
from glasshouse.server.call import Call
from glasshouse.server.errors import ApiError
from glasshouse.server.openai_responses import ERRORS, STREAMED
from glasshouse.server.prompts import off_loop
from glasshouse.server.proxy import Proxy, Tally
from glasshouse.server.sse import COMMENT, EventStream, event, unless_gone
from glasshouse.server.upstream import broken_off, data_of, events

LISTING = 30.0
"""Seconds that the server behind may take to name its models."""


class PassedOn(Body):
    """A body in OpenAI's format. Every other field is passed on, and judged by the server behind."""

    model: str = Field(max_length=1000)
    stream: bool | None = None

    def fields(self) -> dict[str, Any]:
        """As read: written anew, a name that stood twice means the same to us and to the server behind."""
        stream = {} if self.stream is None else {"stream": self.stream}
        return {"model": self.model, **stream, **(self.model_extra or {})}


def router(service: Proxy) -> APIRouter:
    routes = APIRouter(route_class=StrictRoute, tags=["OpenAI"])
    upstream, seconds = service.upstream, service.settings.request_timeout

    async def passed_on(body: PassedOn, http: HttpRequest, path: str, operation: str) -> Response:
        call = Call.of(http.scope)
        call.operation, call.model, call.stream, call.asked = operation, body.model, bool(body.stream), body
        fields = body.fields() | {"model": service.target(body.model)}
        if operation != genai.EMBEDDINGS:
            fields = service.limited(fields)
        tally = Tally(call)
        tally.begin(fields)
        if body.stream:
            pieces = _stream(service, path, fields, call, tally)
            await unless_gone(http.receive, begin(pieces))
            return EventStream(pieces, COMMENT, service.settings.ping, lambda: None)
        raw, headers = await unless_gone(http.receive, upstream.whole("POST", path, fields, call, seconds))
        tally.add(await read_answer(raw))
        tally.finish()
        return Response(raw, media_type="application/json", headers=headers)

    @routes.post("/v1/chat/completions", responses=STREAMED)
    async def create_chat_completion(body: PassedOn, http: HttpRequest) -> Response:
        """A reply of the assistant; with `stream` as server-sent events."""
        return await passed_on(body, http, "/chat/completions", genai.CHAT)

    @routes.post("/v1/completions", responses=STREAMED)
    async def create_completion(body: PassedOn, http: HttpRequest) -> Response:
        """What follows a text; with `stream` as server-sent events."""
        return await passed_on(body, http, "/completions", genai.TEXT_COMPLETION)

    @routes.post("/v1/embeddings", responses=ERRORS)
    async def create_embeddings(body: PassedOn, http: HttpRequest) -> Response:
        """A vector for each text."""
        return await passed_on(body, http, "/embeddings", genai.EMBEDDINGS)

    async def listed(http: HttpRequest) -> list[dict[str, Any]]:
        """What is served, as the server behind describes it to OpenAI's clients."""
        call = Call.of(http.scope)
        raw, _ = await unless_gone(http.receive, upstream.whole("GET", "/models", None, call, LISTING))
        told = await read_answer(raw)
        entries = [each for each in told.get("data") or () if isinstance(each, dict)]
        if service.model is None:
            return entries
        ours = [each | {"id": service.name} for each in entries if each.get("id") == service.model]
        made = {"object": "model", "created": service.created, "owned_by": "upstream"}
        return ours or [{"id": service.name, **made}]  # some serve names that they do not list

    @routes.get("/v1/models", responses=ERRORS)
    async def list_models(http: HttpRequest) -> Response:
        """The models that are served."""
        entries = await listed(http)
        if Call.of(http.scope).dialect == "openai":
            return JSONResponse({"object": "list", "data": entries})
        data = [_anthropic(each) for each in entries]
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {}
        return JSONResponse({"data": data, "has_more": False, **ends})

    @routes.get("/v1/models/{model:path}", responses=ERRORS)
    async def read_model(model: str, http: HttpRequest) -> Response:
        """One of them. Raises 404 for a name that is not served."""
        service.target(model)
        for each in await listed(http):
            if each.get("id") == model:
                openai = Call.of(http.scope).dialect == "openai"
                return JSONResponse(each if openai else _anthropic(each))
        raise ApiError(
            404, f"the model '{model[:200]}' does not exist here", param="model", code="model_not_found"
        )

    async def unknown() -> Response:
        """Only the server that runs a model knows its tokens."""
        raise ApiError(
            501,
            "this server stands in front of another one and does not know the model's tokens: ask that one",
            code="not_in_proxy_mode",
            headers={"x-should-retry": "false"},
        )

    for path in ("/tokenize", "/detokenize", "/v1/messages/count_tokens"):
        routes.add_api_route(path, unknown, methods=["POST"], include_in_schema=False)
    routes.add_api_route("/tokenizer_info", unknown, methods=["GET"], include_in_schema=False)
    return routes


async def begin(pieces: AsyncGenerator[bytes, None]) -> None:
    """Run a stream up to its first `yield`: until the server behind has agreed. Raises what it raises."""
    await anext(pieces)


async def read_answer(raw: bytes) -> Any:
    """The JSON object that an answer is. Raises ApiError 502."""
    try:
        told = await off_loop(json.loads, raw, size=len(raw))
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise ApiError(502, "the server behind this one answered with what is no JSON", code="upstream_odd")
    return told


async def _stream(
    service: Proxy, path: str, fields: dict[str, Any], call: Call, tally: Tally
) -> AsyncGenerator[bytes, None]:
    """Its events as they come. The usage is always asked for, and left out where the client did not ask."""
    options = fields.get("stream_options")
    options = options if isinstance(options, dict) else {}
    wanted = bool(options.get("include_usage"))
    asked = fields | {"stream_options": {**options, "include_usage": True}}
    seconds = service.settings.request_timeout
    async with service.upstream.asked("POST", path, asked, call, seconds) as response:
        yield b""
        try:
            async for together in events(response, call, seconds):
                if made := b"".join([_seen(each, tally, wanted) for each in together]):
                    yield made
            if not tally.ended:
                raise broken_off()
        except Exception as error:
            yield event(call.failed(error).body("openai", call.id))
        finally:
            tally.finish()


def _seen(each: bytes, tally: Tally, wanted: bool) -> bytes:
    """The event as the client gets it."""
    told = data_of(each)
    tally.add(told)
    if wanted or not isinstance(told, dict) or "usage" not in told:
        return each
    if not told.get("choices"):
        return b""
    return event({name: value for name, value in told.items() if name != "usage"})


def _anthropic(entry: dict[str, Any]) -> dict[str, Any]:
    """A model as Anthropic's clients read it; how long a prompt may be only where that is known."""
    name, created = str(entry.get("id")), entry.get("created")
    made = {
        "id": name,
        "type": "model",
        "display_name": name,
        "created_at": datetime.fromtimestamp(created if isinstance(created, int) else 0, UTC).isoformat(),
        "lifecycle": "active",
    }
    if isinstance(length := entry.get("max_model_len"), int):
        made |= {"max_input_tokens": length, "max_tokens": length}
    return made
